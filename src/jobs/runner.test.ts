import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
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
