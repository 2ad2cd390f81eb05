import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeMachine } from '#host/fake/machine.ts';
import { nfsIdentity, nfsSource, parseNfs } from '#storage/nfs.ts';
import { ShareLists } from '#storage/share-lists.ts';
import { recordedAs } from '#storage/share-names.ts';
import { parseSmbPath, smbIdentity } from '#storage/smb.ts';
import { shares } from '../../tests/support/fake-shares.ts';
import { quickStore, shareRoot } from '../../tests/support/fake-storage.ts';

const spellings = [
  ['::1', '/export/a'],
  ['0:0:0:0:0:0:0:1', '//export//a'],
  ['0000::0001', '/export/a//'],
] as const;

test('an export and a share have one identity in whatever spelling they are asked for', () => {
  for (const [server, path] of spellings) {
    const target = parseNfs(server, path);
    assert.equal(nfsIdentity(target), 'nfs://::1/export/a');
    assert.equal(nfsSource(target), '[::1]:/export/a');
    const smb = parseSmbPath(`//[${server}]/Public`);
    assert.equal(smbIdentity(smb), 'smb://::1:445/public');
  }
  assert.equal(
    parseNfs('FE80:0::1%Lan0', '//').server,
    'fe80::1%Lan0',
    'the zone is the name of an interface',
  );
  assert.equal(parseNfs('nas', '//').path, '/');
  assert.notEqual(nfsIdentity(parseNfs('fe80::1%a', '/x')), nfsIdentity(parseNfs('fe80::1%b', '/x')));
});

test('a share that is in the store under a spelling of before goes by that', () => {
  const rows = [
    'nfs://nas//export//a',
    'nfs://0:0:0:0:0:0:0:1/b',
    'smb://0::1:445/c',
    'uuid-1',
    'nfs://nas/..',
  ];
  const recorded = (identity: string) =>
    recordedAs(
      identity,
      rows.map((each) => ({ identity: each })),
    );
  assert.equal(recorded('nfs://nas/export/a'), 'nfs://nas//export//a');
  assert.equal(recorded('nfs://::1/b'), 'nfs://0:0:0:0:0:0:0:1/b');
  assert.equal(recorded('smb://::1:445/c'), 'smb://0::1:445/c');
  for (const other of ['smb://::1:4450/c', 'nfs://nas/export', 'nfs://::1/c', 'nfs://nas/..'])
    assert.equal(recorded(other), other);
});

/** An NFS server at `::1` with one export. */
async function exporting(store = quickStore()) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  machine.servers.add('::1');
  for (const source of ['[::1]:/export/a', '[0:0:0:0:0:0:0:1]://export//a'])
    machine.shares.set(source, { fstype: 'nfs', uuid: 'a', label: '', files: new Map() });
  return await shares({ machine, store, network: { nfsExports: async () => '/export/a *\n' } });
}

test('an export that is asked for in several spellings is mounted once', async () => {
  const { storage, machine } = await exporting();
  for (const [server, path] of spellings)
    assert.equal(await storage.shares.mountNfs(parseNfs(server, path), undefined), `${shareRoot}/a`);
  assert.equal(machine.entries().length, 2);
  await storage.close();
});

test('an export that was mounted under a spelling of before is not mounted again under another', async () => {
  const { storage, machine, ports } = await exporting();
  const before = { server: '0:0:0:0:0:0:0:1', path: '//export//a' };
  const path = await storage.shares.mountNfs(before, undefined);
  const target = parseNfs(before.server, before.path);
  assert.equal(await storage.shares.mountNfs(target, undefined), path);
  assert.equal(machine.entries().length, 2);
  const [listed] = await new ShareLists(ports, storage.registry).nfs(target.server);
  assert.equal(listed?.mounted, true);
  const row = storage.registry.byName('a');
  assert.ok(row);
  await storage.shares.umount(row, false);
  assert.equal(await storage.shares.mountNfs(target, undefined), path);
  assert.equal(
    storage.registry.byName('a')?.identity,
    'nfs://::1/export/a',
    'what is forgotten comes back plain',
  );
  await storage.close();
});

test('who waited while a share of another spelling was forgotten does not bring that one back', async () => {
  const { storage, machine } = await exporting();
  await storage.shares.mountNfs({ server: '0:0:0:0:0:0:0:1', path: '//export//a' }, undefined);
  const row = storage.registry.byName('a');
  assert.ok(row);
  const plain = parseNfs('::1', '/export/a');
  const forgotten = storage.shares.umount(row, false);
  const waited = storage.shares.mountNfs(plain, undefined);
  await forgotten;
  const paths = await Promise.all([waited, storage.shares.mountNfs(plain, undefined)]);
  assert.deepEqual(paths, [`${shareRoot}/a`, `${shareRoot}/a`]);
  const identities = storage.registry.all().map(({ identity }) => identity);
  assert.deepEqual(identities, ['nfs://::1/export/a']);
  assert.equal(machine.entries().length, 2);
  await storage.close();
});

test('who waited while the store came back with a share of another spelling has that one', async () => {
  const { storage, machine } = await exporting();
  await storage.shares.mountNfs({ server: '0:0:0:0:0:0:0:1', path: '//export//a' }, undefined);
  const row = storage.registry.byName('a');
  assert.ok(row);
  storage.registry.forget(row.identity);
  const before = storage.shares.umount({ ...row, identity: 'nfs://::1/export/a' }, false);
  const waited = storage.shares.mountNfs(parseNfs('::1', '/export/a'), undefined);
  storage.registry.put(row);
  await before;
  assert.equal(await waited, `${shareRoot}/a`);
  assert.deepEqual(storage.registry.all(), [row]);
  assert.equal(machine.entries().length, 2);
  await storage.close();
});
