import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const volume = (uuid: string, label: string): FakeVolume => ({
  ...{ uuid, label, fstype: 'ext4', files: new Map() },
});
/** Cheap sticks of one model carry one serial number, or none. */
const stick = (...volumes: FakeVolume[]): FakeDisk => ({
  ...{ serial: '0123456789', model: 'Acme', transport: 'usb', volumes },
});

async function world(t: TestContext, ...disks: FakeDisk[]) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  for (const disk of disks) machine.plug(disk);
  const parts = rig({ machine, store: quickStore() });
  t.after(() => parts.storage.close());
  await parts.storage.start();
  /** What is mounted, as `name on node`, in the order of mounting. */
  const mounted = async () => {
    await parts.storage.local.settled();
    const own = machine.entries().filter((entry) => entry.target !== '/');
    return own.map((entry) => `${entry.target.slice(shareRoot.length + 1)} on ${entry.source}`);
  };
  return { ...parts, machine, mounted };
}

test('two partitions that are copies of one another are both mounted, and stay so', async (t) => {
  const { mounted, machine } = await world(t, stick(volume('same', 'SYSTEM'), volume('same', 'SYSTEM')));
  assert.deepEqual(await mounted(), ['SYSTEM on /dev/sda1', 'SYSTEM-2 on /dev/sda2']);
  const before = machine.entries();
  await mounted();
  assert.deepEqual(machine.entries(), before);
});

test('the two disks of a dock that hold the same are both mounted, and the first one stays where it was', async (t) => {
  // udev: two disks of one USB device have ID_SERIAL with their LUN, and the same ID_SERIAL_SHORT.
  const bay = (lun: number): FakeDisk => ({ ...stick(volume('same', 'COPY')), model: `Dock_0:${lun}` });
  const { mounted, machine } = await world(t, bay(0));
  assert.deepEqual(await mounted(), ['COPY on /dev/sda1']);
  const before = machine.entries();
  machine.plug(bay(1));
  assert.deepEqual(await mounted(), ['COPY on /dev/sda1', 'COPY-2 on /dev/sdb1']);
  assert.deepEqual(machine.entries().slice(0, 2), before, 'its users have not lost it for a moment');
});

test('sticks of one serial number keep their paths, in whatever order and company they are plugged in', async (t) => {
  const [one, two] = [stick(volume('u1', 'ONE')), stick(volume('u2', 'TWO'))];
  const { mounted, machine } = await world(t, one);
  const names = async () => (await mounted()).map((each) => each.split(' ')[0]).sort();
  machine.plug(two);
  assert.deepEqual(await names(), ['ONE', 'TWO']);
  for (const order of [[two, one], [two], [one], [one, two]]) {
    for (const disk of [one, two]) machine.unplug(disk);
    assert.deepEqual(await names(), []);
    for (const disk of order) {
      machine.plug(disk);
      await mounted();
    }
    assert.deepEqual(await names(), order.map((disk) => (disk === one ? 'ONE' : 'TWO')).sort());
  }
});

test('a stick that was ejected stays so when one that looks the same was plugged in meanwhile', async (t) => {
  const { mounted, machine, storage } = await world(t, stick(volume('same', 'COPY')));
  machine.plug(stick(volume('same', 'COPY')));
  await mounted();
  const row = storage.registry.byName('COPY');
  assert.ok(row);
  const ejected = await storage.ejector.eject(row, false);
  assert.equal(ejected.safe, true);
  assert.deepEqual(await mounted(), ['COPY-2 on /dev/sdb1']);
});

test('a stick that is to be left alone is left alone beside one of the same serial number, and without it', async (t) => {
  const [one, two] = [stick(volume('u1', 'ONE')), stick(volume('u2', 'TWO'))];
  const { mounted, machine, storage } = await world(t, one);
  const replug = async (...disks: FakeDisk[]) => {
    for (const disk of [one, two]) machine.unplug(disk);
    await mounted();
    for (const disk of disks) machine.plug(disk);
    return mounted();
  };
  const setPolicy = (node: string, policy: 'auto' | 'ignore') => {
    const disk = storage.seen().disks.find((each) => each.device.node === node);
    assert.ok(disk);
    storage.setPolicy(disk, policy);
  };
  setPolicy('/dev/sda', 'ignore');
  assert.deepEqual(
    await replug(one, two),
    [],
    'what was said of one holds for both until they are told apart',
  );
  setPolicy('/dev/sdb', 'auto');
  assert.deepEqual(await mounted(), ['TWO on /dev/sdb1']);
  setPolicy('/dev/sda', 'auto');
  setPolicy('/dev/sdb', 'ignore');
  assert.deepEqual(await replug(one, two), ['ONE on /dev/sda1']);
});

test('what is said of one of two sticks of the same serial number holds for it when it is alone', async (t) => {
  const [one, two] = [stick(volume('u1', 'ONE')), stick(volume('u2', 'TWO'))];
  const { mounted, machine, storage } = await world(t, one, two);
  const [first] = storage.seen().disks;
  assert.ok(first);
  storage.setPolicy(first, 'ignore');
  for (const disk of [one, two]) machine.unplug(disk);
  await mounted();
  machine.plug(one);
  assert.deepEqual(await mounted(), []);
});
