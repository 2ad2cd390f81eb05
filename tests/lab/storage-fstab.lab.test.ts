import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { MountedPath } from '#api/storage.ts';
import { labAvailable } from './available.ts';
import { type BeosNode, shareRoot } from './node.ts';
import { makeStick } from './sticks.ts';
import { bootStorageNode, diskOf, eventually, mountOf, mountTable } from './storage-node.ts';

const reason = await labAvailable('guest');

/** Real udev names the disks, and systemd, which mounts and unmounts by fstab too, is there as on any node. */
describe('sticks that /etc/fstab names', { skip: reason ?? false, timeout: 20 * 60_000 }, () => {
  let folder: string;
  let node: BeosNode;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-fstab-'));
    node = await bootStorageNode();
    for (const serial of ['NOTED', 'OUTER', 'INNER'])
      await makeStick({ image: join(folder, serial), filesystem: 'ext4', label: serial });
  });
  after(async () => {
    await node.vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  /** Looks again until what is asserted holds. */
  const holds = (what: string, look: () => Promise<void>) =>
    eventually(what, 60_000, async () => {
      await look();
      return true;
    });
  const plug = (serial: string) => node.vm.plugUsb({ image: join(folder, serial), serial });
  const write = (...lines: string[]) =>
    node.vm.run([
      'sh',
      '-c',
      'sed -i "/LABEL=\\|by-label/d" /etc/fstab; printf "%s\\n" "$@" >> /etc/fstab',
      'sh',
      ...lines,
    ]);
  const mounted = (serial: string): Promise<MountedPath> =>
    eventually(`${serial} is mounted`, 60_000, async () => {
      const at = mountOf(await node.paths(), serial);
      assert.ok(at !== undefined && !at.invalid, `${serial} is not listed, or dead`);
      return at;
    });
  const gone = (serial: string, place: string) =>
    holds(`the mount of ${serial} is gone`, async () => {
      assert.equal(mountOf(await node.paths(), serial), undefined);
      assert.ok(!(await mountTable(node.vm)).includes(` ${place} `), 'the kernel has it no more');
    });

  it('by a link of udev and `noauto`: it is mounted nowhere, and that is why', async () => {
    await node.vm.run(['mkdir', '-p', '/srv/noted']);
    await write('/dev/disk/by-label/NOTED /srv/noted ext4 ro,noauto 0 0');
    const id = await plug('NOTED');
    await node.vm.run(['udevadm', 'wait', '--timeout=60', '/dev/disk/by-label/NOTED']);
    await holds('the reason', async () => {
      const [volume] = (await diskOf(node, 'NOTED')).volumes;
      assert.deepEqual(
        [volume?.mountedAt, volume?.notMountedBecause],
        [[], '/etc/fstab says that it is not mounted by itself'],
      );
    });
    assert.ok(!(await mountTable(node.vm)).includes(shareRoot));
    await node.vm.unplugUsb(id);
  });

  it('by a link of udev: at its place, as the line says, each time that it is plugged in', async () => {
    await write('/dev/disk/by-label/NOTED /srv/noted ext4 ro,nofail 0 0');
    for (const _time of [1, 2, 3]) {
      const id = await plug('NOTED');
      const at = await mounted('NOTED');
      assert.deepEqual([at.path, at.type, at.read_only], ['/srv/noted', 'usb', true]);
      assert.ok(!(await mountTable(node.vm)).includes(shareRoot), 'and nowhere else');
      await node.vm.unplugUsb(id);
      await gone('NOTED', '/srv/noted');
    }
  });

  it('one within the other: the outer one first, whichever is plugged in first', async () => {
    await node.vm.run(['mkdir', '-p', '/srv/outer']);
    await write(
      'LABEL=INNER /srv/outer/inner ext4 nofail,noatime 0 0',
      'LABEL=OUTER /srv/outer ext4 nofail 0 0',
    );
    const inner = await plug('INNER');
    await holds('the reason', async () => {
      const [volume] = (await diskOf(node, 'INNER')).volumes;
      assert.match(volume?.notMountedBecause ?? '', /lies in \/srv\/outer, which \/etc\/fstab mounts first/);
    });
    const outer = await plug('OUTER');
    assert.equal((await mounted('OUTER')).path, '/srv/outer');
    await node.vm.run(['mkdir', '-p', '/srv/outer/inner']);
    // Its folder was missing when it was tried; plugged in anew, it is tried at once.
    await node.vm.unplugUsb(inner);
    await node.vm.run(['sh', '-c', 'while [ -e /dev/disk/by-label/INNER ]; do sleep 0.1; done']);
    const again = await plug('INNER');
    assert.equal((await mounted('INNER')).path, '/srv/outer/inner');
    for (const id of [again, outer]) await node.vm.unplugUsb(id);
    await holds('all is gone', async () => assert.doesNotMatch(await mountTable(node.vm), /\/srv\/outer/));
  });
});
