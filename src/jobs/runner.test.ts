import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import { FakeClock } from '#host/fake/clock.ts';
import type { JobDefinition, Phase } from '#jobs/definition.ts';
import { JobRunner, type JobRunnerOptions } from '#jobs/runner.ts';
import { isFault } from '#lib/fault.ts';
import { JobJournal } from '#store/jobs.ts';
import { Store } from '#store/store.ts';

const caller: Caller = { class: 'root', proof: 'socket' };
const phase = (
  name: string,
  run: Phase<object>['run'],
  more: Partial<Phase<object>> = {},
): Phase<object> => ({
  name,
  does: name,
  reversible: false,
  weight: 1,
  cancellable: true,
  afterCrash: 'repeat',
  run,
  ...more,
});
const definition = (
  operation: JobDefinition['operation'],
  phases: Phase<object>[],
  more: Partial<JobDefinition<object>> = {},
): JobDefinition<object> => ({ operation, preconditions: () => [], phases: () => phases, ...more });

function setUp(
  definitions: JobDefinition<object>[],
  dir = mkdtempSync(join(tmpdir(), 'beosd-jobs-')),
  more: Partial<JobRunnerOptions> = {},
) {
  const store = new Store(dir, Date.now);
  const runner = new JobRunner({
    journal: new JobJournal(store),
    clock: new FakeClock(),
    definitions,
    admit: () => undefined,
    onChange: () => undefined,
    onInternal: () => undefined,
    ...more,
  });
  return { runner, store, dir };
}

const untilAborted = (signal: AbortSignal) =>
  new Promise<void>((_resolve, reject) => {
    signal.throwIfAborted();
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });

async function code(work: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (error) {
    return isFault(error) ? error.code : String(error);
  }
  return 'nothing thrown';
}

test('a job runs its phases in order and ends at 100 %', async () => {
  const done: string[] = [];
  const install = definition('command.install', [
    phase('one', async () => void done.push('one')),
    phase('two', async (context) => {
      context.progress(50, 'half');
      done.push('two');
    }),
  ]);
  const { runner } = setUp([install]);
  const id = await runner.start(install, { input: {}, caller });
  await runner.ended(id);
  const job = runner.get(id);
  assert.deepEqual(done, ['one', 'two']);
  assert.equal(job?.state, 'succeeded');
  assert.equal(job?.percent, 100);
  assert.equal(job?.caller, 'root');
});

test('a second job in the lane is refused with the id of the first', async () => {
  const install = definition('command.install', [phase('wait', (context) => untilAborted(context.signal))]);
  const { runner } = setUp([install]);
  const id = await runner.start(install, { input: {}, caller });
  await assert.rejects(runner.start(install, { input: {}, caller }), (error) => {
    assert.ok(isFault(error));
    assert.equal(error.code, 'conflict');
    assert.equal(error.details.jobId, id);
    return true;
  });
  runner.cancel(id, 'root');
  await runner.ended(id);
  assert.equal(runner.get(id)?.state, 'cancelled');
});

test('uninstall takes a running install over: it is stopped first', async () => {
  const order: string[] = [];
  const install = definition('command.install', [
    phase('wait', async (context) => {
      await untilAborted(context.signal).finally(() => order.push('install stopped'));
    }),
  ]);
  const uninstall = definition('command.uninstall', [phase('go', async () => void order.push('uninstall'))], {
    takesOver: ['command.install'],
  });
  const { runner } = setUp([install, uninstall]);
  const first = await runner.start(install, { input: {}, caller });
  const second = await runner.start(uninstall, { input: {}, caller });
  await runner.ended(second);
  assert.deepEqual(order, ['install stopped', 'uninstall']);
  assert.equal(runner.get(first)?.state, 'cancelled');
  assert.equal(runner.get(second)?.state, 'succeeded');
});

test('a phase that is past its point of no return cannot be cancelled', async () => {
  const install = definition('command.install', [
    phase('act', (context) => untilAborted(context.signal), { cancellable: false }),
  ]);
  const { runner } = setUp([install]);
  const id = await runner.start(install, { input: {}, caller });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(await code(() => runner.cancel(id, 'root')), 'not_cancellable');
  await runner.stop();
});

