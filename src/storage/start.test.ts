import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { parseSmbPath } from '#storage/smb.ts';
import { Store } from '#store/store.ts';
import { pass } from '../../tests/support/fake-shares.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const volume = (fstype: string, label: string): FakeVolume => ({
  ...{ fstype, uuid: `u-${label}`, label, files: new Map() },
});
const stick: FakeDisk = {
  ...{ serial: 'S1', model: 'Acme', transport: 'usb' },
  volumes: [volume('ext4', 'STICK')],
};

/** A machine that has just booted, with a stick in it and a share that was mounted before. */
async function booted(store: Store = quickStore()) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
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

/** Listeners for block events that hear nothing and end when the test says so. */
function losable(machine: FakeMachine) {
  const lose: ((reason: string) => void)[] = [];
  const watch = (_onChange: unknown, onLost: (reason: string) => void) => {
    lose.push(onLost);
    return { close: () => undefined };
  };
  return { lose, real: { devices: { ...machine.ports().devices, watch } } };
}

test('a listener for disks that is lost is told, and started again ever more rarely until it stays', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { real, lose } = losable(machine);
  const { storage, clock, problems } = rig({ machine, store: quickStore(), real });
  const isTold = () => problems().some(({ code }) => code === 'device_events_lost');
  await storage.start();
  assert.deepEqual([lose.length, isTold()], [1, false]);
  const waits: number[] = [];
  for (let n = 1; n <= 6; n++) {
    lose.at(-1)?.('it ended');
    assert.equal(isTold(), true);
    let waited = 0;
    for (; lose.length === n; waited += 5000) await clock.advance(5000);
    waits.push(waited / 1000);
  }
  assert.deepEqual(waits, [5, 10, 20, 40, 60, 60]);
  await clock.advance(61_000);
  assert.deepEqual([isTold(), lose.length], [false, 7]);
  lose.at(-1)?.('it ended, long after');
  await clock.advance(5000);
  assert.equal(lose.length, 8);
  await storage.close();
});

test('a stick that came while nobody listened is seen when the listener is back', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { real, lose } = losable(machine);
  const { storage, clock } = rig({ machine, store: quickStore(), real });
  await storage.start();
  lose.at(-1)?.('it ended');
  machine.plug(stick);
  await clock.advance(5000);
  await storage.local.settled();
  assert.ok(machine.entries().some(({ target }) => target === `${shareRoot}/STICK`));
  await storage.close();
});

test('a daemon that began without its store looks after disks and shares as soon as the store is back', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-away-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [disk, data] = [join(folder, 'disk'), join(folder, 'data')];
  mkdirSync(disk);
  symlinkSync(join(disk, 'beosd'), data);
  const first = new Store(join(disk, 'beosd'), Date.now);
  const { machine } = await booted(first);
  first.close();
  renameSync(disk, `${disk}-away`);
  const store = new Store(data, Date.now);
  assert.equal(store.health.durable, false);
  const { storage, clock } = rig({ machine, store, bootId: 'boot-2' });
  await storage.start();
  await pass(clock, 10_000);
  const targets = () => machine.entries().map((entry) => entry.target);
  assert.deepEqual(targets(), ['/'], 'nothing can be remembered, so nothing is mounted');
  renameSync(`${disk}-away`, disk);
  assert.equal(store.recover(), true);
  storage.recovered();
  await pass(clock, 4000);
  assert.ok(targets().includes(`${shareRoot}/public`));
  await pass(clock, 60_000);
  assert.deepEqual(targets().toSorted(), ['/', `${shareRoot}/STICK`, `${shareRoot}/public`]);
  machine.umountForeign(machine.entries().find(({ fstype }) => fstype === 'cifs')?.id ?? Number.NaN);
  await pass(clock, 12_000);
  assert.ok(targets().includes(`${shareRoot}/public`), 'and goes on looking');
  await storage.close();
  store.close();
});

test('a store that cannot be read at the start keeps nobody from looking after the shares later', async () => {
  const { machine, store } = await booted();
  let broken = true;
  const guard = (call: string) => {
    if (broken && call === 'read') throw new Error('SQLITE_IOERR');
  };
  const { storage, clock } = rig({ machine, store, bootId: 'boot-2', guard });
  await storage.start();
  broken = false;
  await pass(clock, 12_000);
  assert.ok(machine.entries().some(({ target }) => target === `${shareRoot}/public`));
  await storage.close();
});
