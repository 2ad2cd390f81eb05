import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import type { BlockDevice, Devices } from '#host/udev.ts';
import { isFault } from '#lib/fault.ts';
import { parseSmbPath } from '#storage/smb.ts';
import { UsageProbe } from '#storage/usage.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const stick = (serial: string, ...labels: string[]): FakeDisk => ({
  ...{ serial, model: 'Acme', transport: 'usb' },
  volumes: labels.map((label) => ({ fstype: 'ext4', uuid: `u-${label}`, label, files: new Map() })),
});

const busy = Object.assign(new Error('EBUSY'), { code: 'EBUSY' });

/** The devices of a machine as udev's database shows them after `change`. */
function seenThrough(machine: FakeMachine, change: (device: BlockDevice) => BlockDevice): Devices {
  const { devices } = machine.ports();
  return { ...devices, list: () => devices.list().map(change) };
}

test('a mounted disk whose record udev has lost, or whose UUID has changed, is not taken from its users', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  let change = (device: BlockDevice): BlockDevice => device;
  const devices = seenThrough(machine, (device) => change(device));
  const { storage } = rig({ machine, store: quickStore(), real: { devices } });
  machine.plug(stick('S1', 'STICK'));
  await storage.start();
  const before = machine.entries();
  assert.equal(before.length, 2);
  change = (device) => ({ ...device, properties: undefined });
  await storage.local.settled();
  assert.deepEqual(machine.entries(), before, 'no record');
  change = (device) => ({ ...device, properties: { ...device.properties, ID_FS_UUID: 'another' } });
  await storage.local.settled();
  assert.deepEqual(machine.entries(), before, 'another UUID');
  change = (device) => ({ ...device, sequence: `9${device.sequence}` });
  await storage.local.settled();
  assert.notDeepEqual(machine.entries(), before, 'another disk under the same name: the dead mount goes');
  await storage.close();
});

test('a stick that is mounted a second time on this node is not called safe, and says where', async () => {
  let stopped = 0;
  const powerDown = async () => ++stopped > 0;
  const machine = new FakeMachine(['/', '/olares', shareRoot, '/mnt/copy']);
  const { storage } = rig({ machine, store: quickStore(), disks: { powerDown } });
  const disk = stick('S1', 'STICK');
  machine.plug(disk);
  await storage.start();
  const [node] = machine.nodesOf(disk);
  machine.mountForeign(node ?? '', '/mnt/copy');
  const [row] = storage.registry.all();
  assert.ok(row);
  const ejected = await storage.ejector.eject(row, false);
  assert.equal(ejected.safe, false);
  assert.deepEqual(
    ejected.holders.map((holder) => holder.path),
    ['/mnt/copy'],
  );
  assert.equal(stopped, 0);
  await storage.close();
});

test('a stick whose file system outlives its mount (a detached one that is still written to) is neither safe nor stopped', async () => {
  let stopped = 0;
  const powerDown = async () => ++stopped > 0;
  const claim = () => Promise.reject(busy);
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { storage } = rig({ machine, store: quickStore(), disks: { powerDown, claim } });
  machine.plug(stick('S1', 'STICK'));
  await storage.start();
  const [row] = storage.registry.all();
  assert.ok(row);
  const ejected = await storage.ejector.eject(row, false);
  assert.deepEqual([ejected.safe, ejected.poweredDown, stopped], [false, false, 0]);
  await storage.close();
});

