import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { parseSmbPath } from '#storage/smb.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const volume = (fstype: string, label: string): FakeVolume => ({
  ...{ fstype, uuid: `u-${label}`, label, files: new Map() },
});
const stick: FakeDisk = {
  ...{ serial: 'S1', model: 'Acme', transport: 'usb' },
  volumes: [volume('ext4', 'STICK')],
};

/** A machine that has just booted, with a stick in it and a share that was mounted before. */
async function booted() {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const store = quickStore();
  machine.plug(stick);
  machine.shares.set('//nas/public', volume('cifs', 'public'));
  machine.servers.add('nas');
  const before = rig({ machine, store });
  await before.storage.start();
  await before.storage.shares.mountSmb(parseSmbPath('//nas/public'), undefined);
  await before.storage.close();
  machine.forgetWatchers();
  machine.reboot();
  return { machine, store };
}

test('mounts are called ready once, when the disks and the shares of the last boot have been tried', async () => {
  const { machine, store } = await booted();
  const { promise: dial, resolve: answer } = Promise.withResolvers<boolean>();
  const { storage, ready } = rig({ machine, store, bootId: 'boot-2', network: { answers: () => dial } });
  const start = storage.start();
  await storage.local.settled();
  const targets = () => machine.entries().map((entry) => entry.target);
  assert.deepEqual(targets(), ['/', `${shareRoot}/STICK`]);
  assert.equal(ready(), 0, 'a share is still being tried');
  answer(true);
  await start;
  assert.deepEqual(targets(), ['/', `${shareRoot}/STICK`, `${shareRoot}/public`]);
  assert.equal(ready(), 1);
  await storage.local.settled();
  await storage.shares.tend();
  assert.equal(ready(), 1);
  await storage.close();
});

test('a disk that does not mount and a server that is off keep nobody waiting for ever', async () => {
  const { machine, store } = await booted();
  machine.unplug(stick);
  machine.plug({ ...stick, volumes: [{ ...volume('ext4', 'Broken'), broken: 'mount: wrong fs type' }] });
  machine.servers.delete('nas');
  const { storage, ready, problems } = rig({ machine, store, bootId: 'boot-2' });
  await storage.start();
  assert.equal(ready(), 1);
  const codes = problems().map(({ code }) => code);
  assert.deepEqual(codes.includes('mount_dead'), true, codes.join());
  await storage.close();
});
