import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fault } from '#api/errors.ts';
import { SystemDisks } from '#host/disks.ts';
import { SystemExec } from '#host/exec.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';
import { SystemMounts } from '#host/mounts.ts';
import type { Checkpoint, PhaseContext } from '#jobs/definition.ts';
import { isFault } from '#lib/fault.ts';
import type { ProvisionInput } from '#storage/provision.ts';
import { lost, luks, lvmLabel, mdEnd, mdSuperblock, squashfs, table, zfs } from '../support/disk-contents.ts';
import { quickStore, type RigOptions, rig } from '../support/fake-storage.ts';
import { hasProgram, LoopDevices, LoopDisk, noLoopDevices } from '../support/loop-disk.ts';

const skip = noLoopDevices();
const exec = new SystemExec();
const files = new Files();

function world(options: Partial<RigOptions> = {}) {
  const devices = new LoopDevices();
  const shareRoot = join(realpathSync(mkdtempSync(join(tmpdir(), 'beosd-share-'))), 'share');
  const real = {
    devices,
    mounts: new SystemMounts(exec, files),
    folders: new SystemFolders(),
    disks: new SystemDisks(exec, files),
  };
  const store = options.store ?? quickStore();
  const daemon = rig({
    machine: new FakeMachine(),
    store,
    shareRoot,
    ...options,
    real: { ...real, ...options.real },
  });
  return { devices, shareRoot, store, ...daemon };
}

const wish = (more: Partial<ProvisionInput> = {}): ProvisionInput => ({
  ...{ disk: 'Loop_S1', filesystem: 'ext4', label: 'Vault', confirm: 'S1', wipe: false },
  ...more,
});

function contextOf(
  input: ProvisionInput,
  kept: Checkpoint = {},
): PhaseContext<ProvisionInput> & { kept: Record<string, unknown> } {
  const checkpoint: Record<string, unknown> = { ...kept };
  return {
    ...{ jobId: 'job-1', input, checkpoint, kept: checkpoint, signal: new AbortController().signal },
    remember: (patch) => void Object.assign(checkpoint, patch),
    progress: () => undefined,
  };
}

type Make = (disk: LoopDisk) => unknown;

/** Disks that are not blank: how each is made, what is needed for it, and the word that the refusal must hold. */
const contents: readonly [string, string | undefined, Make, RegExp][] = [
  ['ext2', 'mkfs.ext2', (d) => d.run('mkfs.ext2', '-q', '-F'), /ext2/],
  ['ext4', 'mkfs.ext4', (d) => d.run('mkfs.ext4', '-q', '-F'), /ext4/],
  ['xfs', 'mkfs.xfs', (d) => d.run('mkfs.xfs', '-q', '-f'), /xfs/],
  ['btrfs', 'mkfs.btrfs', (d) => d.run('mkfs.btrfs', '-q', '-f'), /btrfs/],
  ['vfat without a partition table', 'mkfs.vfat', (d) => d.run('mkfs.vfat'), /vfat/],
  ['exfat', 'mkfs.exfat', (d) => d.run('mkfs.exfat'), /exfat/],
  ['ntfs', 'mkntfs', (d) => d.run('mkntfs', '-F', '-f', '-q'), /ntfs/],
  ['f2fs', 'mkfs.f2fs', (d) => d.run('mkfs.f2fs', '-q', '-f'), /f2fs/],
  ['swap', 'mkswap', (d) => d.run('mkswap'), /swap/],
  ['LUKS 1', 'cryptsetup', (d) => luks(d, 'luks1'), /crypto_LUKS/],
  ['LUKS 2', 'cryptsetup', (d) => luks(d, 'luks2'), /crypto_LUKS/],
  ['an LVM member', undefined, (d) => d.write(512, lvmLabel()), /LVM2_member/],
  ['an md member, format 1.2', undefined, (d) => d.write(4096, mdSuperblock()), /linux_raid_member/],
  [
    'an md member, format 1.0, at the end',
    undefined,
    (d) => d.write(mdEnd(d.size), mdSuperblock(mdEnd(d.size))),
    /linux_raid_member|not known/,
  ],
  ['a ZFS member', undefined, (d) => zfs(d), /zfs_member|not known/],
  ['an empty GPT', 'sfdisk', (d) => table(d, 'label: gpt\n'), /gpt/],
  ['a GPT with a partition', 'sfdisk', (d) => table(d, 'label: gpt\n,,L\n'), /gpt/],
  ['an MBR with a partition', 'sfdisk', (d) => table(d, 'label: dos\n,,c\n'), /dos/],
  ['a CD image', undefined, (d) => d.write(32_768, '\u0001CD001\u0001'), /iso9660|not known/],
  ['squashfs', undefined, (d) => d.write(0, squashfs()), /squashfs|not known/],
  ['data without any signature', undefined, (d) => d.write(0, Buffer.alloc(4096, 0xa7)), /not known/],
  ['data at the end alone', undefined, (d) => d.write(-4096, Buffer.alloc(4096, 0x5a)), /not known/],
  ['one byte', undefined, (d) => d.write(700_000, 'x'), /not known/],
  ['a partition at 1 MiB without its table', 'mkfs.ext4', (d) => lost(d), /not known/],
  ['a partition of an SDXC card without its table', undefined, (d) => d.write(2 ** 24, 'EXFAT'), /not known/],
];

