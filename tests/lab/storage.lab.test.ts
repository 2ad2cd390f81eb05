import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { MountedPath, UsageStat } from '#api/storage.ts';
import type { SseEvent, SseReader } from '../support/sse.ts';
import { labAvailable } from './available.ts';
import { deferred, within } from './deadline.ts';
import { saysWhatDfSays } from './df.ts';
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
      const { used, inodesTotal } = await saysWhatDfSays(node, path);
      t.diagnostic(`the numbers are those of df: ${used} bytes used, ${inodesTotal} inodes`);
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

  /** Files that were there before, as they are on the stick and not in the guest's memory: name and hash of each. */
  const hashes = async (path: string) => {
    const script = 'sync; echo 3 > /proc/sys/vm/drop_caches; cd "$1" && sha256sum -- *';
    return (await node.vm.run(['sh', '-c', script, 'sh', path])).stdout;
  };
  /** Writes to a file without an end, each block to the stick itself; its words when it ended with an error. */
  const writeForEver = (file: string) =>
    node.vm.run(['env', 'LC_ALL=C', 'dd', 'if=/dev/zero', `of=${file}`, 'bs=64k', 'oflag=dsync'], {
      timeoutMs: 120_000,
      okCodes: [1],
    });

  it('a stick pulled while it is written: the writer is told, its mount is gone, the other one goes on', async (t) => {
    const [one, two] = [`${shareRoot}/ONE`, `${shareRoot}/TWO`];
    const ids: string[] = [];
    for (const label of ['ONE', 'TWO']) {
      const image = join(folder, label);
      await makeStick({ image, filesystem: 'vfat', label, sizeMiB: label === 'ONE' ? 512 : 64 });
      ids.push(await node.vm.plugUsb({ image, serial: `P-${label}` }));
    }
    await node.until('both are mounted', 60_000, (paths) => paths.length === 2);
    const fill = 'cd "$1" && for n in 1 2 3; do head -c 1000000 /dev/urandom > "file$n"; done';
    await node.vm.run(['sh', '-c', fill, 'sh', two]);
    const before = await hashes(two);
    assert.equal(before.trim().split('\n').length, 3);
    const writing = writeForEver(`${one}/big`);
    writing.catch(() => undefined); // awaited below
    const size = 'until [ -s "$1" ]; do sleep 0.1; done; stat --format=%s "$1"';
    const { stdout: written } = await node.vm.run(['sh', '-c', size, 'sh', `${one}/big`]);
    await node.vm.unplugUsb(ids[0] ?? '');
    const { stderr } = await writing;
    // Not that it was full: what it wrote next found no stick.
    assert.match(stderr, /^dd: .*(Input\/output error|No such device|Read-only file system)$/m);
    t.diagnostic(`pulled when ${written.trim()} bytes were written: ${stderr.split('\n')[0]}`);
    const unplugged = ({ event, data }: SseEvent) => event === 'mount' && data['action'] === 'unplugged';
    await events.until((each) => unplugged(each) && each.data['path'] === one, 30_000);
    await node.until('the first is gone', 30_000, (paths) => paths.length === 1 && paths[0]?.path === two);
    const told = events.events.filter(unplugged).map(({ data }) => data['path']);
    assert.deepEqual(
      told.filter((path) => path === one || path === two),
      [one],
    );
    assert.equal(await hashes(two), before, 'what was on the other one is as it was');
    await node.vm.run(['sh', '-c', 'echo fine > "$1/late"', 'sh', two]);
    assert.equal((await node.vm.run(['cat', `${two}/late`])).stdout, 'fine\n');
    await untilRemoved(node.vm, one);
    await node.vm.unplugUsb(ids[1] ?? '');
    await node.until('both are gone', 60_000, (paths) => paths.length === 0);
  });
});
