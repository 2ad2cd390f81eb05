import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { parseSmbPath } from '#storage/smb.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const volume = (
  uuid: string,
  label: string,
  fstype = 'vfat',
  more: Partial<FakeVolume> = {},
): FakeVolume => ({
  ...{ uuid, label, fstype, files: new Map() },
  ...more,
});
const stick = (serial: string, ...volumes: FakeVolume[]): FakeDisk => ({
  ...{ serial, model: 'Acme Disk', transport: 'usb', volumes },
});

function world(...disks: FakeDisk[]) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  for (const disk of disks) machine.plug(disk);
  const store = quickStore();
  return { machine, store, ...rig({ machine, store }) };
}

const pathsOf = (machine: FakeMachine) =>
  machine
    .entries()
    .map((entry) => entry.target)
    .filter((target) => target !== '/')
    .sort();

const under = (...names: string[]) => names.map((name) => `${shareRoot}/${name}`);

test('each stick is mounted by its label, else by its model, and two of one name both come', async () => {
  const { machine, storage } = world(
    stick('1', volume('a', 'My Photos')),
    stick('2', volume('b', 'My Photos', 'ext4')),
    stick('3', volume('c', '', 'exfat')),
  );
  await storage.start();
  assert.deepEqual(pathsOf(machine), under('Acme_Disk', 'My_Photos', 'My_Photos-2'));
  await storage.close();
});

