import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import type { Mounts } from '#host/mounts.ts';
import type { Checkpoint } from '#jobs/definition.ts';
import { isFault } from '#lib/fault.ts';
import type { Storage } from '#storage/storage.ts';
import { quickStore, type RigOptions, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const stick = (serial: string, ...labels: string[]): FakeDisk => ({
  ...{ serial, model: 'Acme', transport: 'usb' },
  volumes: labels.map((label) => ({ fstype: 'ext4', uuid: `u-${label}`, label, files: new Map() })),
});
const busy = Object.assign(new Error('EBUSY'), { code: 'EBUSY' });

type Ports = (mounts: Mounts) => Partial<RigOptions>;

async function world(disk: FakeDisk, ports: Ports = () => ({})) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const options = ports(machine.ports().mounts);
  let stopped = 0;
  const powerDown = async () => ++stopped > 0;
  const disks = { powerDown, ...options.disks };
  machine.plug(disk);
  const parts = rig({ machine, store: quickStore(), ...options, disks });
  await parts.storage.start();
  return { ...parts, machine, stopped: () => stopped };
}

async function eject(storage: Storage, name: string) {
  const row = storage.registry.byName(name);
  assert.ok(row);
  return storage.ejector.eject(row, false);
}

test('a stick with two file systems may be pulled once both are unmounted, and not before', async () => {
  const { storage, machine, stopped } = await world(stick('S1', 'ONE', 'TWO'));
  const first = await eject(storage, 'ONE');
  assert.deepEqual([first.safe, first.poweredDown, stopped()], [false, false, 0]);
  assert.deepEqual(
    first.holders.map((holder) => holder.path),
    [`${shareRoot}/TWO`],
    'it says what is in the way',
  );
  await storage.local.settled();
  assert.deepEqual(
    machine.entries().map((entry) => entry.target),
    ['/', `${shareRoot}/TWO`],
  );
  const second = await eject(storage, 'TWO');
  assert.deepEqual([second.safe, second.poweredDown, second.holders], [true, true, []]);
  assert.equal(stopped(), 1);
  await storage.close();
});

test('a stick is neither called safe nor stopped while a pod still writes to its other partition', async () => {
  const free = { release: async () => undefined };
  // The kernel gives the disk to nobody for himself while one of its partitions is in use.
  const claim = async (node: string) => (node === '/dev/sda' ? Promise.reject(busy) : free);
  const { storage, stopped } = await world(stick('S1', 'ONE'), () => ({ disks: { claim } }));
  const first = await eject(storage, 'ONE');
  assert.deepEqual([first.safe, first.poweredDown, stopped()], [false, false, 0]);
  await storage.close();
});

test('a stick that is pulled while it is being ejected is detached when that has ended, without another event', async () => {
  const disk = stick('S1', 'STICK');
  const began = Promise.withResolvers<void>();
  const flushing = Promise.withResolvers<void>();
  const flush = () => {
    began.resolve();
    return flushing.promise;
  };
  const { storage, machine } = await world(disk, (mounts) => ({ real: { mounts: { ...mounts, flush } } }));
  const isBusy = (error: unknown) => isFault(error) && error.code === 'mount_busy';
  const refused = assert.rejects(eject(storage, 'STICK'), isBusy);
  await began.promise;
  machine.unplug(disk);
  await storage.local.settled();
  assert.equal(machine.entries().length, 2, 'who ejects has the say');
  flushing.reject(new Error('EIO'));
  await refused;
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(
    machine.entries().map((entry) => entry.target),
    ['/'],
  );
  await storage.close();
});

