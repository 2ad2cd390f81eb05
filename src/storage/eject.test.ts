import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import type { Mounts } from '#host/mounts.ts';
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
