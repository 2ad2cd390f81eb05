import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { MountedPath, UsageStat } from '#api/storage.ts';
import type { SseReader } from '../support/sse.ts';
import { labAvailable } from './available.ts';
import { deferred, within } from './deadline.ts';
import { type BeosNode, shareRoot, untilRemoved } from './node.ts';
import { makeStick, type StickFilesystem } from './sticks.ts';
import { bootStorageNode, eventually } from './storage-node.ts';

const reason = await labAvailable('guest');

const median = (times: readonly number[]) =>
  times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0;

describe('disks on a real kernel, through the API', { skip: reason ?? false, timeout: 30 * 60_000 }, () => {
  let folder: string;
  let node: BeosNode;
  let events: SseReader;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-storage-'));
    node = await bootStorageNode();
    events = node.events();
    const listens = deferred<void>();
    node.vm.follow(['udevadm', 'monitor', '--udev', '--subsystem-match=block'], (line) => {
      if (/^UDEV - /.test(line)) listens.resolve();
      if (/^UDEV .* add /.test(line)) lastAdded = performance.now();
    });
    await within(60_000, "a listener for udev's events", listens.promise);
  });
  after(async () => {
    events.cut();
    await node.vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const sticks: readonly [StickFilesystem, 'dos' | 'gpt' | 'none', number][] = [
    ['vfat', 'dos', 64],
    ['ext4', 'gpt', 64],
    ['exfat', 'dos', 64],
    ['ntfs', 'dos', 64],
    ['btrfs', 'gpt', 128],
    ['vfat', 'none', 64],
  ];
  const taken: number[] = [];
  /** When udev last said that a block device had come. */
  let lastAdded = 0;
  for (const [filesystem, table, sizeMiB] of sticks) {
    const what = table === 'none' ? `${filesystem} without partitions` : filesystem;
    const label = `${filesystem}-${table}`.toUpperCase();
    it(`${what}: plugged it is mounted, ejected it is gone, plugged anew it is back`, async (t) => {
      const image = join(folder, label);
      await makeStick({ image, filesystem, label, table, sizeMiB });
      const path = `${shareRoot}/${label}`;
      const there = (paths: readonly MountedPath[]) =>
        paths.some((each) => each.path === path && each.type === 'usb');
      const plugged = performance.now();
      let id = await node.vm.plugUsb({ image, serial: `S-${label}` });
      // Told by an event, as a phone is: asking all the time would take the emulated processor from what is measured.
      await events.until(({ event, data }) => event === 'mount' && data['path'] === path, 60_000);
      await node.until(`${what} is listed`, 60_000, there);
      const listed = performance.now();
      // The listener's words come another way than the daemon's, and may be the later ones.
      const isOfThis = async () => (lastAdded > plugged ? true : undefined);
      await eventually("udev's event", 60_000, isOfThis);
      const took = listed - lastAdded;
      taken.push(took);
      t.diagnostic(`in mounted-usb ${Math.round(took)} ms after udev's event`);
      assert.ok(took <= 5000, `${Math.round(took)} ms after udev's event`);
      const { data } = await node.call('GET', '/system/mounted-usb');
      assert.ok((data as readonly UsageStat[]).some((each) => each.path === path));
      await node.vm.run(['sh', '-c', 'echo kept > "$1/file"', 'sh', path]);
      const ejected = await node.call('POST', '/command/umount-usb', { path });
      assert.equal(ejected.status, 200, ejected.message);
      assert.deepEqual(await node.paths(), []);
      await node.vm.unplugUsb(id).catch(() => undefined);
      id = await node.vm.plugUsb({ image, serial: `S-${label}` });
      await node.until(`${what} is back`, 60_000, there);
      assert.equal((await node.vm.run(['cat', `${path}/file`])).stdout, 'kept\n');
      await node.vm.unplugUsb(id);
      await node.until(`${what} is detached`, 60_000, (paths) => paths.length === 0);
      await untilRemoved(node.vm, path);
    });
  }

  it("each came within 5 s of udev's event", (t) => {
    t.diagnostic(`median ${Math.round(median(taken))} ms over ${taken.length} sticks, under emulation`);
    assert.equal(taken.length, sticks.length);
    assert.ok(Math.max(...taken) <= 5000);
  });

  it('a stick pulled while it is written: its mount is gone, the other one goes on', async () => {
    const images = ['ONE', 'TWO'].map((label) => ({ image: join(folder, label), label }));
    const ids: string[] = [];
    for (const { image, label } of images) {
      await makeStick({ image, filesystem: 'vfat', label });
      ids.push(await node.vm.plugUsb({ image, serial: `P-${label}` }));
    }
    await node.until('both are mounted', 60_000, (paths) => paths.length === 2);
    const writer = node.vm.follow(
      ['dd', 'if=/dev/zero', `of=${shareRoot}/ONE/big`, 'bs=64k', 'count=800'],
      () => undefined,
    );
    await node.vm.unplugUsb(ids[0] ?? '');
    await node.until(
      'the first is gone',
      30_000,
      (paths) => paths.length === 1 && paths[0]?.path === `${shareRoot}/TWO`,
    );
    await node.vm.run(['sh', '-c', 'echo fine > "$1/file"', 'sh', `${shareRoot}/TWO`]);
    assert.equal((await node.vm.run(['cat', `${shareRoot}/TWO/file`])).stdout, 'fine\n');
    writer.stop();
    await untilRemoved(node.vm, `${shareRoot}/ONE`);
    await node.vm.unplugUsb(ids[1] ?? '');
    await node.until('both are gone', 60_000, (paths) => paths.length === 0);
  });
});