test('a large file system has minutes to come, and keeps no other waiting', async () => {
  const large = stick('1', volume('a', 'LARGE', 'btrfs'));
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  const { promise: ready, resolve: comes } = Promise.withResolvers<void>();
  const patience: number[] = [];
  const mount: typeof mounts.mount = async (request) => {
    patience.push(request.timeoutMs);
    if (request.target.endsWith('LARGE')) await ready;
    return mounts.mount(request);
  };
  const { storage } = rig({ machine, store: quickStore(), real: { mounts: { ...mounts, mount } } });
  machine.plug(large);
  const start = storage.start();
  await storage.local.look();
  machine.plug(stick('2', volume('b', 'SMALL')));
  while (pathsOf(machine).length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(pathsOf(machine), under('SMALL'));
  comes();
  await start;
  assert.deepEqual(pathsOf(machine), under('LARGE', 'SMALL'));
  assert.ok(Math.min(...patience) >= 5 * 60_000, `${patience}`);
  await storage.close();
});

test('50 replugs of 4 sticks in changing order, with a reboot between: every path stays', async () => {
  const sticks = ['1', '2', '3', '4'].map((serial) => stick(serial, volume(`u${serial}`, 'STICK')));
  const { machine, store, storage } = world(...sticks);
  await storage.start();
  const pathOf = (daemon: typeof storage) => daemon.registry.all().map((row) => [row.identity, row.name]);
  const first = pathOf(storage);
  for (let n = 0; n < 50; n++) {
    const order = sticks.toSorted(
      (a, b) => ((n * 7 + Number(a.serial) * 5) % 4) - ((n * 3 + Number(b.serial)) % 4),
    );
    for (const disk of order) machine.unplug(disk);
    await storage.local.settled();
    assert.deepEqual(pathsOf(machine), []);
    assert.deepEqual(machine.ports().folders.list(shareRoot), [], 'no folder is left without its disk');
    for (const disk of order.toReversed()) machine.plug(disk);
    await storage.local.settled();
    assert.equal(pathsOf(machine).length, 4);
  }
  await storage.close();
  machine.forgetWatchers();
  machine.reboot();
  const again = rig({ machine, store, bootId: 'boot-2' });
  await again.storage.start();
  assert.deepEqual(pathOf(again.storage), first);
  assert.equal(pathsOf(machine).length, 4);
  await again.storage.close();
});

test('a disk pulled and plugged in between two looks is mounted anew, although its node is the same', async () => {
  const disk = stick('1', volume('a', 'STICK'));
  const { machine, storage } = world(disk);
  await storage.start();
  const before = machine.entries().find((entry) => entry.target.endsWith('STICK'))?.id;
  machine.unplug(disk);
  machine.plug(disk);
  await storage.local.settled();
  const after = machine.entries().filter((entry) => entry.target.endsWith('STICK'));
  assert.equal(after.length, 1);
  assert.notEqual(after[0]?.id, before);
  await storage.close();
});

test('read-only only when asked for: a dirty journal is reported, another error is an error', async () => {
  const { machine, storage, problems } = world(
    stick('1', volume('a', 'Old', 'ntfs', { dirty: true })),
    stick('2', volume('b', 'Torn', 'ext4', { broken: 'wrong fs type, bad superblock' })),
  );
  await storage.start();
  const entry = machine.entries().find((each) => each.target.endsWith('/Old'));
  assert.ok(entry?.options.includes('ro'));
  assert.deepEqual(pathsOf(machine), under('Old'));
  const codes = problems().map((each) => [each.code, each.message]);
  assert.ok(codes.some(([code, text]) => code === 'mount_read_only' && text?.includes('dirty')));
  assert.ok(codes.some(([code, text]) => code === 'mount_failed' && text?.includes('bad superblock')));
  await storage.close();
});

test('a policy keeps a disk read-only or untouched from the next plug on', async () => {
  const disk = stick('1', volume('a', 'STICK'));
  const { machine, storage } = world(disk);
  await storage.start();
  const found = storage.seen().disks[0];
  assert.ok(found);
  storage.setPolicy(found, 'read-only');
  machine.unplug(disk);
  await storage.local.settled();
  machine.plug(disk);
  await storage.local.settled();
  assert.ok(
    machine
      .entries()
      .find((each) => each.target.endsWith('/STICK'))
      ?.options.includes('ro'),
  );
  storage.setPolicy(found, 'ignore');
  machine.unplug(disk);
  await storage.local.settled();
  machine.plug(disk);
  await storage.local.settled();
  assert.deepEqual(pathsOf(machine), []);
  await storage.close();
});

test('a mount that somebody else has undone is not forced upon him, until the disk comes anew', async () => {
  const disk = stick('1', volume('a', 'STICK'));
  const { machine, storage } = world(disk);
  await storage.start();
  const id = machine.entries().find((each) => each.target.endsWith('/STICK'))?.id ?? 0;
  machine.umountForeign(id);
  await storage.local.settled();
  assert.deepEqual(pathsOf(machine), []);
  machine.unplug(disk);
  await storage.local.settled();
  machine.plug(disk);
  await storage.local.settled();
  assert.deepEqual(pathsOf(machine), under('STICK'));
  await storage.close();
});

test('a stick that is write-protected is mounted to be read, and that is told; as a policy it is not', async () => {
  const locked = (serial: string, label: string): FakeDisk => ({
    ...stick(serial, volume(label, label, 'ext4')),
    writeProtected: true,
  });
  const { storage, machine, problems } = world(locked('1', 'LOCKED'));
  await storage.start();
  assert.deepEqual(
    problems().map(({ code, message }) => `${code}: ${message}`),
    [`mount_read_only: ${shareRoot}/LOCKED can only be read: the device is write-protected`],
  );
  const asked = locked('2', 'ASKED');
  machine.plug(asked);
  const seen = storage.seen().disks.find((each) => each.serial === '2');
  assert.ok(seen);
  storage.setPolicy(seen, 'read-only');
  await storage.local.settled();
  assert.equal(machine.entries().at(-1)?.target, `${shareRoot}/ASKED`);
  assert.equal(problems().length, 1);
  await storage.close();
});

test('a disk that comes in a USB case is USB from then on, at the path that it had, and without it is not', async () => {
  const outside = stick('S1', volume('a', 'Films', 'ext4'));
  const inside: FakeDisk = { ...outside, transport: 'sata' };
  const { machine, storage } = world();
  await storage.start();
  const seenAs: string[] = [];
  for (const disk of [outside, inside, outside]) {
    machine.plug(disk);
    await storage.local.settled();
    seenAs.push(...storage.registry.all().map((row) => `${row.kind} ${row.phase} ${row.name}`));
    machine.unplug(disk);
    await storage.local.settled();
  }
  assert.deepEqual(seenAs, ['usb mounted Films', 'hdd mounted Films', 'usb mounted Films']);
  await storage.close();
});

test('a SATA disk is mounted only where fstab names it, and then as fstab says', async () => {
  const sata: FakeDisk = { ...stick('9', volume('data', 'Data', 'ext4')), transport: 'sata' };
  const other: FakeDisk = { ...stick('8', volume('loose', 'Loose', 'ext4')), transport: 'sata' };
  const machine = new FakeMachine(['/', '/olares', shareRoot, '/srv/data']);
  machine.fstab.set('/srv/data', 'data');
  const { storage } = rig({ machine, store: quickStore() });
  await storage.start();
  machine.plug(sata);
  machine.plug(other);
  await storage.local.settled();
  assert.deepEqual(pathsOf(machine), ['/srv/data']);
  const rows = await storage.mounted(() => true);
  assert.deepEqual(
    rows.map(({ type, path, total, free, used, usedPercent }) => ({
      type,
      path,
      total,
      free,
      used,
      usedPercent,
    })),
    [
      {
        type: 'hdd',
        path: '/srv/data',
        total: 4_096_000,
        free: 1_433_600,
        used: 2_457_600,
        usedPercent: (2_457_600 / 3_891_200) * 100,
      },
    ],
  );
  await storage.close();
});

test('a folder with files in the place of a new name is left alone, and the stick says why it is not there', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { storage } = rig({ machine, store: quickStore() });
  await storage.start();
  const disk = stick('1', volume('a', 'STICK'));
  machine.plug(disk);
  await storage.local.settled();
  machine.unplug(disk);
  await storage.local.settled();
  machine.makeForeign(`${shareRoot}/STICK`, 'folder');
  machine.makeForeign(`${shareRoot}/STICK/ghost`, 'file');
  machine.plug(disk);
  await storage.local.settled();
  assert.deepEqual(pathsOf(machine), under('STICK'), 'a path that was promised is kept');
  machine.unplug(disk);
  await storage.local.settled();
  assert.ok(machine.hasFolder(`${shareRoot}/STICK`), 'and the folder with somebody else’s file stays');
  await storage.close();
});

