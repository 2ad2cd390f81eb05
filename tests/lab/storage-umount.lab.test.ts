import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { labAvailable } from './available.ts';
import { type BeosNode, shareRoot, untilRemoved } from './node.ts';
import { makeStick } from './sticks.ts';
import { bootStorageNode, mountOf, mountTable } from './storage-node.ts';

const reason = await labAvailable('guest');
const foreign = '/mnt/foreign';
const ours = `${shareRoot}/OURS`;

/** Every door through which somebody can ask for an unmount; the later ones take paths below the share root. */
const absolute = ['usb', 'samba', 'nfs'].flatMap((kind) => [
  `/command/umount-${kind}`,
  `/command/umount-${kind}?force=true`,
]);
const relative = ['usb', 'samba', 'nfs'].map((kind) => `/command/umount-${kind}-incluster`);

describe('an unmount that is not ours to make', { skip: reason ?? false, timeout: 30 * 60_000 }, () => {
  let folder: string;
  let node: BeosNode;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-umount-'));
    node = await bootStorageNode();
    await makeStick({ image: join(folder, 'OURS'), filesystem: 'ext4', label: 'OURS' });
    await node.vm.plugUsb({ image: join(folder, 'OURS'), serial: 'U-OURS' });
    await node.until('it is mounted', 60_000, (paths) => mountOf(paths, 'U-OURS')?.path === ours);
    const script = [
      `set -e; mkdir -p ${foreign} ${shareRoot}/theirs ${ours}/inner`,
      `mount -t tmpfs theirs ${foreign}`,
      `mount -t tmpfs theirs ${shareRoot}/theirs`,
      `ln -s ${foreign} ${shareRoot}/link`,
      `ln -s ${ours} ${shareRoot}/alias`,
    ];
    await node.vm.run(['sh', '-c', script.join('\n')]);
  });
  after(async () => {
    await node.vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const refused = async (route: string, path: string) => {
    const { status, message } = await node.call('POST', route, { path });
    assert.ok([400, 404, 422].includes(status), `${route} ${path}: ${status} ${message}`);
  };

  it('/, foreign mounts, other places, ../ and links: refused at every door, and nothing has moved', async () => {
    const before = await mountTable(node.vm);
    const paths = [
      ...['/', '//', '/.', '/boot', '/proc', '/beos', shareRoot, `${shareRoot}/`, `${shareRoot}/.`],
      ...[foreign, `${shareRoot}/theirs`, `${shareRoot}/theirs/`, '/etc/passwd', '/beos/shareX/OURS'],
      ...[`${shareRoot}/../../mnt/foreign`, `${ours}/../theirs`, `${ours}/..`, `${shareRoot}/..`],
      ...[`${shareRoot}/./OURS`, `${shareRoot}//OURS/.`, `${ours}/inner`, `${shareRoot}/nothing`],
      ...[`${shareRoot}/link`, `${shareRoot}/alias`, `${shareRoot}/link/`, `${shareRoot}/.beosd`],
    ];
    for (const route of absolute) for (const path of paths) await refused(route, path);
    const names = ['.', '..', '../theirs', 'theirs', 'link', 'alias', 'OURS/..', 'OURS/inner', '/', foreign];
    for (const route of relative) for (const name of names) await refused(route, name);
    for (const kind of ['samba', 'nfs']) await refused(`/command/umount-${kind}`, ours);
    assert.equal(await mountTable(node.vm), before);
  });

  for (const [what, where] of [
    ['over ours', ours],
    ['within ours', `${ours}/inner`],
  ] as const) {
    it(`another mount ${what}: refused, also by force, until it is gone`, async () => {
      await node.vm.run(['mount', '-t', 'tmpfs', 'stacked', where]);
      const before = await mountTable(node.vm);
      for (const route of ['/command/umount-usb', '/command/umount-usb?force=true']) {
        const { status, message } = await node.call('POST', route, { path: ours });
        assert.equal(status, 422, message);
        assert.match(message, /stacked/);
      }
      assert.equal(await mountTable(node.vm), before);
      await node.vm.run(['umount', where]);
    });
  }

  it('ours, bound to a second place: exactly our mount goes, and it is not called safe', async () => {
    await node.vm.run(['sh', '-c', `mkdir -p /mnt/copy; mount --bind ${ours} /mnt/copy`]);
    const before = (await mountTable(node.vm)).split('\n');
    const answer = await node.call('POST', '/command/umount-usb', { path: ours });
    assert.equal(answer.status, 200, answer.message);
    const { safe, holders } = answer.data as { safe: boolean; holders: readonly { path: string }[] };
    assert.equal(safe, false);
    // Once for this machine, and once for each service that has a view of the mounts of its own.
    assert.deepEqual([...new Set(holders.map(({ path }) => path))], ['/mnt/copy']);
    const after = (await mountTable(node.vm)).split('\n');
    const gone = before.filter((line) => !after.includes(line));
    assert.equal(gone.length, 1, gone.join('\n'));
    assert.equal(gone[0]?.split(' ')[4], ours);
    assert.equal(after.length, before.length - 1);
    await untilRemoved(node.vm, ours);
  });
});
