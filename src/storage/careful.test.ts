import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import type { BlockDevice, Devices } from '#host/udev.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const stick = (serial: string, ...labels: string[]): FakeDisk => ({
  ...{ serial, model: 'Acme', transport: 'usb' },
  volumes: labels.map((label) => ({ fstype: 'ext4', uuid: `u-${label}`, label, files: new Map() })),
});

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
