import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const volume = (label: string, more: Partial<FakeVolume> = {}): FakeVolume => ({
  ...{ fstype: 'ext4', uuid: `u-${label}`, label, files: new Map() },
  ...more,
});
const disk = (serial: string, ...volumes: FakeVolume[]): FakeDisk => ({
  ...{ serial, model: 'Acme', transport: 'sata', volumes },
});

/** Lines of fstab as `folder: label`, and disks, all plugged in. */
function world(lines: Readonly<Record<string, string>>, ...disks: FakeDisk[]) {
  const machine = new FakeMachine(['/', '/olares', shareRoot, ...Object.keys(lines)]);
  for (const [target, label] of Object.entries(lines)) machine.fstab.set(target, `u-${label}`);
  for (const each of disks) machine.plug(each);
  return { machine, ...rig({ machine, store: quickStore() }) };
}

const mountedIn = (machine: FakeMachine) =>
  machine.entries().map(({ source, target }) => `${source} ${target}`);
const wordsOf = ({ problems }: ReturnType<typeof rig>) =>
  problems().map(({ code, message }) => `${code}: ${message}`);

test('a disk whose place lies within another one’s is mounted after that, whatever the order of the disks', async () => {
  const inner = disk('S1', volume('MEDIA'));
  const { machine, storage } = world(
    { '/srv': 'DATA', '/srv/media': 'MEDIA' },
    inner,
    disk('S2', volume('DATA')),
  );
  await storage.start();
  assert.deepEqual(mountedIn(machine).slice(1), ['/dev/sdb1 /srv', '/dev/sda1 /srv/media']);
  await storage.close();
});

test('while the outer one is missing the inner one waits, and says so', async () => {
  const outer = disk('S2', volume('DATA'));
  const { machine, storage } = world({ '/srv': 'DATA', '/srv/media': 'MEDIA' }, disk('S1', volume('MEDIA')));
  await storage.start();
  assert.equal(machine.entries().length, 1);
  const [view] = await storage.disks();
  assert.match(view?.volumes[0]?.notMountedBecause ?? '', /lies in \/srv, which \/etc\/fstab mounts first/);
  machine.plug(outer);
  await storage.local.settled();
  assert.deepEqual(mountedIn(machine).slice(1), ['/dev/sdb1 /srv', '/dev/sda1 /srv/media']);
  await storage.close();
});

test('all lines of one file system are carried out: subvolumes of a btrfs', async () => {
  const pool = disk('S1', volume('POOL', { fstype: 'btrfs' }));
  const { machine, storage } = world({ '/srv/a': 'POOL', '/srv/b': 'POOL' }, pool);
  await storage.start();
  assert.deepEqual(mountedIn(machine).slice(1), ['/dev/sda1 /srv/a', '/dev/sda1 /srv/b']);
  await storage.close();
});

test('a line that cannot be carried out is a condition and tells why, and is tried at once when the disk comes anew', async () => {
  const data = volume('DATA', { broken: 'mount: wrong fs type, bad superblock' });
  const hdd = disk('S1', data);
  const bench = world({ '/srv/data': 'DATA' }, hdd);
  const { machine, storage } = bench;
  await storage.start();
  assert.deepEqual(wordsOf(bench), [
    'mount_failed: /srv/data could not be mounted: mount: wrong fs type, bad superblock',
  ]);
  const [view] = await storage.disks();
  assert.match(view?.volumes[0]?.notMountedBecause ?? '', /bad superblock/);
  machine.unplug(hdd);
  await storage.local.settled();
  assert.deepEqual(wordsOf(bench), []);
  delete data.broken;
  machine.plug(hdd);
  await storage.local.settled();
  assert.deepEqual(mountedIn(machine).slice(1), ['/dev/sda1 /srv/data']);
  await storage.close();
});

test('what fails is forgotten when fstab does not name the place any more', async () => {
  const bench = world({ '/srv/data': 'DATA' }, disk('S1', volume('DATA', { broken: 'bad superblock' })));
  await bench.storage.start();
  assert.equal(wordsOf(bench).length, 1);
  bench.machine.fstab.clear();
  await bench.storage.local.settled();
  assert.deepEqual(bench.storage.problems(), []);
  await bench.storage.close();
});

test('a disk in fstab that is pulled loses its mount, with an event, and has it again when it is back', async () => {
  const stick: FakeDisk = { ...disk('S1', volume('BACKUP')), transport: 'usb' };
  const other = disk('S2', volume('DATA'));
  const { machine, storage, events } = world({ '/srv/backup': 'BACKUP', '/srv/data': 'DATA' }, stick, other);
  await storage.start();
  machine.unplug(stick);
  await storage.local.settled();
  assert.deepEqual(mountedIn(machine).slice(1), ['/dev/sdb1 /srv/data']);
  machine.plug(stick);
  await storage.local.settled();
  assert.deepEqual(mountedIn(machine).slice(1), ['/dev/sdb1 /srv/data', '/dev/sda1 /srv/backup']);
  assert.deepEqual(
    events.filter(({ path }) => path === '/srv/backup').map(({ action, kind }) => `${action} ${kind}`),
    ['mounted usb', 'unplugged usb', 'mounted usb'],
  );
  await storage.close();
});