test('NTFS that Windows has not closed is mounted for reading, whatever the driver says; a torn one is not', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  const asked: string[] = [];
  const said =
    'wrong fs type, bad option, bad superblock on /dev/sda1, missing codepage or helper program, or other error.';
  const mount: typeof mounts.mount = (request) => {
    asked.push(`${request.target.slice(shareRoot.length + 1)} ${request.fstype} ${request.options.join()}`);
    const isRefused = request.target.endsWith('/Torn') || !request.options.includes('ro');
    const answer = {
      file: 'mount',
      args: [],
      reason: 'exit',
      exitCode: 32,
      stdout: '',
      stderr: said,
    } as const;
    return isRefused ? Promise.reject(new ExecError(answer)) : mounts.mount(request);
  };
  const real = { mounts: { ...mounts, mount }, ntfs3: () => ({ windowsNames: false }) };
  const { storage, problems } = rig({ machine, store: quickStore(), real });
  machine.plug(stick('1', volume('a', 'Old', 'ntfs')));
  machine.plug(stick('2', volume('b', 'Torn', 'ntfs')));
  machine.plug(stick('3', volume('c', 'Ext', 'ext4')));
  await storage.start();
  assert.deepEqual(pathsOf(machine), under('Old'));
  const count = (name: string) => asked.filter((each) => each.startsWith(name)).length;
  assert.deepEqual([count('Old ntfs3'), count('Torn ntfs3'), count('Ext')], [2, 2, 1]);
  assert.ok(
    asked.every((each) => !each.includes('windows_names')),
    'this kernel would refuse the option',
  );
  const texts = problems().map((each) => `${each.code} ${each.message}`);
  assert.ok(
    texts.some((text) => /^mount_read_only .*not closed in good order/.test(text)),
    texts.join(),
  );
  assert.ok(
    texts.some((text) => /^mount_failed Torn .*bad superblock/.test(text)),
    texts.join(),
  );
  await storage.close();
});

test('a disk that the kernel stops writing to, for it had an error, is told as one that can only be read', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  let isBroken = false;
  const list = () => mounts.list().map((entry) => (isBroken ? { ...entry, superOptions: ['ro'] } : entry));
  const { storage } = rig({
    machine,
    store: quickStore(),
    real: { mounts: { ...mounts, list } },
  });
  machine.shares.set('//nas/public', volume('s', '', 'cifs'));
  machine.servers.add('nas');
  machine.plug(stick('1', volume('a', 'STICK', 'ext4')));
  await storage.start();
  await storage.shares.mountSmb(parseSmbPath('//nas/public'), undefined);
  const told = () =>
    storage.problems().flatMap(({ code, message }) => (code === 'mount_read_only' ? [message] : []));
  assert.deepEqual(told(), []);
  isBroken = true;
  assert.deepEqual(told(), [
    `${shareRoot}/STICK can only be read: the kernel has stopped writing to it after an error`,
  ]);
  await storage.close();
});

test('who listens hears that a stick was pulled, and only that: not that it was ejected, nor what a reboot took', async () => {
  const disk = stick('1', volume('a', 'STICK'));
  const { machine, store, storage, events } = world(disk);
  await storage.start();
  machine.unplug(disk);
  await storage.local.settled();
  const path = `${shareRoot}/STICK`;
  assert.deepEqual(events, [
    { action: 'mounted', kind: 'usb', path, readOnly: false },
    { action: 'unplugged', kind: 'usb', path },
  ]);
  machine.plug(disk);
  await storage.local.settled();
  await storage.close();
  machine.forgetWatchers();
  machine.unplug(disk);
  machine.reboot();
  const again = rig({ machine, store, bootId: 'boot-2' });
  await again.storage.start();
  assert.deepEqual(again.events, []);
  await again.storage.close();
});
