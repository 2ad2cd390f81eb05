import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';
import { disk, isCalled, remade, targets, volume, wish, world } from '../../tests/support/provision-rig.ts';

for (const [at, name] of [
  [1, 'partition'],
  [2, 'format'],
] as const) {
  test(`${name}, gone on with after a kill, waits for the programs that outlived the daemon`, async () => {
    const machine = new FakeMachine(['/', '/olares', shareRoot]);
    machine.plug(disk);
    const calls: string[] = [];
    const { promise: quiet, resolve: end } = Promise.withResolvers<void>();
    const { storage } = rig({
      machine,
      store: quickStore(),
      disks: {
        quiet: () => {
          calls.push('quiet');
          return quiet;
        },
        hold: async () => {
          calls.push('hold');
          throw new Error('enough');
        },
      },
    });
    const input = {
      disk: 'Acme_S1',
      filesystem: 'ext4',
      label: 'Vault',
      confirm: 'S1',
      wipe: false,
    } as const;
    const [found] = storage.seen().disks;
    const { serial, device } = found ?? storage.diskById(input.disk);
    const context = {
      ...{ jobId: '1', input, signal: new AbortController().signal },
      checkpoint: { layout: {}, serial, size: device.size, appearance: 'another' },
      remember: () => undefined,
      progress: () => undefined,
    };
    const resumed = storage.provisioner.definition().phases(input)[at]?.resume?.(context);
    const refused = assert.rejects(async () => resumed, /enough/);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(calls, ['quiet'], 'the disk is not looked at while it is written to');
    end();
    await refused;
    assert.deepEqual(calls, ['quiet', 'hold']);
  });
}

test('a disk that somebody took after the check is called in use, and nothing is written', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  machine.plug(disk);
  const written: string[] = [];
  const note = (what: string) => async () => void written.push(what);
  const claim = () => Promise.reject(Object.assign(new Error('EBUSY'), { code: 'EBUSY' }));
  const disks = { claim, wipe: note('wipe'), partition: note('partition') };
  const { storage } = rig({ machine, store: quickStore(), disks });
  const input = { disk: 'Acme_S1', filesystem: 'ext4', label: 'Vault', confirm: 'S1', wipe: true } as const;
  const { serial, device } = storage.diskById(input.disk);
  const context = {
    ...{ jobId: '1', input, signal: new AbortController().signal },
    checkpoint: { layout: {}, serial, size: device.size, appearance: device.sequence, boot: 'boot-1' },
    remember: () => undefined,
    progress: () => undefined,
  };
  const [, partition] = storage.provisioner.definition().phases(input);
  await assert.rejects(
    async () => partition?.run(context),
    (error) => isFault(error) && error.code === 'disk_in_use' && /held open/.test(error.message),
  );
  assert.deepEqual(written, []);
});

test('a job that is found again before its disk waits for it, and says so when it does not come', async () => {
  for (const comes of [true, false]) {
    const machine = new FakeMachine(['/', '/olares', shareRoot]);
    const calls: string[] = [];
    const quiet = async () => {
      calls.push('quiet');
      throw new Error('enough');
    };
    const { storage, clock } = rig({ machine, store: quickStore(), disks: { quiet } });
    await storage.start();
    const input = {
      disk: 'Acme_S1',
      filesystem: 'ext4',
      label: 'Vault',
      confirm: 'S1',
      wipe: false,
    } as const;
    const context = {
      ...{
        jobId: '1',
        input,
        signal: new AbortController().signal,
        checkpoint: { layout: {}, serial: 'S1', size: 1 << 30 },
      },
      remember: () => undefined,
      progress: () => undefined,
    };
    const [, partition] = storage.provisioner.definition().phases(input);
    const refused = assert.rejects(
      async () => partition?.resume?.(context),
      comes ? /enough/ : isCalled('disk_changed', /not there any more/),
    );
    await storage.local.settled();
    assert.deepEqual(calls, []);
    if (comes) machine.plug(disk);
    await clock.advance(comes ? 1000 : 121_000);
    await refused;
    assert.deepEqual(calls, comes ? ['quiet'] : []);
    await storage.close();
  }
});

test('who is about to erase a disk reads what will be lost, in the preconditions and in the steps', async () => {
  const { storage } = world({ ...disk, volumes: [volume('u1', 'Holiday 2019')] }, () => ({}));
  const blank = (await storage.provisioner.preconditions(wish)).find(({ name }) => name === 'blank');
  assert.deepEqual(
    [blank?.ok, blank?.reason],
    [true, 'lost will be: partition table gpt; ext4 called "Holiday 2019" on /dev/sda1'],
  );
  const steps = storage.provisioner.definition().phases(wish);
  assert.ok(steps.some(({ does }) => /Acme S1, \/dev\/sda claimed, .*; lost is .*"Holiday 2019"/.test(does)));
});

