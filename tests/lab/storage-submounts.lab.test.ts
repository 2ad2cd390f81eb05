import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { parseMountInfo } from '#host/mounts.ts';
import { labAvailable } from './available.ts';
import { fileServers, server } from './file-servers.ts';
import { bootGuest } from './guest.ts';
import { type BeosNode, shareRoot, startNode } from './node.ts';
import { bringDaemon } from './storage-node.ts';

const reason = await labAvailable('guest');
const place = `${shareRoot}/nfs`;

/** An export with another one in it, which the kernel mounts by itself where somebody goes into it. */
describe('what is mounted within an NFS share', { skip: reason ?? false, timeout: 20 * 60_000 }, () => {
  let node: BeosNode;
  const sh = (script: string) => node.vm.run(['sh', '-c', `set -e; ${script}`], { timeoutMs: 120_000 });
  before(async () => {
    const vm = await bootGuest({ prepare: fileServers });
    await bringDaemon(vm);
    node = await startNode(vm);
    await sh(
      [
        'mkdir -p /srv/nfs/inner /srv/nfs/empty; mount -t tmpfs inner /srv/nfs/inner; echo inner > /srv/nfs/inner/a.txt',
        'echo "/srv/nfs *(rw,no_subtree_check,fsid=1,crossmnt)" > /etc/exports',
        'echo "/srv/nfs/inner *(rw,no_subtree_check,fsid=7)" >> /etc/exports',
        'echo "/srv/nfs2 *(rw,no_subtree_check,fsid=2)" >> /etc/exports',
        'systemctl start nfs-server; exportfs -ra',
      ].join('\n'),
    );
  });
  after(() => node.vm[Symbol.asyncDispose]());

  const mount = async () => {
    const body = { server, sharedPath: '/srv/nfs' };
    const { status, message } = await node.call('POST', '/command/mount-nfs', body);
    assert.equal(status, 200, message);
  };
  const umount = (query = '') => node.call('POST', `/command/umount-nfs${query}`, { path: place });
  const within = async () => {
    const entries = parseMountInfo((await node.vm.run(['cat', '/proc/self/mountinfo'])).stdout);
    return entries.filter(({ target }) => target === place || target.startsWith(`${place}/`));
  };
  const targets = async () => (await within()).map(({ target, source }) => `${target} ${source}`);
  const enter = async () => assert.equal((await sh(`cat ${place}/inner/a.txt`)).stdout, 'inner\n');
  const outer = `${place} ${server}:/srv/nfs`;
  const inner = `${place}/inner ${server}:/srv/nfs/inner`;

  it('what the kernel has mounted there is mounted as ours is, and goes with it', async () => {
    for (const query of ['', '?force=true']) {
      await mount();
      assert.deepEqual(await targets(), [outer]);
      await enter();
      const [ours, made] = await within();
      assert.deepEqual(await targets(), [outer, inner]);
      assert.deepEqual(made?.options, ours?.options);
      const { status, message } = await umount(query);
      assert.equal(status, 200, message);
      assert.deepEqual(await targets(), []);
    }
  });

  it('asked for again it is ours all the same', async () => {
    await mount();
    await enter();
    await mount();
    assert.deepEqual(await targets(), [outer, inner]);
    assert.equal((await umount()).status, 200);
  });

  for (const [what, command, theirs] of [
    ['another file system', `mount -t tmpfs theirs ${place}/inner`, `${place}/inner theirs`],
    [
      'another export',
      `mount -t nfs ${server}:/srv/nfs2 ${place}/empty`,
      `${place}/empty ${server}:/srv/nfs2`,
    ],
    ['the very export, by hand', `mount -t nfs ${server}:/srv/nfs/inner ${place}/inner`, inner],
  ] as const) {
    it(`what somebody else has mounted there stays, and so does ours: ${what}`, async () => {
      await mount();
      if (what === 'another file system') await enter();
      await sh(command);
      const before = await targets();
      assert.ok(before.includes(theirs), before.join('\n'));
      for (const query of ['', '?force=true']) {
        const { status, message } = await umount(query);
        assert.equal(status, 422, message);
        assert.match(message, /unmount that first/);
        assert.deepEqual(await targets(), before);
      }
      await sh(`umount ${theirs.split(' ')[0]}`);
      assert.equal((await umount()).status, 200);
      assert.deepEqual(await targets(), []);
    });
  }
});
