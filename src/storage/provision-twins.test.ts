import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import type { BlockDevice } from '#host/udev.ts';
import type { Checkpoint } from '#jobs/definition.ts';
import { isFault } from '#lib/fault.ts';
import { localDisks } from '#storage/devices.ts';
import { checkedOf, findChecked } from '#storage/provision-target.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const volume = (uuid: string, label: string): FakeVolume => ({
  ...{ fstype: 'ext4', uuid, label, files: new Map() },
});
/** Cheap sticks of one model carry one serial number. */
const stick = (uuid: string, label: string): FakeDisk => ({
  ...{ serial: 'S1', model: 'Acme', transport: 'usb', volumes: [volume(uuid, label)] },
});
const wish = { disk: 'Acme_S1', filesystem: 'ext4', label: 'Vault', confirm: 'S1', wipe: true } as const;

/** A job for the stick that is there, which notes what it writes to which node. */
function world(kept: Checkpoint = {}, machine = new FakeMachine(['/', '/olares', shareRoot])) {
  const written: string[] = [];
  const note = (what: string) => async (node: string) => void written.push(`${what} ${node}`);
  const checkpoint: Record<string, unknown> = { ...kept };
  const tableUuid = () => (checkpoint['layout'] as { tableUuid: string } | undefined)?.tableUuid ?? '';
  const disks = {
    ...{ wipe: note('wipe'), partition: note('partition'), format: note('format') },
    probe: async () => ({ ID_PART_TABLE_UUID: tableUuid() }),
  };
  const parts = rig({ machine, store: quickStore(), disks });
  const context = {
    ...{ jobId: '1', input: wish, signal: new AbortController().signal, checkpoint },
    remember: (patch: Checkpoint) => void Object.assign(checkpoint, patch),
    progress: () => undefined,
  };
  const [check, partition, format, mount] = parts.storage.provisioner.definition().phases(wish);
  assert.ok(check && partition && format && mount);
  return { ...parts, machine, written, context, check, partition, format, mount };
}

const targets = (machine: FakeMachine) =>
  machine.entries().flatMap(({ target, source }) => (target === '/' ? [] : [`${target} on ${source}`]));

const isChanged = (words: RegExp) => (error: unknown) =>
  isFault(error) && error.code === 'disk_changed' && words.test(error.message);

test('a stick is provisioned to the end although another one that calls itself the same comes meanwhile', async () => {
  const { machine, storage, written, context, check, partition, format, mount } = world();
  machine.plug(stick('u1', 'Vault'));
  await check.run(context);
  machine.plug(stick('u9', 'Photos'));
  await storage.local.settled();
  assert.deepEqual(targets(machine), [`${shareRoot}/Photos on /dev/sdb1`], 'it is kept from the automounter');
  await partition.run(context);
  await format.run(context);
  assert.deepEqual(written, ['wipe /dev/sda', 'partition /dev/sda', 'format /dev/sda1']);
  await mount.run(context);
  assert.equal(targets(machine)[1], `${shareRoot}/Vault on /dev/sda1`);
  await storage.close();
});

test('the twin of a stick that was pulled is never written to, in its place neither', async () => {
  for (const isFirst of [true, false]) {
    const { machine, written, context, check, partition, format } = world();
    const [one, twin] = [stick('u1', 'Vault'), stick('u9', 'Photos')];
    machine.plug(one);
    await check.run(context);
    if (isFirst) machine.plug(twin);
    machine.unplug(one);
    if (!isFirst) machine.plug(twin);
    for (const phase of [partition, format])
      await assert.rejects(async () => phase.run(context), isChanged(/pulled or exchanged/));
    assert.deepEqual(written, []);
  }
});

test('of two sticks that call themselves the same since they were listed none is taken, and both are named', async () => {
  const { machine, written, context, check } = world();
  machine.plug(stick('u1', 'Vault'));
  machine.plug(stick('u9', 'Photos'));
  await assert.rejects(
    async () => check.run(context),
    (error) =>
      isChanged(/Several disks call themselves Acme_S1/)(error) &&
      isFault(error) &&
      /Acme_S1@\S*sda, Acme_S1@\S*sdb/.test(error.details.remedy ?? ''),
  );
  assert.deepEqual(written, []);
});