test('an unmet precondition refuses the job with its own code and reason', async () => {
  const install = definition('command.install', [], {
    preconditions: () => [
      { name: 'installer', ok: false, reason: 'no installer', code: 'installer_unavailable' },
    ],
  });
  const { runner } = setUp([install]);
  assert.equal(await code(runner.start(install, { input: {}, caller })), 'installer_unavailable');
  assert.deepEqual((await runner.plan(install, {})).allowed, false);
});

test('the gate is asked again when the job takes its lane', async () => {
  const install = definition('command.install', [phase('never', async () => assert.fail('ran'))]);
  const { runner } = setUp([install], undefined, {
    admit: () => fault('state_forbids', 'changed', { state: 'upgrading' }),
  });
  const id = await runner.start(install, { input: {}, caller });
  await runner.ended(id);
  assert.equal(runner.get(id)?.error?.code, 'state_forbids');
});

test('a stopped daemon leaves its jobs running in the journal, and the next start resumes the phase', async () => {
  const calls: string[] = [];
  const make = (block: boolean) =>
    definition('command.install', [
      phase('first', async () => void calls.push('first')),
      phase(
        'second',
        async (context) => {
          calls.push('second run');
          context.remember({ started: true });
          if (block) await untilAborted(context.signal);
        },
        {
          afterCrash: 'resume',
          resume: async (context) =>
            void calls.push(`second resumed, started=${context.checkpoint['started']}`),
        },
      ),
    ]);
  const before = make(true);
  const one = setUp([before]);
  const id = await one.runner.start(before, { input: {}, caller });
  while (calls.length < 2) await new Promise((resolve) => setImmediate(resolve));
  await one.runner.stop();
  one.store.close();
  const two = setUp([make(false)], one.dir);
  two.runner.resume();
  await two.runner.ended(id);
  assert.deepEqual(calls, ['first', 'second run', 'second resumed, started=true']);
  assert.equal(two.runner.get(id)?.state, 'succeeded');
});

test('a phase that cannot be taken up ends the job as interrupted, and says so', async () => {
  const make = () =>
    definition('command.install', [
      phase('once', (context) => untilAborted(context.signal), { afterCrash: 'fail' }),
    ]);
  const one = setUp([make()]);
  const id = await one.runner.start(make(), { input: {}, caller });
  await new Promise((resolve) => setImmediate(resolve));
  await one.runner.stop();
  one.store.close();
  const two = setUp([make()], one.dir);
  two.runner.resume();
  await two.runner.ended(id);
  assert.equal(two.runner.get(id)?.state, 'interrupted');
  assert.match(two.runner.get(id)?.error?.message ?? '', /once/);
});

test('the outcome hook runs once the job has ended, whatever the end', async () => {
  const outcomes: string[] = [];
  const install = definition(
    'command.install',
    [phase('bad', () => Promise.reject(fault('impossible', 'no')))],
    {
      finished: (_input, outcome) => void outcomes.push(outcome.state),
    },
  );
  const { runner } = setUp([install]);
  const id = await runner.start(install, { input: {}, caller });
  await runner.ended(id);
  assert.deepEqual(outcomes, ['failed']);
  assert.deepEqual(runner.get(id)?.error, { code: 'impossible', message: 'no' });
});

test('a job that ends while its journal cannot be read is not run again when that is back', async () => {
  let runs = 0;
  const mayEnd = Promise.withResolvers<void>();
  const install = definition('command.install', [
    phase('act', async (context) => {
      runs++;
      await mayEnd.promise;
      context.remember({ end: true });
    }),
  ]);
  const { runner, store, dir } = setUp([install]);
  const id = await runner.start(install, { input: {}, caller });
  await new Promise((resolve) => setImmediate(resolve));
  const parts = ['beosd.db', 'beosd.db-wal'].map((name) => join(dir, name));
  for (const part of parts) {
    copyFileSync(part, `${part}.kept`);
    writeFileSync(part, 'x'.repeat(8192));
  }
  writeFileSync(join(dir, 'beosd.db-shm'), Buffer.alloc(136), { flag: 'r+' }); // the index of the log is believed first
  mayEnd.resolve();
  await runner.ended(id);
  assert.notEqual(store.health.historyLostAt, undefined, 'the journal was lost');
  assert.equal(runner.get(id)?.state, 'succeeded');
  rmSync(join(dir, 'beosd.db-shm'), { force: true });
  for (const part of parts) renameSync(`${part}.kept`, part);
  assert.equal(store.recover(), true);
  runner.resume();
  await runner.ended(id);
  assert.equal(runner.get(id)?.state, 'succeeded');
  assert.equal(runs, 1);
  store.close();
});

