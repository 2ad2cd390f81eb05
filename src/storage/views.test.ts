import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isReadOnly, type MountEntry, parseMountInfo } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import type { Seen } from '#storage/automount.ts';
import { builtVolumes, localDisks } from '#storage/devices.ts';
import { parseFstab } from '#storage/fstab.ts';
import { fstabSteps } from '#storage/fstab-mounts.ts';
import { listed } from '#storage/views.ts';

const places = {
  sd: '/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/block',
  usb: '/sys/devices/pci0000:00/usb1/1-1/1-1:1.0/host1/block',
  built: '/sys/devices/virtual/block',
};
const data = (uuid: string) => ({ ID_FS_TYPE: 'ext4', ID_FS_USAGE: 'filesystem', ID_FS_UUID: uuid });

function device(name: string, place: keyof typeof places, more: Partial<BlockDevice> = {}): BlockDevice {
  const numbers = [...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) % 1000;
  return {
    ...{ name, node: `/dev/${name}`, dev: `8:${numbers}`, sysPath: `${places[place]}/${name}`, kind: 'disk' },
    ...{ parent: undefined, size: 1 << 30, readOnly: false, removable: false, holders: [], slaves: [] },
    ...{ sequence: '3', properties: { ID_SERIAL: name, ID_SERIAL_SHORT: name }, links: [] },
    ...more,
  };
}

function entry(on: Pick<BlockDevice, 'node' | 'dev'>, target: string, more = 'rw'): MountEntry {
  const [made] = parseMountInfo(`90 27 ${on.dev} / ${target} rw - ext4 ${on.node} ${more}\n`);
  assert.ok(made);
  return made;
}

function seenWith(devices: readonly BlockDevice[], entries: readonly MountEntry[], fstab = ''): Seen {
  const disks = localDisks(devices, entries, ['/', '/share']);
  return {
    ...{ devices, disks, built: builtVolumes(devices, disks), entries, rows: [], policies: new Map() },
    ...{
      fstab: parseFstab(fstab),
      served: new Map(),
      byFstab: [],
      bootId: 'b',
      names: [],
      systemPaths: ['/', '/share', '/var/lib/beosd'],
      shareRoot: '/share',
    },
  };
}

const [sda, sdb, stick] = [device('sda', 'sd'), device('sdb', 'sd'), device('sdc', 'usb')];
const volumes = device('dm-0', 'built', {
  ...{
    slaves: ['sda', 'sdb'],
    properties: { ...data('u-pool'), DM_NAME: 'vg-pool' },
    links: ['/dev/mapper/vg-pool'],
  },
});
const opened = device('dm-1', 'built', {
  slaves: ['sdc'],
  properties: { ...data('u-safe'), DM_NAME: 'safe' },
});
const all = [sda, sdb, stick, volumes, opened];

test('what is on LVM or in an opened LUKS is listed as the disks below it are: hdd, or usb', () => {
  const rows = listed(seenWith(all, [entry(volumes, '/srv/pool'), entry(opened, '/mnt/safe')]));
  assert.deepEqual(
    rows.map(({ path, type, idSerial, partitionUuid, device: node }) => ({
      path,
      type,
      idSerial,
      partitionUuid,
      node,
    })),
    [
      { path: '/mnt/safe', type: 'usb', idSerial: 'sdc', partitionUuid: 'u-safe', node: '/dev/dm-1' },
      { path: '/srv/pool', type: 'hdd', idSerial: 'sda', partitionUuid: 'u-pool', node: '/dev/dm-0' },
    ],
  );
});

test('what shares a disk with the system is not listed, nor what lies on a file or on nothing that is known', () => {
  const root = device('dm-2', 'built', {
    slaves: ['sdb'],
    properties: { ...data('u-root'), DM_NAME: 'vg-root' },
  });
  const loop = device('loop0', 'built', { properties: data('u-loop') });
  const orphan = device('dm-3', 'built', { slaves: ['sdz'], properties: data('u-orphan') });
  const half = device('dm-4', 'built', { slaves: ['sdc', 'sdz'], properties: data('u-half') });
  const entries = [entry(root, '/'), entry(volumes, '/a'), entry(loop, '/b'), entry(orphan, '/c')];
  assert.deepEqual(listed(seenWith([...all, root, loop, orphan, half], entries)), []);
});

test('a line of fstab for LVM is carried out when the volume is there, but not on the disk of the system', () => {
  const stepsOf = (entries: MountEntry[]) =>
    fstabSteps(seenWith(all, entries, '/dev/mapper/vg-pool /srv/pool ext4 defaults 0 2')).map((step) =>
      step.do === 'fstab'
        ? [step.entry.target, step.kind, ...step.place.disks.map((disk) => disk.device.name)]
        : [],
    );
  assert.deepEqual(stepsOf([]), [['/srv/pool', 'hdd', 'sda', 'sdb']]);
  assert.deepEqual(stepsOf([entry(sda, '/')]), []);
  assert.deepEqual(stepsOf([entry(volumes, '/srv/pool')]), []);
});

test('a stick that is plugged in anew is another one to the probe, also when it gets the mount id that it had', () => {
  const keyOf = (sequence: string) => {
    const again = device('sdc', 'usb', { sequence, properties: { ...data('u-1'), ID_SERIAL_SHORT: 'S1' } });
    return listed(seenWith([again], [entry(again, '/share/STICK')])).map((row) => row.key);
  };
  assert.equal(keyOf('4').length, 1);
  assert.notDeepEqual(keyOf('4'), keyOf('5'));
});

test('a mount can only be read by its own options, by those of its file system, and when the kernel has given it up', () => {
  const of = (more: string) => isReadOnly(entry(sda, '/srv', more));
  for (const ro of ['ro', 'ro,errors=remount-ro', 'rw,errors=remount-ro,emergency_ro', 'rw,shutdown'])
    assert.equal(of(ro), true, ro);
  for (const rw of ['rw', 'rw,errors=remount-ro', 'rw,norecovery', 'rw,rodir'])
    assert.equal(of(rw), false, rw);
  assert.equal(isReadOnly({ options: ['ro', 'nosuid'], superOptions: ['rw'] }), true);
});
