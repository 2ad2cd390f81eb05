import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type MountEntry, parseMountInfo } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import { plan, type Seen } from '#storage/automount.ts';
import { builtVolumes, localDisks, transportOf } from '#storage/devices.ts';
import type { MountRow } from '#storage/registry.ts';

const paths = ['/', '/boot', '/olares/share'];
const usb = '/sys/devices/pci0000:00/usb1/1-1/1-1:1.0/host0/block';
const ata = '/sys/devices/pci0000:00/ata1/host1/block';
const virtual = '/sys/devices/virtual/block';

let numbers = 0;
/** A device: `sda1` lies on `sda`, others have no partition number. */
function device(name: string, place: string, more: Partial<BlockDevice> = {}): BlockDevice {
  const parent = /^(sd[a-z]|md\d|nvme\d+n\d+(?=p))p?\d+$/.exec(name)?.[1];
  return {
    ...{
      name,
      node: `/dev/${name}`,
      dev: `8:${numbers++}`,
      size: 1 << 30,
      readOnly: false,
      removable: false,
    },
    ...{ sysPath: `${place}/${parent === undefined ? '' : `${parent}/`}${name}`, holders: [], slaves: [] },
    ...{ kind: parent === undefined ? 'disk' : 'partition', parent, sequence: String(numbers) },
    properties: {},
    links: [],
    ...more,
  };
}

function entry(source: string, target: string, fstype: string, dev: string, superOptions = 'rw'): MountEntry {
  const [made] = parseMountInfo(`90 27 ${dev} / ${target} rw - ${fstype} ${source} ${superOptions}\n`);
  assert.ok(made);
  return made;
}

const systemOf = (devices: readonly BlockDevice[], entries: readonly MountEntry[]) =>
  localDisks(devices, entries, paths)
    .filter((disk) => disk.system)
    .map((disk) => disk.device.name);

test('the system is found through LVM on LUKS, through md, and through partitions of md', () => {
  const lvm = [
    ...[device('sda', ata), device('sda3', ata), device('sdb', ata), device('sdb1', ata), device('sdc', usb)],
    device('dm-0', virtual, { slaves: ['sda3'] }),
    device('dm-1', virtual, { dev: '253:1', slaves: ['dm-0', 'sdb1'], properties: { DM_NAME: 'vg-root' } }),
  ];
  assert.deepEqual(systemOf(lvm, [entry('/dev/mapper/vg-root', '/', 'ext4', '253:1')]), ['sda', 'sdb']);
  const md = [
    ...[device('sda', ata), device('sda1', ata), device('sdb', ata), device('sdb1', ata), device('sdc', usb)],
    device('md0', virtual, { slaves: ['sda1', 'sdb1'] }),
    device('md0p1', virtual, { dev: '259:7', kind: 'partition', parent: 'md0' }),
  ];
  assert.deepEqual(systemOf(md, [entry('/dev/md0p1', '/', 'ext4', '259:7')]), ['sda', 'sdb']);
});

test('a share root, a boot partition, or a root on a stick makes its disk one of the system', () => {
  const disks = [device('sda', usb), device('sda1', usb, { dev: '8:101' }), device('sdb', ata)];
  const more = [
    device('sdb1', ata, { dev: '8:102' }),
    device('sdc', ata),
    device('sdd', ata, { dev: '8:103' }),
  ];
  const entries = [
    entry('/dev/root', '/', 'ext4', '8:101'),
    entry('/dev/sdb1', '/boot', 'vfat', '8:102'),
    entry('/dev/sdd', '/olares', 'xfs', '8:103'),
  ];
  assert.deepEqual(systemOf([...disks, ...more], entries), ['sda', 'sdb', 'sdd']);
});

test('the disk of a Raspberry Pi whose root is an overlay of the initrd is told by what it boots from', () => {
  const disks = [
    device('sda', usb),
    device('sda1', usb, { dev: '8:121' }),
    device('sda2', usb),
    device('sdb', usb),
  ];
  const root = entry('overlay', '/', 'overlay', '0:32', 'rw,lowerdir=/lower,upperdir=/upper/data');
  const firmware = entry('/dev/sda1', '/boot/firmware', 'vfat', '8:121');
  assert.deepEqual(systemOf(disks, [root, firmware]), ['sda']);
  assert.deepEqual(systemOf(disks, [root, entry('/dev/sda1', '/efi', 'vfat', '8:121')]), ['sda']);
  assert.deepEqual(systemOf(disks, [root, entry('/dev/sda1', '/bootleg', 'vfat', '8:121')]), []);
});