test('a crash while a job was being taken over: the next start ends it first, then goes on', async () => {
  const order: string[] = [];
  const install = definition('command.install', [
    phase('act', async (context) => {
      try {
        await untilAborted(context.signal);
      } finally {
        await new Promise((resolve) => setImmediate(resolve));
        order.push('install ended');
      }
    }),
  ]);
  const uninstall = definition('command.uninstall', [phase('go', async () => void order.push('uninstall'))], {
    takesOver: ['command.install'],
  });
  const never = definition('command.install', [phase('act', () => new Promise(() => undefined))]);
  const killed = setUp([never, uninstall]);
  const first = await killed.runner.start(never, { input: {}, caller });
  await new Promise((resolve) => setImmediate(resolve));
  const second = await killed.runner.start(uninstall, { input: {}, caller });
  killed.store.close();
  const { runner, store } = setUp([install, uninstall], killed.dir);
  runner.resume();
  await runner.ended(second);
  assert.deepEqual(order, ['install ended', 'uninstall']);
  assert.deepEqual([runner.get(first)?.state, runner.get(second)?.state], ['cancelled', 'succeeded']);
  store.close();
});

test('two jobs that a lost journal left open in one lane run one after the other', async () => {
  let running = 0;
  const alone = async () => {
    assert.equal(++running, 1);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
  };
  const never = () => definition('command.install', [phase('act', () => new Promise(() => undefined))]);
  const one = setUp([never()]);
  const first = await one.runner.start(never(), { input: {}, caller });
  const two = setUp([never()], one.dir); // knows nothing of the first: it has another set of active jobs
  const second = await two.runner.start(never(), { input: {}, caller });
  for (const { store } of [one, two]) store.close();
  const { runner, store } = setUp([definition('command.install', [phase('act', alone)])], one.dir);
  runner.resume();
  for (const id of [first, second]) {
    await runner.ended(id);
    assert.equal(runner.get(id)?.state, 'succeeded');
  }
  store.close();
});

test('a journal that comes back while the daemon stops starts nothing', async () => {
  const calls: string[] = [];
  const make = (block: boolean) =>
    definition('command.install', [
      phase('act', async (context) => {
        if (block) await untilAborted(context.signal);
        else calls.push('act');
      }),
    ]);
  const one = setUp([make(true)]);
  const id = await one.runner.start(make(true), { input: {}, caller });
  await one.runner.stop();
  one.store.close();
  const { runner, store } = setUp([make(false)], one.dir);
  await runner.stop();
  runner.resume();
  await runner.ended(id);
  assert.deepEqual(calls, []);
  assert.match(runner.get(id)?.state ?? '', /queued|running/);
  store.close();
});

test('the last of a burst of progress is shown within the second, not when the next one comes', async () => {
  const clock = new FakeClock();
  const shown: string[] = [];
  const over = Promise.withResolvers<void>();
  const install = definition('command.install', [
    phase('act', async ({ progress }) => {
      for (const [at, what] of ['first', 'second', 'third'].entries()) progress(10 * (at + 1), what);
      await over.promise;
    }),
  ]);
  const { runner } = setUp([install], undefined, {
    clock,
    onChange: (job, what) =>
      what === 'progress' && shown.push(`${job.shownPercent} ${job.phases[0]?.message}`),
  });
  const id = await runner.start(install, { input: {}, caller });
  await clock.advance(0);
  assert.deepEqual(shown, ['10 first']);
  assert.equal(runner.get(id)?.percent, 30, 'who asks sees it at once');
  await clock.advance(999);
  assert.deepEqual(shown, ['10 first']);
  await clock.advance(1);
  assert.deepEqual(shown, ['10 first', '30 third']);
  over.resolve();
  await runner.ended(id);
  await clock.advance(5_000);
  assert.deepEqual(shown, ['10 first', '30 third'], 'nothing comes behind the end');
});