test('pulled and plugged in between two looks, the dead mount goes before the new one comes', async () => {
  const hdd = disk('S1', volume('DATA'));
  const { machine, storage } = world({ '/srv/data': 'DATA' }, hdd, disk('S2'));
  await storage.start();
  const [, before] = machine.entries();
  machine.unplug(hdd);
  machine.plug(hdd);
  await storage.local.settled();
  const [, after, ...more] = machine.entries();
  assert.notEqual(after?.id, before?.id);
  assert.deepEqual(more, []);
  await storage.close();
});

test('a dead mount at a place of fstab that somebody else has made stays, and is a condition', async () => {
  const hdd = disk('S1', volume('DATA'));
  const bench = world({ '/srv/data': 'DATA' }, hdd, disk('S2'));
  const { machine, storage } = bench;
  const theirs = machine.mountForeign('/dev/sda1', '/srv/data');
  await storage.start();
  machine.unplug(hdd);
  await storage.local.settled();
  assert.equal(machine.entries().at(-1)?.id, theirs);
  assert.match(
    bench.storage
      .problems()
      .map((each) => each.message)
      .join(),
    /\/dev\/sda1, which is mounted at \/srv\/data, is gone/,
  );
  await storage.close();
});

test('nothing that is mounted within a dead mount of fstab goes with it', async () => {
  const hdd = disk('S1', volume('DATA'));
  const { machine, storage } = world({ '/srv/data': 'DATA' }, hdd, disk('S2'));
  await storage.start();
  machine.makeForeign('/srv/data/theirs', 'folder');
  machine.mountForeign('tmpfs', '/srv/data/theirs');
  const before = mountedIn(machine);
  machine.unplug(hdd);
  await storage.local.look();
  assert.deepEqual(mountedIn(machine), before);
  assert.match(storage.problems()[0]?.remedy ?? '', /Unmount \/srv\/data\/theirs, which lies in it/);
  await storage.close();
});

test('a line that asks for writing and can only be read is a condition; one that asks for reading is none', async () => {
  const locked = { ...disk('S1', volume('DATA')), writeProtected: true };
  const bench = world({ '/srv/data': 'DATA' }, locked, disk('S2', volume('OTHER')));
  await bench.storage.start();
  assert.deepEqual(wordsOf(bench), [
    'mount_read_only: /srv/data can only be read: the device is write-protected',
  ]);
  assert.deepEqual(
    bench.events.map((each) => each['readOnly']),
    [true],
  );
  const [seen] = bench.storage.seen().disks;
  assert.ok(seen);
  bench.storage.setPolicy(seen, 'read-only');
  assert.deepEqual(bench.storage.problems(), []);
  await bench.storage.close();
});

test('what somebody mounts at the place of a line while that is about to be carried out is not hidden', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot, '/srv/data', '/srv/data/in']);
  machine.fstab.set('/srv/data', 'u-DATA');
  machine.plug(disk('S1', volume('DATA')));
  const guard = (call: string) => {
    if (call === 'leadsTo') machine.mountForeign('tmpfs', '/srv/data/in');
  };
  const { storage } = rig({ machine, store: quickStore(), guard });
  await storage.start();
  assert.deepEqual(mountedIn(machine).slice(1), ['tmpfs /srv/data/in']);
  await storage.close();
});

test('a policy holds for disks in fstab too: only to be read, or not at all', async () => {
  const hdd = disk('S1', volume('DATA'));
  const { machine, storage, events } = world({ '/srv/data': 'DATA' });
  await storage.start();
  machine.plug(hdd);
  const [seen] = storage.seen().disks;
  assert.ok(seen);
  storage.setPolicy(seen, 'read-only');
  await storage.local.settled();
  const modes = () =>
    machine
      .entries()
      .filter(({ target }) => target === '/srv/data')
      .map(({ options }) => [...options]);
  assert.deepEqual(modes(), [['ro', 'noload']]);
  assert.deepEqual(
    events.map(({ action, kind, readOnly }) => ({ action, kind, readOnly })),
    [{ action: 'mounted', kind: 'hdd', readOnly: true }],
  );
  machine.unplug(hdd);
  await storage.local.settled();
  storage.setPolicy(seen, 'ignore');
  machine.plug(hdd);
  await storage.local.settled();
  assert.deepEqual(modes(), []);
  await storage.close();
});