test('a share below a share, and a file system with a default subvolume, are ours although their root is not /', async () => {
  for (const crash of [false, true]) {
    const machine = new FakeMachine(['/', '/olares', shareRoot]);
    machine.servers.add('nas');
    machine.shares.set('//nas/public/sub', { fstype: 'cifs', uuid: 's', label: '', files: new Map() });
    const { mounts } = machine.ports();
    const roots: Record<string, string> = { cifs: '/sub', btrfs: '/@/snapshots/1' };
    const list = () => mounts.list().map((entry) => ({ ...entry, root: roots[entry.fstype] ?? entry.root }));
    const store = quickStore();
    const { storage } = rig({ machine, store, real: { mounts: { ...mounts, list } } });
    machine.plug({
      ...stick('S1'),
      volumes: [{ fstype: 'btrfs', uuid: 'u', label: 'POOL', files: new Map() }],
    });
    await storage.start();
    await storage.shares.mountSmb(parseSmbPath('//nas/public/sub'), undefined);
    if (crash)
      for (const row of storage.registry.all())
        storage.registry.put({ ...row, phase: 'mounting', dev: undefined, mountId: undefined });
    await storage.local.settled();
    const rows = storage.registry.all().map((row) => storage.mounter.settle(row.identity));
    assert.deepEqual(
      rows.map((row) => [row.name, row.phase, storage.mounter.standing(row).kind]),
      [
        ['POOL', 'mounted', 'ours'],
        ['sub', 'mounted', 'ours'],
      ],
    );
    await storage.close();
  }
});

test('a mount that went elsewhere, for its mount point became a link meanwhile, is taken back; others stay', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot, '/etc', '/mnt']);
  const { mounts } = machine.ports();
  machine.plug(stick('S1', 'STICK'));
  const mount: typeof mounts.mount = async ({ source }) => {
    machine.mountForeign(source, '/etc');
    machine.mountForeign('tmpfs', '/mnt');
  };
  const { storage } = rig({ machine, store: quickStore(), real: { mounts: { ...mounts, mount } } });
  await storage.start();
  assert.deepEqual(
    machine.entries().map((entry) => entry.target),
    ['/', '/mnt'],
  );
  assert.deepEqual(
    storage.registry.all().map((row) => row.phase),
    ['none'],
  );
  await storage.close();
});

test('an fstab disk that somebody has unmounted, to check it say, is left alone until it comes anew', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot, '/srv/data']);
  machine.fstab.set('/srv/data', 'u-DATA');
  const disk: FakeDisk = { ...stick('S1', 'DATA'), transport: 'sata' };
  machine.plug(disk);
  const { storage } = rig({ machine, store: quickStore() });
  await storage.start();
  const mounted = () => machine.entries().filter((entry) => entry.target === '/srv/data');
  const [entry] = mounted();
  assert.ok(entry);
  machine.umountForeign(entry.id);
  await storage.local.settled();
  assert.deepEqual(mounted(), []);
  machine.unplug(disk);
  await storage.local.settled();
  machine.plug(disk);
  await storage.local.settled();
  assert.equal(mounted().length, 1);
  await storage.close();
});

test('a disk that hangs is asked once, however many ask for the list of disks', async () => {
  let asked = 0;
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const health = () => {
    asked++;
    return promise;
  };
  const { storage, clock } = rig({ machine, store: quickStore(), disks: { health } });
  machine.plug(stick('S1', 'STICK'));
  await storage.start();
  const lists = Array.from({ length: 20 }, () => storage.disks());
  resolve(undefined);
  await Promise.all(lists);
  await storage.disks();
  assert.equal(asked, 1);
  await clock.advance(11 * 60_000);
  await storage.disks();
  assert.equal(asked, 2);
  await storage.close();
});

test('a disk that cannot be read is not read again by everyone who asks', async () => {
  let asked = 0;
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { devices } = machine.ports();
  const blank = (device: BlockDevice) => ({ ...device, properties: {} });
  const disks = devices.list;
  const real = { devices: { ...devices, list: () => disks().map(blank) } };
  const signatures = () => {
    asked++;
    return Promise.reject(new Error('timed out'));
  };
  const { storage, clock } = rig({ machine, store: quickStore(), disks: { signatures }, real });
  machine.plug(stick('S1'));
  await storage.start();
  for (let n = 0; n < 5; n++)
    assert.match((await storage.disks())[0]?.notBlankBecause ?? '', /could not be read/);
  assert.equal(asked, 1);
  await clock.advance(11 * 60_000);
  await storage.disks();
  assert.equal(asked, 2);
  await storage.close();
});

