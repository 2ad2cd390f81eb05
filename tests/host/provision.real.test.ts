import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fault } from '#api/errors.ts';
import { type Disks, SystemDisks } from '#host/disks.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { isFault } from '#lib/fault.ts';
import { quickStore } from '../support/fake-storage.ts';
import { hasProgram, LoopDisk, noLoopDevices } from '../support/loop-disk.ts';
import { contextOf, disksLock, wish, world } from '../support/provision-world.ts';

const skip = noLoopDevices();
const exec = new SystemExec();
const files = new Files();

test('a disk exchanged after it was partitioned is not formatted, although it calls itself the same', {
  skip: skip ?? false,
}, async () => {
  using first = new LoopDisk(66).attach();
  using second = new LoopDisk(66).attach();
  execFileSync('sfdisk', ['--quiet', second.node], { input: 'label: gpt\n,,L\n', stdio: 'pipe' });
  execFileSync('partx', ['--update', second.node]);
  execFileSync('mkfs.ext4', ['-q', '-F', `${second.node}p1`]);
  const before = second.hash();
  const { devices, storage } = world();
  for (const sequence of ['1', '2']) {
    devices.plug(first, 'S1', '1');
    const context = contextOf(wish({ wipe: true }));
    const [check, partition, format] = storage.provisioner.definition().phases(context.input);
    await check?.run(context);
    await partition?.run(context);
    devices.unplug(first);
    devices.plug(second, 'S1', sequence);
    await assert.rejects(
      async () => format?.run(context),
      (error) => isFault(error) && error.code === 'disk_changed',
    );
    devices.unplug(second);
    assert.equal(second.hash(), before);
  }
});

test('a file system that somebody made in our half-made table while the daemon was away is not wiped', {
  skip: skip ?? false,
}, async () => {
  using disk = new LoopDisk(66).attach();
  const { devices, storage } = world();
  devices.plug(disk, 'S1', '1');
  const context = contextOf(wish({ wipe: true }));
  const [check, partition, format] = storage.provisioner.definition().phases(context.input);
  await check?.run(context);
  await partition?.run(context);
  execFileSync('mkfs.ext4', ['-q', '-F', `${disk.node}p1`]);
  const before = disk.hash();
  const changed = (error: unknown) => isFault(error) && error.code === 'disk_changed';
  await assert.rejects(async () => partition?.resume?.(context), changed);
  assert.equal(disk.hash(), before);
  // Two signatures at once: blkid names neither.
  disk.write(2 ** 20 + 4086, 'SWAPSPACE2');
  const both = disk.hash();
  await assert.rejects(async () => format?.resume?.(context), changed);
  assert.equal(disk.hash(), both);
});

for (const filesystem of ['ext4', 'xfs', 'btrfs'] as const) {
  const missing = hasProgram(`mkfs.${filesystem}`) ? undefined : `mkfs.${filesystem} is not installed`;
  test(`a blank disk becomes a mounted, labelled ${filesystem} that comes back after a restart`, {
    skip: skip ?? missing ?? false,
  }, async () => {
    using disk = new LoopDisk(400).attach();
    const { devices, storage, store, shareRoot } = world();
    devices.plug(disk, 'S1');
    await storage.start();
    const [view] = await storage.disks();
    assert.equal(view?.blank, true);
    const input = wish({ filesystem });
    const context = contextOf(input);
    for (const phase of storage.provisioner.definition().phases(input)) await phase.run(context);
    const path = join(shareRoot, 'Vault');
    writeFileSync(join(path, 'letter'), 'kept');
    execFileSync('sync', ['--file-system', path]); // what is written out later changes how much is used
    const [row] = await storage.mounted(() => true);
    const df = execFileSync('df', ['--output=fstype,size,used,avail', '-B1', path], { encoding: 'utf8' })
      .split('\n')[1]
      ?.trim()
      .split(/\s+/);
    assert.deepEqual([row?.fstype, row?.total, row?.used, row?.free].map(String), df);
    assert.equal(row?.path, path);
    const row1 = storage.registry.all()[0];
    assert.ok(row1);
    await storage.ejector.eject(row1, false);
    await storage.close();
    const again = world({ store, shareRoot, bootId: 'boot-2' });
    again.devices.plug(disk, 'S1', '9');
    await again.storage.start();
    assert.equal(readFileSync(join(path, 'letter'), 'utf8'), 'kept');
    for (const mounted of again.storage.registry.all()) await again.storage.ejector.eject(mounted, false);
    await again.storage.close();
  });
}

