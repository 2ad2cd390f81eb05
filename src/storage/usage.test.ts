import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { UsageProbe, usageStat } from '#storage/usage.ts';

const failed = (reason: ExecError['reason'], stderr = '') =>
  new ExecError({
    ...{ file: 'stat', args: [], exitCode: reason === 'exit' ? 1 : null, stdout: '', stderr },
    reason,
  });

/** A mount that is asked for its numbers every minute; `error` is what comes of it, undefined: the numbers. */
function asked() {
  const { mounts } = new FakeMachine().ports();
  const clock = new FakeClock();
  const changes: boolean[] = [];
  const state: { error: Error | undefined } = { error: undefined };
  const usage: typeof mounts.usage = (target, timeoutMs) =>
    state.error === undefined || target === '/proc'
      ? mounts.usage(target, timeoutMs)
      : Promise.reject(state.error);
  const probe = new UsageProbe({ ...mounts, usage }, clock, (_, invalid) => changes.push(invalid));
  const check = async (error?: Error) => {
    state.error = error;
    await clock.advance(60_000);
    return probe.check('key', '/srv/share');
  };
  return { probe, changes, check };
}

test('a child that could not be started, or that the machine has ended, says nothing about the mount', async () => {
  const { probe, changes, check } = asked();
  await check();
  const noMemory = Object.assign(new Error('spawn ENOMEM'), { code: 'ENOMEM' });
  for (const error of [failed('start'), failed('signal'), noMemory]) {
    assert.equal(await check(error), 'answers');
    const { invalid, usage } = await probe.usage('key', '/srv/share', 'cifs');
    assert.deepEqual([invalid, usage.total], [false, 4_096_000]);
  }
  assert.deepEqual(changes, []);
  assert.equal(await check(failed('exit', 'Host is down')), 'fails');
  assert.deepEqual(changes, [true]);
});

test('a dead mount is neither called alive nor to be made anew at once because no child could be started', async () => {
  const { probe, changes, check } = asked();
  assert.equal(await check(failed('exit', 'Host is down')), 'fails');
  assert.equal(await check(failed('start')), 'hangs');
  assert.equal(probe.isInvalid('key'), true);
  assert.equal(await check(), 'answers');
  assert.deepEqual(changes, [true, false]);
});

test('a dead mount is not said to hang when nothing answers in time', async () => {
  const { mounts } = new FakeMachine().ports();
  const late = { file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;
  let isSlow = true;
  const usage: typeof mounts.usage = (path, timeoutMs) =>
    path === '/srv/share' || isSlow ? Promise.reject(new ExecError(late)) : mounts.usage(path, timeoutMs);
  const probe = new UsageProbe({ ...mounts, usage }, new FakeClock(), () => undefined);
  probe.markInvalid('key', '/srv/share', 'its server does not answer');
  assert.equal(await probe.check('key', '/srv/share'), 'unknown');
  isSlow = false;
  assert.equal(await probe.check('key', '/srv/share'), 'hangs');
});

test('what a mount did not say before it was checked is not taken for an answer', async () => {
  const { mounts } = new FakeMachine().ports();
  const late = { file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;
  const first = Promise.withResolvers<never>();
  first.promise.catch(() => undefined);
  let asked = 0;
  const usage: typeof mounts.usage = (path, timeoutMs) =>
    path === '/srv/share' && asked++ === 0 ? first.promise : mounts.usage(path, timeoutMs);
  const probe = new UsageProbe({ ...mounts, usage }, new FakeClock(), () => undefined);
  const before = probe.usage('key', '/srv/share', 'nfs4');
  const after = probe.check('key', '/srv/share');
  first.reject(new ExecError(late));
  assert.equal(await after, 'answers');
  await before;
});

test('a check does not wait for the turn of a mount behind others that may hang, and it is asked once then', async () => {
  const { mounts } = new FakeMachine().ports();
  const hangs = Promise.withResolvers<never>();
  const asked: string[] = [];
  const usage: typeof mounts.usage = (path, timeoutMs) => {
    asked.push(path);
    return path === '/srv/hangs' ? hangs.promise : mounts.usage(path, timeoutMs);
  };
  const probe = new UsageProbe({ ...mounts, usage }, new FakeClock(), () => undefined);
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  for (const name of ['hangs', 'behind']) {
    probe.markInvalid(name, `/srv/${name}`, 'its server does not answer');
    await probe.usage(name, `/srv/${name}`, 'nfs4');
  }
  await turn();
  await turn();
  assert.deepEqual(asked, ['/srv/hangs']);
  assert.equal(await probe.check('behind', '/srv/behind'), 'answers');
  hangs.reject(
    new ExecError({
      ...{ file: 'stat', args: [], reason: 'exit' },
      ...{ exitCode: 1, stdout: '', stderr: '' },
    }),
  );
  for (let n = 0; n < 5; n++) await turn();
  assert.deepEqual(asked, ['/srv/hangs', '/srv/behind']);
});

test('bytes and inodes are counted as df counts them, and a file system without inodes has none used', () => {
  const fs = { blockSize: 4096, blocks: 1000, free: 400, available: 350, inodes: 80, inodesFree: 60 };
  assert.deepEqual(usageStat('/srv', 'ext4', fs), {
    ...{ path: '/srv', fstype: 'ext4', total: 4_096_000, free: 1_433_600, used: 2_457_600 },
    usedPercent: (600 / 950) * 100,
    ...{ inodesTotal: 80, inodesUsed: 20, inodesFree: 60, inodesUsedPercent: 25 },
  });
  const vfat = usageStat('/srv', 'vfat', { ...fs, inodes: 0, inodesFree: 0 });
  assert.deepEqual(
    [vfat.inodesTotal, vfat.inodesUsed, vfat.inodesFree, vfat.inodesUsedPercent],
    [0, 0, 0, 0],
  );
});

test('of a file system that makes inodes as it needs them none are used, and never less', () => {
  const fs = { blockSize: 4096, blocks: 100, free: 50, available: 50, inodes: 95_752, inodesFree: 95_796 };
  const { inodesTotal, inodesUsed, inodesFree, inodesUsedPercent } = usageStat('/a', 'ntfs', fs);
  assert.deepEqual([inodesTotal, inodesUsed, inodesFree, inodesUsedPercent], [95_752, 0, 95_796, 0]);
});
