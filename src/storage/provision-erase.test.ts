import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import type { FakeDisk } from '#host/fake/machine.ts';
import { disk, isCalled, targets, volume, world } from '../../tests/support/provision-rig.ts';

test('a twin in the port of the disk that was provisioned is not mounted in its name, nor given away', async () => {
  const twin: FakeDisk = { ...disk, volumes: [volume('u9', 'Photos')] };
  const given: string[] = [];
  const { machine, storage, mount, context } = world(twin, () => ({
    probe: async () => ({ ID_PART_TABLE_UUID: 'of-the-twin' }),
    give: async (folder) => void given.push(folder),
  }));
  storage.setPolicy(storage.diskById('Acme_S1'), 'ignore');
  context.remember({ serial: 'S1', size: 1 << 30 });
  await assert.rejects(async () => mount.run(context), isCalled('disk_changed', /exchanged/));
  assert.deepEqual([targets(machine), given, storage.registry.all()], [['/'], [], []]);
  assert.equal((await storage.disks())[0]?.policy, 'ignore');
  await storage.close();
});

test('a disk that could not be erased has its partitions back, and what still writes is waited for before', async () => {
  for (const [quiet, erased, code, expected] of [
    ['still writing', '', 'disk_in_use', []],
    ['', 'no room', 'impossible', ['forget', 'recall']],
  ] as const) {
    const calls: string[] = [];
    const said = new ExecError({
      ...{ file: 'wipefs', args: [], reason: 'exit', exitCode: 1, stdout: '', stderr: erased },
    });
    const { check, partition, context } = world({ ...disk, volumes: [volume('u1', 'OLD')] }, () => ({
      quiet: () => (quiet === '' ? Promise.resolve() : Promise.reject(new Error(quiet))),
      forgetPartitions: async () => void calls.push('forget'),
      recallPartitions: async () => void calls.push('recall'),
      wipe: () => Promise.reject(said),
    }));
    await check.run(context);
    await assert.rejects(async () => partition.run(context), isCalled(code, new RegExp(quiet || erased)));
    assert.deepEqual(calls, expected);
  }
});

test('partitions that a killed daemon had let the kernel forget are back when its job is given up', async () => {
  const calls: string[] = [];
  const { partition, context } = world(disk, () => ({
    probe: async () => ({ ID_PART_TABLE_TYPE: 'gpt', ID_PART_TABLE_UUID: 'theirs' }),
    signatures: async () => [{ type: 'gpt', offset: '0x200' }],
    recallPartitions: async (node) => void calls.push(node),
  }));
  context.remember({ serial: 'S1', size: 1 << 30 });
  await assert.rejects(
    async () => partition.resume?.(context),
    isCalled('disk_changed', /was being provisioned when the daemon ended/),
  );
  assert.deepEqual(calls, ['/dev/sda']);
});

test('a disk is claimed from the last look at it until it is erased, and its partitions are forgotten before that', async () => {
  const calls: string[] = [];
  const note = (what: string) => async () => void calls.push(what);
  const { check, partition, context } = world({ ...disk, volumes: [volume('u1', 'OLD')] }, () => ({
    claim: async () => {
      calls.push('claim');
      return { release: note('release') };
    },
    ...{ forgetPartitions: note('forget'), wipe: note('wipe'), partition: note('partition') },
  }));
  await check.run(context);
  calls.length = 0;
  await partition.run(context);
  assert.deepEqual(calls, ['claim', 'forget', 'wipe', 'release', 'partition']);
});

test('a disk with a partition that somebody has open is not erased', async () => {
  const calls: string[] = [];
  const busy = new ExecError({
    ...{ file: 'partx', args: [], reason: 'exit', exitCode: 1, stdout: '' },
    stderr: 'partx: /dev/sda: error deleting partition 1',
  });
  const { check, partition, context } = world({ ...disk, volumes: [volume('u1', 'OLD')] }, () => ({
    claim: async () => ({ release: async () => void calls.push('release') }),
    forgetPartitions: () => Promise.reject(busy),
    wipe: async () => void calls.push('wipe'),
  }));
  await check.run(context);
  calls.length = 0;
  await assert.rejects(
    async () => partition.run(context),
    isCalled('disk_in_use', /partition of it is open/),
  );
  assert.deepEqual(calls, ['release']);
});

test('a stick that a person has formatted while the daemon was down is not mounted before its job has looked at it', async () => {
  const theirs: FakeDisk = { ...disk, transport: 'usb', volumes: [volume('u9', 'Photos')] };
  const { promise: quiet, resolve: end } = Promise.withResolvers<void>();
  const { machine, storage, partition, format, context } = world(theirs, () => ({
    quiet: () => quiet,
    probe: async () => ({ ID_PART_TABLE_TYPE: 'gpt', ID_PART_TABLE_UUID: 'theirs' }),
  }));
  context.remember({ serial: 'S1', size: 1 << 30, appearance: '1' });
  const resumed = [partition, format].map(async (phase) =>
    assert.rejects(async () => phase.resume?.(context), isCalled('disk_changed', /found: .*ext4/)),
  );
  await storage.start();
  assert.deepEqual(targets(machine), ['/']);
  end();
  await Promise.all(resumed);
  await storage.close();
});