test('a blank disk is read again when it may have been written to, and not for what another disk does', async () => {
  const asked: string[] = [];
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { devices } = machine.ports();
  const told: ((place?: string) => void)[] = [];
  const real = {
    devices: {
      list: () => devices.list().map((device) => ({ ...device, properties: {} })),
      watch: (onChange: (place?: string) => void) => {
        told.push(onChange);
        return { close: () => undefined };
      },
    },
  };
  const signatures = async (node: string) => {
    asked.push(node);
    return [];
  };
  const { storage } = rig({ machine, store: quickStore(), disks: { signatures }, real });
  const [one, two] = [stick('S1'), stick('S2')];
  for (const disk of [one, two]) machine.plug(disk);
  await storage.start();
  const read = async (place?: string) => {
    for (const tell of told) tell(place);
    await storage.disks();
    return asked.splice(0);
  };
  const placeOf = (name: string) => devices.list().find((each) => each.name === name)?.sysPath ?? '';
  assert.deepEqual(await read(), ['/dev/sda', '/dev/sdb']);
  assert.deepEqual(await read('/sys/devices/elsewhere/block/sdc'), []);
  assert.deepEqual(await read(`${placeOf('sdb')}/sdb1`), ['/dev/sdb']);
  assert.deepEqual(await read(placeOf('sda')), ['/dev/sda']);
  assert.deepEqual(await read(), ['/dev/sda', '/dev/sdb']);
  await storage.close();
});

test('a disk that is being provisioned is not mounted by its fstab line meanwhile', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot, '/srv/data']);
  machine.fstab.set('/srv/data', 'u-DATA');
  const { storage } = rig({ machine, store: quickStore() });
  await storage.start();
  const plugged: FakeDisk = { ...stick('S1', 'DATA'), transport: 'sata' };
  machine.plug(plugged);
  const release = storage.local.reserve(storage.diskById('Acme_S1').device);
  await storage.local.settled();
  assert.equal(machine.entries().length, 1);
  release();
  await storage.local.settled();
  assert.equal(machine.entries().length, 2);
  await storage.close();
});

test('a job of --system that is found again without it writes nothing to a disk', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const touched: string[] = [];
  const note = (what: string) => async () => void touched.push(what);
  const disks = { wipe: note('wipe'), partition: note('partition'), format: note('format') };
  const { storage } = rig({ machine, store: quickStore(), disks, mayAct: false });
  machine.plug(stick('S1'));
  const input = { disk: 'Acme_S1', filesystem: 'ext4', label: 'Vault', confirm: 'S1', wipe: true } as const;
  const layout = { filesystem: 'ext4', label: 'Vault', tableUuid: 't', partUuid: 'p', fsUuid: 'f' };
  const context = {
    ...{ jobId: '1', input, signal: new AbortController().signal },
    checkpoint: { layout, serial: 'S1', size: 1 << 30, appearance: '1' },
    remember: () => undefined,
    progress: () => undefined,
  };
  for (const phase of storage.provisioner.definition().phases(input).slice(1, 3)) {
    const refused = (error: unknown) => isFault(error) && error.code === 'sandbox';
    await assert.rejects(async () => phase.run(context), refused);
    await assert.rejects(async () => phase.resume?.(context), refused);
  }
  assert.deepEqual(touched, []);
});

test('a stick that was unmounted is reported so, as not safe, when other mount namespaces cannot be looked into', async () => {
  let stopped = 0;
  const powerDown = async () => ++stopped > 0;
  const namespacesWith = () => Promise.reject(new DOMException('too many processes', 'TimeoutError'));
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const processes = { namespacesWith };
  const { storage } = rig({ machine, store: quickStore(), disks: { powerDown }, processes });
  machine.plug(stick('S1', 'STICK'));
  await storage.start();
  const [row] = storage.registry.all();
  assert.ok(row);
  const ejected = await storage.ejector.eject(row, false);
  assert.deepEqual([ejected.safe, ejected.poweredDown, stopped], [false, false, 0]);
  await storage.close();
});