test('below an overlay it is the disks of its layers', () => {
  const disks = [device('sda', usb), device('sda2', usb, { dev: '8:111' }), device('sdb', usb)];
  const entries = [
    entry('/dev/sda2', '/media/root-ro', 'ext4', '8:111', 'ro'),
    entry('tmpfs', '/media/root-rw', 'tmpfs', '0:31'),
    entry('overlay', '/', 'overlay', '0:32', 'rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay'),
  ];
  assert.deepEqual(systemOf(disks, entries), ['sda']);
});

const btrfs = (uuid: string, sub: string) => ({
  properties: { ID_FS_TYPE: 'btrfs', ID_FS_USAGE: 'filesystem', ID_FS_UUID: uuid, ID_FS_UUID_SUB: sub },
});

test('all disks of a btrfs that carries the system are its disks; a copy of one is not', () => {
  const disks = [device('sda', ata), device('sda2', ata, btrfs('root', 'one')), device('sdb', usb)];
  const more = [device('sdb1', usb, btrfs('root', 'two')), device('sdc', usb, btrfs('root', 'one'))];
  const entries = [entry('/dev/sda2', '/', 'btrfs', '0:29')];
  assert.deepEqual(systemOf([...disks, ...more], entries), ['sda', 'sdb']);
});

function seenWith(devices: readonly BlockDevice[], more: Partial<Seen> = {}): Seen {
  const entries = more.entries ?? [entry('/dev/vda1', '/', 'ext4', '254:1')];
  const disks = localDisks(devices, entries, paths);
  return {
    ...{ devices, disks, built: builtVolumes(devices, disks), entries, rows: [], policies: new Map() },
    ...{
      fstab: [],
      served: new Map(),
      byFstab: [],
      bootId: 'b',
      names: [],
      systemPaths: paths,
      shareRoot: '/olares/share',
      ...more,
    },
  };
}

const mountsIn = (seen: Seen) =>
  plan(seen).flatMap((step) =>
    step.do === 'mount' ? [{ source: step.row.source, readOnly: step.readOnly }] : [],
  );

test('a btrfs on several sticks is mounted once, by the one it was mounted by first', () => {
  const serial = (n: number) => ({ ID_SERIAL: `S${n}`, ID_SERIAL_SHORT: `S${n}` });
  const member = (name: string, n: number, extra: Record<string, string> = {}) =>
    device(name, usb, { properties: { ...btrfs('pool', `sub${n}`).properties, ...serial(n), ...extra } });
  const [one, two] = [member('sda', 1), member('sdb', 2)];
  assert.deepEqual(mountsIn(seenWith([one, two])), [{ source: '/dev/sda', readOnly: false }]);
  const [first] = plan(seenWith([two]));
  assert.ok(first?.do === 'mount');
  const row: MountRow = { ...first.row, extra: { ...first.row.extra, settled: true } };
  assert.deepEqual(mountsIn(seenWith([one, two], { rows: [row] })), [
    { source: '/dev/sdb', readOnly: false },
  ]);
  const entries = [entry('/dev/sdb', '/olares/share/POOL', 'btrfs', '0:40')];
  assert.deepEqual(mountsIn(seenWith([one, two], { entries, rows: [{ ...row, phase: 'mounted' }] })), []);
  const held: MountRow = { ...row, heldOff: row.extra.appearance };
  assert.deepEqual(mountsIn(seenWith([one, two], { rows: [held] })), [], 'it was ejected');
  const incomplete = member('sda', 1, { ID_BTRFS_READY: '0' });
  assert.deepEqual(mountsIn(seenWith([incomplete])), []);
  const policies = (policy: 'read-only' | 'ignore') => new Map([['S2', policy]]);
  assert.deepEqual(mountsIn(seenWith([one, two], { policies: policies('read-only') })), [
    { source: '/dev/sda', readOnly: true },
  ]);
  assert.deepEqual(mountsIn(seenWith([one, two], { policies: policies('ignore') })), []);
});

test('an NVMe drive below a subsystem is a disk; loops, memory, CDs and boot areas are none', () => {
  const subsystem = '/sys/devices/virtual/nvme-subsystem/nvme-subsys0';
  const mmc = '/sys/devices/platform/fe330000.mmc/mmc_host/mmc0/mmc0:0001/block';
  const disks = localDisks(
    [
      ...[device('nvme0n1', subsystem), device('nvme0n1p1', subsystem), device('mmcblk0', mmc)],
      ...[device('mmcblk0boot0', mmc), device('mmcblk0boot1', mmc), device('sr0', ata)],
      ...[
        device('loop0', virtual),
        device('zram0', virtual),
        device('ram0', virtual),
        device('dm-0', virtual),
      ],
    ],
    [],
    paths,
  );
  assert.deepEqual(
    disks.map(({ device: { name }, transport, volumes }) => [name, transport, volumes[0]?.device.name]),
    [
      ['nvme0n1', 'nvme', 'nvme0n1p1'],
      ['mmcblk0', 'mmc', 'mmcblk0'],
    ],
  );
});