for (const [filesystem, mib] of [
  ['ext4', 66],
  ['exfat', 66],
  ['btrfs', 258],
  ['xfs', 306],
] as const) {
  const missing = hasProgram(`mkfs.${filesystem}`) ? undefined : `mkfs.${filesystem} is not installed`;
  test(`the smallest disk that is taken for ${filesystem} is large enough for its tools`, {
    skip: skip ?? missing ?? false,
  }, async () => {
    using disk = new LoopDisk(mib).attach();
    const { devices, storage } = world();
    devices.plug(disk, 'S1');
    const input = wish({ filesystem });
    const context = contextOf(input);
    for (const phase of storage.provisioner.definition().phases(input).slice(0, 3)) await phase.run(context);
    const probed = await new SystemDisks(exec, files, disksLock()).probe(`${disk.node}p1`);
    assert.equal(probed['ID_FS_TYPE'], filesystem);
  });
}

const noExfat = hasProgram('mkfs.exfat') ? undefined : 'mkfs.exfat is not installed';
test('a blank disk becomes a sound, labelled exfat; where the kernel has exfat, a mounted one', {
  skip: skip ?? noExfat ?? false,
}, async (t) => {
  using disk = new LoopDisk(128).attach();
  const { devices, storage, shareRoot } = world();
  devices.plug(disk, 'S1');
  await storage.start();
  const input = wish({ filesystem: 'exfat' });
  const context = contextOf(input);
  const phases = storage.provisioner.definition().phases(input);
  for (const phase of phases.slice(0, 3)) await phase.run(context);
  const part = `${disk.node}p1`;
  const probed = await new SystemDisks(exec, files, disksLock()).probe(part);
  assert.deepEqual([probed['ID_FS_TYPE'], probed['ID_FS_LABEL']], ['exfat', 'Vault']);
  execFileSync('fsck.exfat', ['-n', part], { stdio: 'pipe' });
  const mount = async () => phases[3]?.run(context);
  if (knows('exfat')) {
    await mount();
    writeFileSync(join(shareRoot, 'Vault', 'letter'), 'kept');
    const [row] = storage.registry.all();
    assert.ok(row);
    await storage.ejector.eject(row, false);
    execFileSync('fsck.exfat', ['-n', part], { stdio: 'pipe' });
  } else {
    t.diagnostic(
      'this kernel has no exfat: what is shown is the file system, its label and its check, not the mount',
    );
    await assert.rejects(mount, (error) => isFault(error) && error.code === 'mount_failed');
  }
  await storage.close();
});

/** The kernel mounts this type, or would, given a device. */
function knows(type: string): boolean {
  spawnSync('modprobe', ['--quiet', type], { stdio: 'ignore' });
  return new RegExp(`\\b${type}$`, 'm').test(readFileSync('/proc/filesystems', 'utf8'));
}

