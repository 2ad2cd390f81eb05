import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const disk: FakeDisk = { serial: 'S1', model: 'Acme', transport: 'sata', volumes: [] };

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
    checkpoint: { layout: {}, serial, size: device.size, appearance: device.sequence },
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
    const quiet = async () => void calls.push('quiet');
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
        checkpoint: { layout: {}, serial: 'S2' },
      },
      remember: () => undefined,
      progress: () => undefined,
    };
    const [, partition] = storage.provisioner.definition().phases(input);
    const refused = assert.rejects(
      async () => partition?.resume?.(context),
      (error) => isFault(error) && /exchanged|not there any more/.test(error.message),
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