for (const [what, program, make, words] of contents) {
  const missing = program !== undefined && !hasProgram(program) ? `${program} is not installed` : undefined;
  test(`a disk with ${what} is refused with what was found, and keeps every byte`, {
    skip: skip ?? missing ?? false,
  }, async () => {
    using disk = new LoopDisk(/xfs|btrfs|f2fs/.test(what) ? 320 : 64);
    make(disk);
    disk.attach();
    const before = disk.hash();
    const { devices, storage } = world();
    devices.plug(disk, 'S1');
    for (const database of [true, false]) {
      devices.database = database;
      const blank = (await storage.provisioner.preconditions(wish())).find((each) => each.name === 'blank');
      assert.equal(blank?.ok, false);
      assert.match(blank?.reason ?? '', words);
      const [check] = storage.provisioner.definition().phases(wish());
      await assert.rejects(
        async () => check?.run(contextOf(wish())),
        (error) => isFault(error) && error.code === 'disk_not_blank',
      );
    }
    const [view] = await storage.disks();
    assert.equal(view?.blank, false);
    assert.equal(disk.hash(), before);
  });
}

async function refusals(
  storage: ReturnType<typeof world>['storage'],
  input: ProvisionInput,
): Promise<string[]> {
  return (await storage.provisioner.preconditions(input))
    .filter((each) => !each.ok)
    .map((each) => `${each.code}: ${each.reason}`);
}

test('a disk at work is refused even with wipe: mounted, swapped to, write-protected, held, or the system’s', {
  skip: skip ?? false,
}, async () => {
  using disk = new LoopDisk(64);
  disk.run('mkfs.ext4', '-q', '-F').attach();
  const point = mkdtempSync(join(tmpdir(), 'beosd-point-'));
  const wipe = wish({ wipe: true });
  const plain = world();
  plain.devices.plug(disk, 'S1');
  execFileSync('mount', [disk.node, point]);
  try {
    assert.match((await refusals(plain.storage, wipe)).join(), /disk_in_use: .*is mounted at/);
  } finally {
    execFileSync('umount', [point]);
  }
  const before = disk.hash();
  const swap = world({ swaps: () => [disk.node] });
  swap.devices.plug(disk, 'S1');
  assert.match((await refusals(swap.storage, wipe)).join(), /disk_in_use: .*swap in use/);
  const held = world();
  held.devices.database = false;
  held.devices.plug(disk, 'S1');
  const fd = openSync(disk.node, constants.O_RDWR | constants.O_EXCL);
  const context = contextOf(wipe);
  const [check, partition] = held.storage.provisioner.definition().phases(wipe);
  await check?.run(context);
  await assert.rejects(async () => partition?.run(context), /EBUSY/);
  closeSync(fd);
  assert.match(
    (await refusals(plain.storage, wish({ confirm: 'S2', wipe: true }))).join(),
    /confirm_mismatch/,
  );
  assert.equal(disk.hash(), before);
});

test('a disk exchanged for another one between plan and act is not touched, nor is the other one', {
  skip: skip ?? false,
}, async () => {
  using first = new LoopDisk(64).attach();
  using second = new LoopDisk(64);
  second.run('mkfs.ext4', '-q', '-F').attach();
  const hashes = [first.hash(), second.hash()];
  const { devices, storage } = world();
  devices.plug(first, 'S1', '1');
  const context = contextOf(wish());
  const [check, partition] = storage.provisioner.definition().phases(wish());
  await check?.run(context);
  devices.unplug(first);
  devices.plug(second, 'S1', '2');
  await assert.rejects(
    async () => partition?.run(context),
    (error) => isFault(error) && error.code === 'disk_changed',
  );
  devices.unplug(second);
  await assert.rejects(
    async () => partition?.run(context),
    (error) => isFault(error) && error.code === 'disk_changed',
  );
  assert.deepEqual([first.hash(), second.hash()], hashes);
});

test('a disk exchanged after it was partitioned is not formatted, although it calls itself the same', {
  skip: skip ?? false,
}, async () => {
  using first = new LoopDisk(64).attach();
  using second = new LoopDisk(64).attach();
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
  using disk = new LoopDisk(64).attach();
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

test('cut short while it partitions or formats, it is gone on with to the end; what is not ours is never formatted', {
  skip: skip ?? false,
}, async () => {
  using disk = new LoopDisk(128).attach();
  const dies = () => Promise.reject(fault('mount_failed', 'the power is gone'));
  const disks = new SystemDisks(exec, files);
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
