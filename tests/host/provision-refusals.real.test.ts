import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, mkdtempSync, openSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isFault } from '#lib/fault.ts';
import type { ProvisionInput } from '#storage/provision-checks.ts';
import { lost, luks, lvmLabel, mdEnd, mdSuperblock, squashfs, table, zfs } from '../support/disk-contents.ts';
import { hasProgram, LoopDisk, noLoopDevices } from '../support/loop-disk.ts';
import { contextOf, type ProvisionWorld, wish, world } from '../support/provision-world.ts';

const skip = noLoopDevices();

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
    /linux_raid_member/,
  ],
  ['a ZFS member', undefined, (d) => zfs(d), /zfs_member/],
  ['an empty GPT', 'sfdisk', (d) => table(d, 'label: gpt\n'), /gpt/],
  ['a GPT with a partition', 'sfdisk', (d) => table(d, 'label: gpt\n,,L\n'), /gpt/],
  ['an MBR with a partition', 'sfdisk', (d) => table(d, 'label: dos\n,,c\n'), /dos/],
  ['a CD image', undefined, (d) => d.write(32_768, '\u0001CD001\u0001'), /iso9660/],
  ['squashfs', undefined, (d) => d.write(0, squashfs()), /squashfs/],
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
    using disk = new LoopDisk(/xfs|btrfs|f2fs/.test(what) ? 320 : 66);
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

async function refusals(storage: ProvisionWorld['storage'], input: ProvisionInput): Promise<string[]> {
  return (await storage.provisioner.preconditions(input))
    .filter((each) => !each.ok)
    .map((each) => `${each.code}: ${each.reason}`);
}

type AtWork = (disk: LoopDisk, at: ProvisionWorld) => Disposable | undefined;

function mountedAt(disk: LoopDisk, point: string): Disposable {
  mkdirSync(point, { recursive: true });
  // Nothing is written, so that what is compared afterwards is what was there before.
  execFileSync('mount', ['-o', 'ro,noload', disk.node, point]);
  return { [Symbol.dispose]: () => void execFileSync('umount', [point]) };
}

/** Disks that nobody may write to, whatever he confirms: what is done with each, and what the refusal says. */
const atWork: readonly [string, boolean, AtWork, RegExp][] = [
  ['that carries the system', false, (d, { shareRoot }) => mountedAt(d, shareRoot), /it carries the system/],
  [
    'that is mounted',
    false,
    (d) => mountedAt(d, mkdtempSync(join(tmpdir(), 'beosd-point-'))),
    /is mounted at .*beosd-point/,
  ],
  ['that is write-protected', true, () => undefined, /it is write-protected/],
  ['that is swapped to', false, (d, { swaps }) => void swaps.push(d.node), /swap in use/],
  [
    'on which something is built',
    false,
    (d, { devices }) => void devices.holders.set(d, ['dm-7']),
    /held by dm-7/,
  ],
];

for (const [what, readOnly, make, words] of atWork) {
  test(`a disk ${what} is refused, with wipe too, and keeps every byte`, {
    skip: skip ?? false,
  }, async () => {
    using disk = new LoopDisk(66);
    disk.run('mkfs.ext4', '-q', '-F').attach(readOnly);
    const before = disk.hash();
    const at = world();
    at.devices.plug(disk, 'S1');
    const wipe = wish({ wipe: true });
    const [check, ...acts] = at.storage.provisioner.definition().phases(wipe);
    const context = contextOf(wipe);
    if (!readOnly) await check?.run(context);
    using _work = make(disk, at);
    assert.match((await refusals(at.storage, wipe)).join(), new RegExp(`disk_in_use: .*${words.source}`));
    const refused = (error: unknown) =>
      isFault(error) && error.code === 'disk_in_use' && words.test(error.message);
    await assert.rejects(async () => check?.run(contextOf(wipe)), refused);
    // Nor when it has come to that since it was checked.
    if (!readOnly)
      for (const phase of acts.slice(0, 2)) await assert.rejects(async () => phase.run(context), refused);
    assert.equal(disk.hash(), before);
  });
}

test('a disk that a program holds for itself is refused, and so is one whose serial was not confirmed', {
  skip: skip ?? false,
}, async () => {
  using disk = new LoopDisk(66);
  disk.run('mkfs.ext4', '-q', '-F').attach();
  const before = disk.hash();
  const held = world();
  held.devices.database = false;
  held.devices.plug(disk, 'S1');
  const wipe = wish({ wipe: true });
  const context = contextOf(wipe);
  const [check, partition] = held.storage.provisioner.definition().phases(wipe);
  await check?.run(context);
  const fd = openSync(disk.node, constants.O_RDWR | constants.O_EXCL);
  const refused = (error: unknown) =>
    isFault(error) && error.code === 'disk_in_use' && /held open/.test(error.message);
  await assert.rejects(async () => check?.run(contextOf(wipe)), refused);
  await assert.rejects(async () => partition?.run(context), refused);
  closeSync(fd);
  assert.match(
    (await refusals(held.storage, wish({ confirm: 'S2', wipe: true }))).join(),
    /confirm_mismatch/,
  );
  assert.equal(disk.hash(), before);
});

const noBtrfs = hasProgram('mkfs.btrfs') ? undefined : 'mkfs.btrfs is not installed';
test('the second disk of a mounted btrfs, which no table of mounts names, is refused, with wipe too', {
  skip: skip ?? noBtrfs ?? false,
}, async () => {
  using first = new LoopDisk(160).attach();
  using second = new LoopDisk(160).attach();
  execFileSync('mkfs.btrfs', ['-q', '-f', first.node, second.node], { stdio: 'pipe' });
  const point = mkdtempSync(join(tmpdir(), 'beosd-point-'));
  execFileSync('mount', ['-o', `ro,device=${second.node}`, first.node, point]);
  const before = second.hash();
  const { devices, storage } = world();
  devices.plug(second, 'S1');
  const wipe = wish({ wipe: true });
  assert.match((await refusals(storage, wipe)).join(), /disk_in_use: .*held open/);
  assert.equal(second.hash(), before);
  execFileSync('umount', [point]);
  assert.deepEqual(await refusals(storage, wipe), [], 'it may be erased when it is in no use');
});

test('a disk exchanged for another one between plan and act is not touched, nor is the other one', {
  skip: skip ?? false,
}, async () => {
  using first = new LoopDisk(66).attach();
  using second = new LoopDisk(66);
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

test('those above are 25 kinds of disks that are not blank, and more; each could be made', {
  skip: skip ?? false,
}, () => {
  // All of them are in Debian's own base or in scripts/test-packages.txt, which ./test installs.
  const missing = contents.flatMap(([, program]) => program ?? []).filter((program) => !hasProgram(program));
  assert.deepEqual([...new Set(missing)], [], 'programs that are not installed');
  const kinds = contents.map(([what]) => what).join();
  const named = [
    'ext4',
    'xfs',
    'btrfs',
    'vfat',
    'exfat',
    'ntfs',
    'swap',
    'LUKS',
    'LVM',
    'md ',
    'ZFS',
    'GPT',
    'MBR',
  ];
  for (const kind of [...named, 'without a partition table']) assert.ok(kinds.includes(kind), kind);
  const count = contents.length + atWork.length + ['exchanged'].length;
  assert.ok(count >= 25, `only ${count} are made here`);
});