test('a mount is not asked again while the child that asked it last cannot even be killed', async () => {
  let asked = 0;
  const { promise: lingering, resolve: end } = Promise.withResolvers<void>();
  const { mounts } = new FakeMachine().ports();
  const usage: typeof mounts.usage = (target, timeoutMs) => {
    if (target !== '/srv/dead') return mounts.usage(target, timeoutMs);
    asked++;
    const how = {
      file: 'stat',
      args: [],
      reason: 'timeout',
      exitCode: null,
      stdout: '',
      stderr: '',
    } as const;
    return Promise.reject(new ExecError({ ...how, lingering }));
  };
  const clock = new FakeClock();
  const probe = new UsageProbe({ ...mounts, usage }, clock, () => undefined);
  const ask = () => probe.check('key', '/srv/dead');
  assert.equal(await ask(), 'hangs');
  for (let n = 0; n < 5; n++) {
    await clock.advance(10 * 60_000);
    assert.equal(await ask(), 'hangs');
    assert.equal((await probe.usage('key', '/srv/dead', 'ext4')).invalid, true);
  }
  assert.equal(asked, 1);
  end();
  await lingering;
  await clock.advance(10 * 60_000);
  assert.equal(await ask(), 'hangs');
  assert.equal(asked, 2);
});

test('who lists mounts again and again reads the disks once in a second, and anew after an event', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { devices } = machine.ports();
  let read = 0;
  const list = () => {
    read++;
    return devices.list();
  };
  const { storage, clock } = rig({ machine, store: quickStore(), real: { devices: { ...devices, list } } });
  machine.plug(stick('S1', 'ONE'));
  await storage.start();
  const paths = async () => (await storage.mounted(() => true)).map((row) => row.path);
  const before = read;
  for (let n = 0; n < 20; n++) assert.deepEqual(await paths(), [`${shareRoot}/ONE`]);
  assert.ok(read <= before + 1, `${read - before} reads for 20 lists`);
  await clock.advance(1001);
  const later = read;
  await paths();
  assert.equal(read, later + 1);
  machine.plug(stick('S2', 'TWO'));
  await storage.local.settled();
  assert.deepEqual(await paths(), [`${shareRoot}/ONE`, `${shareRoot}/TWO`]);
  await storage.close();
});

test('on a machine that is too slow to answer for anything no mount is called dead, and one that hangs still is', async () => {
  const { mounts } = new FakeMachine().ports();
  const late = (lingering: Promise<void>) =>
    new ExecError({
      ...{ file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '', lingering },
    });
  let isSlow = true;
  let ended: Promise<void> = Promise.resolve();
  const usage: typeof mounts.usage = (target, timeoutMs) =>
    target === '/srv/share' || isSlow ? Promise.reject(late(ended)) : mounts.usage(target, timeoutMs);
  const clock = new FakeClock();
  const probe = new UsageProbe({ ...mounts, usage }, clock, () => undefined);
  const ask = async () => {
    await clock.advance(60_000);
    // Whoever has waited once gets what is known at once: the answer comes later.
    await probe.usage('key', '/srv/share', 'cifs');
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    return probe.isInvalid('key');
  };
  assert.equal(await ask(), false);
  ended = new Promise(() => undefined);
  assert.equal(await ask(), true, 'the child that asked cannot be killed');
  [isSlow, ended] = [false, Promise.resolve()];
  const other = new UsageProbe({ ...mounts, usage }, clock, () => undefined);
  await other.usage('key', '/srv/share', 'cifs');
  assert.equal(other.isInvalid('key'), true);
});