test('a disk that something holds, unseen by sysfs, is called in use before it is asked for twice', async () => {
  const claim = () => Promise.reject(Object.assign(new Error('EBUSY'), { code: 'EBUSY' }));
  const { check, context } = world({ ...disk, volumes: [volume('u1', 'TANK')] }, () => ({ claim }));
  await assert.rejects(async () => check.run(context), isCalled('disk_in_use', /held open/));
});

test('a disk that does not answer is refused for that, with wipe too, and no thread of ours waits for it', async () => {
  const hung = new ExecError({
    ...{ file: 'wipefs', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' },
  });
  const opened: string[] = [];
  const claim = async (node: string) => {
    opened.push(node);
    return { release: async () => undefined };
  };
  const { check, context } = world({ ...disk, volumes: [volume('u1', 'Vault')] }, () => ({
    claim,
    signatures: () => Promise.reject(hung),
  }));
  await assert.rejects(async () => check.run(context), isCalled('impossible', /could not be read: wipefs/));
  assert.deepEqual(opened, []);
});

test('a disk that takes the place of another one while its table is read is not formatted', async () => {
  const formatted: string[] = [];
  const made: FakeDisk = { ...disk, volumes: [volume('', '')] };
  const other: FakeDisk = { ...disk, volumes: [volume('u9', 'Photos')] };
  const { format, context } = world(made, (machine) => ({
    probe: async () => {
      machine.unplug(made);
      machine.plug(other);
      return { ID_PART_TABLE_UUID: 't' };
    },
    format: async (node) => void formatted.push(node),
  }));
  context.remember({ layout: { tableUuid: 'T' }, serial: 'S1', size: 1 << 30, appearance: '1' });
  await assert.rejects(async () => format.run(context), isCalled('disk_changed', /exchanged/));
  assert.deepEqual(formatted, []);
});

test('a disk that is erased and made anew under the same name gets the same path', async () => {
  const before: FakeDisk = { ...disk, transport: 'usb', volumes: [volume('u1', 'Vault')] };
  const after: FakeDisk = { ...before, volumes: [volume('u2', 'Vault')] };
  const { machine, storage, check, partition, mount, context } = world(before, remade(before, after));
  await storage.start();
  const [row] = storage.registry.all();
  assert.ok(row);
  await storage.ejector.eject(row, false);
  await check.run(context);
  await partition.run(context);
  await mount.run(context);
  assert.deepEqual(targets(machine), ['/', `${shareRoot}/Vault`]);
  await storage.close();
});

test('what was made after a kill is mounted although what was there before had been ejected', async () => {
  const before: FakeDisk = { ...disk, transport: 'usb', volumes: [volume('u1', 'OLD')] };
  const { machine, storage, mount, context } = world(before, () => ({}));
  await storage.start();
  const [row] = storage.registry.all();
  assert.ok(row);
  await storage.ejector.eject(row, false);
  const ejectedRow = storage.registry.get(row.identity);
  assert.ok(ejectedRow?.heldOff !== undefined);
  // As if the daemon had been killed between erasing the disk and forgetting what was on it.
  storage.registry.forget(row.identity);
  storage.registry.put({ ...ejectedRow, identity: 'fs:erased:S1' });
  context.remember({ serial: 'S1', size: 1 << 30 });
  await mount.run(context);
  assert.deepEqual(targets(machine), ['/', `${shareRoot}/Vault`]);
  await storage.close();
});

test('a disk that is not mounted in the end says why', async () => {
  const { machine, mount, context } = world({ ...disk, volumes: [volume('u1', 'Vault')] }, () => ({}));
  machine.fstab.set('/srv/elsewhere', 'u1');
  context.remember({ serial: 'S1', size: 1 << 30 });
  await assert.rejects(
    async () => mount.run(context),
    isCalled('mount_failed', /elsewhere: mount point does not exist/),
  );
});

test('a stick that was left alone so that it could be erased is mounted when it has been', async () => {
  const before: FakeDisk = { ...disk, transport: 'usb', volumes: [volume('u1', 'OLD')] };
  const after: FakeDisk = { ...before, volumes: [volume('u2', 'Vault')] };
  const { machine, storage, check, partition, mount, context } = world(before, remade(before, after));
  await storage.start();
  await assert.rejects(async () => check.run(context), isCalled('disk_in_use', /mounted at .*OLD/));
  storage.setPolicy(storage.diskById('Acme_S1'), 'ignore');
  machine.unplug(before);
  await storage.local.settled();
  machine.plug(before);
  await storage.local.settled();
  await check.run(context);
  await partition.run(context);
  await mount.run(context);
  assert.deepEqual(targets(machine), ['/', `${shareRoot}/Vault`]);
  assert.equal((await storage.disks())[0]?.policy, 'auto');
  await storage.close();
});

test('a tool that fails half-way is no fault of the daemon, and what to do is said', async () => {
  const failed = new ExecError({
    ...{ file: 'flock', args: [], reason: 'exit', exitCode: 1, stdout: '' },
    stderr: 'mkfs.ext4: Input/output error while writing out and closing file system',
  });
  const { format, context } = world({ ...disk, volumes: [volume('', '')] }, () => ({
    probe: async () => ({ ID_PART_TABLE_UUID: 't' }),
    format: () => Promise.reject(failed),
  }));
  context.remember({ layout: { tableUuid: 'T' }, serial: 'S1', size: 1 << 30, appearance: '1' });
  await assert.rejects(
    async () => format.run(context),
    (error) =>
      isCalled('impossible', /Input.output/)(error) &&
      isFault(error) &&
      /wipe: true/.test(error.details.remedy ?? ''),
  );
});

test('what was made can be written to by the user that pods run as, and nobody else’s folder becomes his', async () => {
  for (const [fstype, policy, expected] of [
    ['ext4', 'auto', [`${shareRoot}/Vault 1000:1000`]],
    ['exfat', 'auto', []],
    ['ext4', 'read-only', []],
  ] as const) {
    const given: string[] = [];
    const made: FakeDisk = { ...disk, volumes: [{ ...volume('u1', 'Vault'), fstype }] };
    const { storage, mount, context } = world(made, () => ({
      give: async (folder, { uid, gid }) => void given.push(`${folder} ${uid}:${gid}`),
    }));
    storage.setPolicy(storage.diskById('Acme_S1'), policy);
    context.remember({ serial: 'S1', size: 1 << 30 });
    await mount.run(context);
    assert.deepEqual(given, expected);
    await storage.close();
  }
});

test('a partition that cannot be read is not taken for an empty one when a format is gone on with', async () => {
  const written: string[] = [];
  const unread = new ExecError({
    ...{ file: 'wipefs', args: [], reason: 'exit', exitCode: 1, stdout: '' },
    stderr: 'wipefs: error: /dev/sda1: probing initialization failed: Input/output error',
  });
  const { storage, context } = world({ ...disk, volumes: [volume('', '')] }, () => ({
    // blkid answers 2 for what it cannot read and for what is empty (blkid(8)).
    probe: async (node) => (node === '/dev/sda' ? { ID_PART_TABLE_UUID: 't' } : {}) as Record<string, string>,
    signatures: (node) => (node === '/dev/sda1' ? Promise.reject(unread) : Promise.resolve([])),
    format: async (node) => void written.push(node),
    partition: async (node) => void written.push(node),
  }));
  const [, partition, format] = storage.provisioner.definition().phases(wish);
  context.remember({ layout: { tableUuid: 'T', fsUuid: 'F' }, serial: 'S1', size: 1 << 30, appearance: '1' });
  for (const phase of [partition, format])
    await assert.rejects(async () => phase?.resume?.(context), isCalled('impossible', /Input.output/));
  assert.deepEqual(written, []);
});

test('a disk that is too small for the file system is refused with the size that it takes', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  machine.plug(disk);
  const { devices } = machine.ports();
  for (const [filesystem, least] of [
    ['ext4', 66],
    ['exfat', 66],
    ['btrfs', 258],
    ['xfs', 306],
  ] as const) {
    for (const [size, isEnough] of [
      [least * 2 ** 20 - 512, false],
      [least * 2 ** 20, true],
    ] as const) {
      const list = () => devices.list().map((device) => ({ ...device, size }));
      const { storage } = rig({
        machine,
        store: quickStore(),
        real: { devices: { ...devices, list } },
      });
      const refused = (await storage.provisioner.preconditions({ ...wish, filesystem })).filter(
        ({ ok }) => !ok,
      );
      const words = `${size} bytes are too few: ${filesystem} needs a disk of ${least} MiB at least.`;
      assert.deepEqual(
        refused.map(({ reason }) => reason),
        isEnough ? [] : [words],
      );
    }
  }
});