test('cut short while it partitions or formats, it is gone on with to the end; what is not ours is never formatted', {
  skip: skip ?? false,
}, async () => {
  using disk = new LoopDisk(128).attach();
  const dies = () => Promise.reject(fault('mount_failed', 'the power is gone'));
  const disks = new SystemDisks(exec, files, disksLock());
  const half = (name: 'partition' | 'format') =>
    new Proxy(disks, { get: (at, key) => (key === name ? dies : bound(at, key)) });
  const store = quickStore();
  const first = world({ store, real: { disks: half('partition') } });
  first.devices.plug(disk, 'S1');
  const context = contextOf(wish());
  const [check, partition] = first.storage.provisioner.definition().phases(wish());
  await check?.run(context);
  await assert.rejects(async () => partition?.run(context), /the power is gone/);
  const second = world({ store, real: { disks: half('format') } });
  second.devices.plug(disk, 'S1', '2');
  const [, partition2, format2] = second.storage.provisioner.definition().phases(wish());
  const resumed = contextOf(wish(), context.kept);
  await partition2?.resume?.(resumed);
  await assert.rejects(async () => format2?.run(resumed), /the power is gone/);
  const third = world({ store });
  third.devices.plug(disk, 'S1', '3');
  const [, , format3, mount3] = third.storage.provisioner.definition().phases(wish());
  await format3?.resume?.(contextOf(wish(), context.kept));
  await mount3?.run(contextOf(wish(), context.kept));
  const [row] = third.storage.registry.all();
  assert.equal(row?.phase, 'mounted');
  if (row !== undefined) await third.storage.ejector.eject(row, false);
  await third.storage.close();
  // Meanwhile somebody has put a file system of his own there.
  execFileSync('mkfs.ext4', ['-q', '-F', `${disk.node}p1`]);
  const before = disk.hash();
  const fourth = world();
  fourth.devices.plug(disk, 'S1', '4');
  const [, , format4] = fourth.storage.provisioner.definition().phases(wish());
  await assert.rejects(
    async () => format4?.resume?.(contextOf(wish(), context.kept)),
    (error) => isFault(error) && error.code === 'disk_changed',
  );
  assert.equal(disk.hash(), before);
});

function bound(target: SystemDisks, key: string | symbol): unknown {
  const value: unknown = Reflect.get(target, key);
  return typeof value === 'function' ? value.bind(target) : value;
}

test('while a disk is erased none of its partitions can be mounted, nor afterwards', {
  skip: skip ?? false,
}, async () => {
  using disk = new LoopDisk(128).attach();
  execFileSync('sfdisk', ['--quiet', disk.node], {
    input: `label: gpt\n${disk.node}p1 : size=40M\n${disk.node}p3 : size=40M\n`,
    stdio: 'pipe',
  });
  execFileSync('partx', ['--add', disk.node]);
  const part = `${disk.node}p3`;
  execFileSync('mkfs.ext4', ['-q', '-F', part]);
  const mounting = () => spawnSync('mount', ['-o', 'ro,noload', part, '/mnt'], { encoding: 'utf8' }).stderr;
  const real = new SystemDisks(exec, files, disksLock());
  const seen: string[] = [];
  const watched: Partial<Disks> = {
    forgetPartitions: (node) => {
      seen.push(mounting());
      return real.forgetPartitions(node);
    },
    wipe: async (node, size) => {
      await real.wipe(node, size);
      await assert.rejects(real.claim(node), /EBUSY/);
    },
    partition: async (node, layout) => {
      seen.push(mounting());
      return real.partition(node, layout);
    },
  };
  const disks = new Proxy(real, { get: (at, key) => Reflect.get(watched, key) ?? bound(at, key) });
  const { devices, storage } = world({ real: { disks } });
  devices.plug(disk, 'S1');
  const context = contextOf(wish({ wipe: true }));
  const [check, partition] = storage.provisioner.definition().phases(context.input);
  await check?.run(context);
  const before = disk.hash();
  const fd = openSync(part, 'r');
  const isInUse = (error: unknown) => isFault(error) && error.code === 'disk_in_use';
  await assert.rejects(async () => partition?.run(context), isInUse);
  closeSync(fd);
  assert.equal(disk.hash(), before);
  assert.ok(files.exists(`${disk.node}p1`) && files.exists(part), 'its partitions are there again');
  seen.length = 0;
  await partition?.run(context);
  assert.match(seen[0] ?? '', /busy/);
  assert.match(seen[1] ?? '', /does not exist/);
  const parts = devices.list().filter(({ kind }) => kind === 'partition');
  assert.deepEqual(
    parts.map(({ node }) => node),
    [`${disk.node}p1`],
  );
});