test('a label or model that would steer the terminal of who reads it is shown without that', () => {
  const properties = {
    ...{ ID_FS_USAGE: 'filesystem', ID_FS_TYPE: 'vfat', ID_FS_UUID: 'u', ID_SERIAL: 'S' },
    ...{ ID_FS_LABEL_ENC: '\\x1b[2J..\\x2fai\\x0a', ID_MODEL_ENC: 'Disk\\x07\u202e' },
  };
  const seen = seenWith([device('sda', usb, { properties })]);
  const [disk] = seen.disks;
  assert.deepEqual([disk?.volumes[0]?.label, disk?.model], ['\ufffd[2J../ai\ufffd', 'Disk\ufffd\ufffd']);
  const [step] = plan(seen);
  assert.equal(step?.do === 'mount' && step.row.name, '2J.._ai');
});

const esp = 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B';

/** What udev says of a partition of a stick, the role that it has, and whether it is mounted. */
const roles: readonly [string, Record<string, string>, string, boolean][] = [
  ['a file system', { ID_FS_USAGE: 'filesystem', ID_FS_TYPE: 'ext4' }, 'data', true],
  ['LUKS', { ID_FS_USAGE: 'crypto', ID_FS_TYPE: 'crypto_LUKS' }, 'encrypted', false],
  ['BitLocker', { ID_FS_USAGE: 'crypto', ID_FS_TYPE: 'BitLocker' }, 'encrypted', false],
  ['swap', { ID_FS_USAGE: 'other', ID_FS_TYPE: 'swap' }, 'swap', false],
  ['a member of LVM', { ID_FS_USAGE: 'raid', ID_FS_TYPE: 'LVM2_member' }, 'member', false],
  ['a member of md', { ID_FS_USAGE: 'raid', ID_FS_TYPE: 'linux_raid_member' }, 'member', false],
  ['nothing', {}, 'empty', false],
  ...[esp, esp.toLowerCase(), '0xef', '21686148-6449-6e6f-744e-656564454649', '0x41'].map(
    (type): [string, Record<string, string>, string, boolean] => [
      `a file system in a partition of type ${type}`,
      { ID_FS_USAGE: 'filesystem', ID_FS_TYPE: 'vfat', ID_PART_ENTRY_TYPE: type },
      'boot',
      false,
    ],
  ),
];

for (const [what, properties, role, isMounted] of roles) {
  test(`a partition of a stick with ${what} is ${role}, and ${isMounted ? '' : 'not '}mounted`, () => {
    const uuid = { ID_FS_UUID: 'u' };
    const seen = seenWith([
      device('sda', usb),
      device('sda1', usb, { properties: { ...uuid, ...properties } }),
    ]);
    assert.equal(seen.disks[0]?.volumes[0]?.role, role);
    assert.deepEqual(mountsIn(seen), isMounted ? [{ source: '/dev/sda1', readOnly: false }] : []);
  });
}

test('a file system beside the system is one of the system, and not mounted', () => {
  const properties = { ID_FS_USAGE: 'filesystem', ID_FS_TYPE: 'ext4', ID_FS_UUID: 'u' };
  const root = device('sda1', usb, { dev: '8:131' });
  const devices = [device('sda', usb), root, device('sda2', usb, { properties })];
  const seen = seenWith(devices, { entries: [entry('/dev/sda1', '/', 'ext4', '8:131')] });
  assert.equal(seen.disks[0]?.volumes[1]?.role, 'system');
  assert.deepEqual(mountsIn(seen), []);
});

for (const [transport, place] of [
  ['nvme', 'pci0000:00/0000:00:1d.0/0000:3d:00.0/nvme/nvme0/nvme0n1'],
  ['nvme', 'virtual/nvme-subsystem/nvme-subsys0/nvme0n1'],
  ['usb', 'pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host4/target4:0:0/4:0:0:0/block/sda'],
  ['usb', 'pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/ata7/host4/target4:0:0/4:0:0:0/block/sda'],
  [
    'usb',
    'pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/rtsx_usb_sdmmc.1.auto/mmc_host/mmc0/mmc0:0001/block/mmcblk0',
  ],
  ['sata', 'pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda'],
  ['mmc', 'platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:0001/block/mmcblk0'],
  ['virtio', 'pci0000:00/0000:00:04.0/virtio1/block/vda'],
  ['other', 'pci0000:00/0000:00:10.0/host2/target2:0:0/2:0:0:0/block/sda'],
] as const) {
  test(`a disk at ${place} hangs on ${transport}`, () => {
    assert.equal(transportOf(`/sys/devices/${place}`), transport);
  });
}