test('a job that is found again, with two sticks that could be meant, writes to neither and says so', {
  timeout: 10_000, // it would wait for a clock that stands still
}, async () => {
  const before = world();
  before.machine.plug(stick('', ''));
  await before.check.run(before.context);
  before.machine.reboot();
  before.machine.plug(stick('', ''));
  const { written, context, partition, format } = world(
    { ...before.context.checkpoint, boot: 'boot-0' },
    before.machine,
  );
  const refused = isChanged(/Several disks call themselves Acme_S1 \(.*nothing tells which/);
  for (const phase of [partition, format]) await assert.rejects(async () => phase.resume?.(context), refused);
  const anew = isChanged(/The machine was started anew/);
  for (const phase of [partition, format]) await assert.rejects(async () => phase.run(context), anew);
  assert.deepEqual(written, []);
});

interface Like {
  readonly port?: string;
  readonly name?: string;
  readonly sequence?: string;
  readonly table?: string;
  readonly serial?: string;
}

function device({ port = 'usb-1', name = 'sda', sequence = '1', table, serial = 'S1' }: Like): BlockDevice {
  const properties = { ID_SERIAL: 'Acme', ID_SERIAL_SHORT: serial, ID_PATH: port };
  return {
    ...{ name, node: `/dev/${name}`, dev: `8:${name}`, kind: 'disk', parent: undefined, size: 1 << 30 },
    ...{ sysPath: `/sys/devices/usb1/${port}/block/${name}`, readOnly: false, removable: true },
    ...{ holders: [], slaves: [], links: [], sequence },
    properties: { ...properties, ...(table === undefined ? {} : { ID_PART_TABLE_UUID: table }) },
  };
}

const twin: Like = { port: 'usb-2', name: 'sdb', sequence: '2' };

/** What is there, on the same boot or another one, and the node that is taken, or the reason why none is. */
const cases: readonly [string, readonly Like[], string, boolean, string][] = [
  ['itself', [{}], 'b', true, '/dev/sda'],
  ['itself, with a twin', [{}, twin], 'b', true, '/dev/sda'],
  [
    'itself, with a twin that bears a copy of its table',
    [{}, { ...twin, table: 'T' }],
    'b',
    true,
    '/dev/sda',
  ],
  ['its twin alone', [twin], 'b', true, 'pulled or exchanged'],
  ['its twin in its place', [{ ...twin, port: 'usb-1', name: 'sda' }], 'b', true, 'pulled or exchanged'],
  ['another one', [{ serial: 'S2' }], 'b', true, 'pulled or exchanged'],
  ['another one', [{ serial: 'S2' }], 'b', false, 'not there any more'],
  ['itself, replugged', [{ sequence: '7' }], 'b', false, '/dev/sda'],
  ['itself, replugged, with a twin', [{ sequence: '7' }, twin], 'b', false, 'Several disks'],
  ['itself at another boot', [{ name: 'sdc' }], 'c', false, '/dev/sdc'],
  ['a blank one in another port', [{ ...twin, sequence: '1' }], 'c', false, 'not where the one was'],
  ['one with its table in another port', [{ ...twin, table: 't' }], 'c', false, '/dev/sdb'],
  ['two, one of them with its table', [{}, { ...twin, table: 'T' }], 'c', false, '/dev/sdb'],
  ['two with its table', [{ table: 'T' }, { ...twin, table: 'T' }], 'c', false, 'Several disks'],
  ['two blank ones', [{}, twin], 'c', false, 'Several disks'],
  ['the same number by chance', [{}], 'c', true, 'started anew'],
  ['none', [], 'c', true, 'not there any more'],
  ['its table, at another boot', [{ table: 'T' }, twin], 'c', true, '/dev/sda'],
];

for (const [what, devices, boot, strict, expected] of cases) {
  const when = `${boot === 'b' ? 'at the same boot' : 'at another boot'}, ${strict ? 'gone on with' : 'found again'}`;
  test(`the disk of a job among ${what}, ${when}: ${expected}`, () => {
    const [first] = localDisks([device({})], [], []);
    assert.ok(first);
    const disks = localDisks(devices.map(device), [], []);
    const found = findChecked(disks, 'Acme', checkedOf(first, 'b'), { boot, strict, tableUuid: 'T' });
    assert.match(found.disk?.device.node ?? ('why' in found ? found.why : ''), new RegExp(expected));
  });
}

test('the number in a job of an older daemon, which may be of another start, is no leave to write to a disk', () => {
  const old = { serial: 'S1', size: 1 << 30, appearance: '1' };
  const found = (devices: readonly Like[], strict: boolean) =>
    findChecked(localDisks(devices.map(device), [], []), 'Acme', old, { boot: 'b', strict, tableUuid: 'T' })
      .disk?.device.node;
  assert.equal(found([{}], true), undefined);
  assert.equal(found([{}, { ...twin, sequence: '1' }], true), undefined);
  assert.equal(found([{ table: 'T' }], true), '/dev/sda');
  assert.equal(found([{}], false), '/dev/sda', 'to be looked into, as after a crash');
  assert.equal(found([{ sequence: '2' }], false), '/dev/sda');
});
