import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#lib/fault.ts';
import { parseNfs } from '#storage/nfs.ts';
import { pass, shares } from '../../tests/support/fake-shares.ts';
import { shareRoot } from '../../tests/support/fake-storage.ts';

const path = `${shareRoot}/nas`;

/** The root of an NFS server, mounted, and somebody has been in two exports below it, one within the other. */
async function visited() {
  const parts = await shares();
  const { machine, storage } = parts;
  machine.shares.set('nas:/', { fstype: 'nfs', uuid: 'root', label: '', files: new Map() });
  const mount = () => storage.shares.mountNfs(parseNfs('nas', '/'), undefined);
  assert.equal(await mount(), path);
  machine.enterExport(`${path}/data`);
  machine.enterExport(`${path}/data/photos`);
  const row = () => {
    const found = storage.registry.byName('nas');
    assert.ok(found);
    return found;
  };
  const targets = () => machine.entries().map(({ target }) => target);
  assert.deepEqual(targets(), ['/', path, `${path}/data`, `${path}/data/photos`]);
  const umount = (force: boolean) => storage.shares.umount(row(), force);
  return { ...parts, mount, umount, row, targets };
}

test('a share is unmounted with what the kernel has mounted within it, unless that is in use', async () => {
  const { storage, machine, umount, targets } = await visited();
  machine.busy.add(`${path}/data`);
  await assert.rejects(umount(false), /busy/);
  assert.deepEqual(targets(), ['/', path, `${path}/data`], 'the kernel takes what is idle along');
  machine.busy.clear();
  await umount(false);
  assert.deepEqual([targets(), storage.registry.all()], [['/'], []]);
  await storage.close();
});

test('a share is detached with what the kernel has mounted within it when that is forced', async () => {
  const { storage, machine, umount, targets } = await visited();
  machine.busy.add(`${path}/data`);
  await umount(true);
  assert.deepEqual([targets(), storage.registry.all()], [['/'], []]);
  await storage.close();
});

test('a dead share within which the kernel has mounted is made anew', async () => {
  const { storage, machine, clock, row, targets } = await visited();
  const before = row().mountId;
  machine.dead.add(path);
  machine.servers.delete('nas');
  await pass(clock, 20_000);
  machine.servers.add('nas');
  await pass(clock, 10_000);
  assert.notEqual(row().mountId, before);
  assert.deepEqual(targets(), ['/', path]);
  await storage.close();
});

test('a share within which the kernel has mounted is there already for who asks for it again', async () => {
  const { storage, machine, mount, row } = await visited();
  const before = row().mountId;
  assert.equal(await mount(), path);
  assert.deepEqual([row().mountId, machine.entries().length], [before, 4]);
  await storage.close();
});

test('a share within which somebody else has mounted is not unmounted, whatever the kernel has mounted there', async () => {
  for (const [source, inside] of [
    ['tmpfs', 'data/photos/theirs'],
    ['nas:/other', 'mine'],
    ['nas2:/mine', 'mine'],
  ] as const) {
    const { storage, machine, umount, targets } = await visited();
    for (const each of ['nas:/other', 'nas2:/mine'])
      machine.shares.set(each, { fstype: 'nfs', uuid: each, label: '', files: new Map() });
    machine.mountForeign(source, `${path}/${inside}`);
    const before = targets();
    for (const force of [false, true])
      await assert.rejects(umount(force), (error) => isFault(error) && error.code === 'not_our_mount');
    assert.deepEqual(targets(), before, source);
    await storage.close();
  }
});

test('an export that somebody else has mounted where the kernel would have is neither unmounted nor detached', async () => {
  for (const options of [[], ['nosuid', 'nodev', 'hard', 'timeo=600', 'retrans=2']]) {
    const { storage, machine, clock, umount, row, targets } = await visited();
    machine.shares.set('nas:/music', { fstype: 'nfs', uuid: 'music', label: '', files: new Map() });
    machine.mountForeign('nas:/music', `${path}/music`, options);
    const before = [row().mountId, targets()];
    for (const force of [false, true])
      await assert.rejects(umount(force), (error) => isFault(error) && error.code === 'not_our_mount');
    machine.dead.add(path);
    machine.servers.delete('nas');
    await pass(clock, 20_000);
    machine.servers.add('nas');
    await pass(clock, 60_000);
    assert.deepEqual([row().mountId, targets()], before, 'nor when the share is dead and nobody asked');
    await storage.close();
  }
});