/** A dock with a stick in bay 1 and an empty disk in bay 2, and a job that provisions that one. */
async function dock(ports?: Ports) {
  const parts = await world(stick('S1', 'STICK'), ports);
  parts.machine.plug({ ...stick('S2'), model: 'Bay' });
  const input = { disk: 'Bay_S2', filesystem: 'ext4', label: 'Vault', confirm: 'S2', wipe: true } as const;
  const definition = parts.storage.provisioner.definition();
  const checkpoint: Record<string, unknown> = {};
  const context = {
    ...{ jobId: '7', input, checkpoint, signal: new AbortController().signal },
    remember: (patch: Checkpoint) => void Object.assign(checkpoint, patch),
    progress: () => undefined,
  };
  const [check] = definition.phases(input);
  const end = () => definition.finished?.(input, { jobId: '7', state: 'failed' });
  return { ...parts, check: () => check?.run(context), end };
}

test('a dock is not stopped while its other bay is being provisioned, nor between the steps of that', async () => {
  const { storage, stopped, check, end } = await dock();
  await check();
  const ejected = await eject(storage, 'STICK');
  assert.deepEqual([ejected.safe, ejected.poweredDown, stopped()], [true, false, 0]);
  await end();
  storage.registry.update('fs:u-STICK:S1', { heldOff: undefined });
  await storage.local.settled();
  const later = await eject(storage, 'STICK');
  assert.deepEqual([later.poweredDown, stopped()], [true, 1], 'the job has ended');
  await storage.close();
});

test('no disk of a dock is provisioned while the dock is being stopped', async () => {
  const began = Promise.withResolvers<void>();
  const stopping = Promise.withResolvers<boolean>();
  const powerDown = () => {
    began.resolve();
    return stopping.promise;
  };
  const { storage, check } = await dock(() => ({ disks: { powerDown } }));
  const ejected = eject(storage, 'STICK');
  await began.promise;
  const isInUse = (error: unknown) =>
    isFault(error) && error.code === 'disk_in_use' && /being stopped/.test(error.message);
  await assert.rejects(async () => check(), isInUse);
  stopping.resolve(true);
  assert.equal((await ejected).poweredDown, true);
  await check();
  await storage.close();
});

test('a stick that is detached although it is in use is written out before that, and never called safe', async () => {
  const calls: string[] = [];
  const { storage, events, stopped } = await world(stick('S1', 'STICK'), (mounts) => ({
    real: {
      mounts: {
        ...mounts,
        flush: async (path) => void calls.push(`flush ${path}`),
        umount: (path, how) => {
          calls.push(`umount ${path} ${how.lazy ? 'lazily' : 'gently'}`);
          return mounts.umount(path, how);
        },
      },
    },
  }));
  const row = storage.registry.byName('STICK');
  assert.ok(row);
  const path = `${shareRoot}/STICK`;
  const ejected = await storage.ejector.eject(row, true);
  assert.deepEqual(calls, [`flush ${path}`, `umount ${path} lazily`]);
  assert.deepEqual([ejected.safe, ejected.poweredDown, stopped()], [false, false, 0]);
  const last = { action: 'ejected', kind: 'usb', path, safe: false };
  assert.deepEqual(
    events.filter(({ action }) => action === 'ejected'),
    [last],
  );
  await storage.close();
});

test('a stick that does not answer is detached by force all the same', async () => {
  const flush = () => Promise.reject(new Error('EIO'));
  const { storage, machine } = await world(stick('S1', 'STICK'), (mounts) => ({
    real: { mounts: { ...mounts, flush } },
  }));
  const row = storage.registry.byName('STICK');
  assert.ok(row);
  await storage.ejector.eject(row, true);
  assert.deepEqual(
    machine.entries().map(({ target }) => target),
    ['/'],
  );
  await storage.close();
});

test('who listens hears that a stick was ejected, and whether it may be pulled', async () => {
  const { storage, events } = await world(stick('S1', 'ONE', 'TWO'));
  await eject(storage, 'ONE');
  await eject(storage, 'TWO');
  const ejected = { action: 'ejected', kind: 'usb' };
  assert.deepEqual(
    events.filter(({ action }) => action === 'ejected'),
    [
      { ...ejected, path: `${shareRoot}/ONE`, safe: false },
      { ...ejected, path: `${shareRoot}/TWO`, safe: true },
    ],
  );
  await storage.close();
});
