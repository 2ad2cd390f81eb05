import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fault } from '#api/errors.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { isFault } from '#lib/fault.ts';
import {
  caller,
  code,
  definition,
  keptLocked,
  phase,
  setUp,
  untilAborted,
} from '../../tests/support/job-runner.ts';

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

test('a job that is not listed, or has no lane, is a mistake that is told before anything is done', async () => {
  const install = definition('command.install', [phase('one', () => assert.fail('it began'))]);
  const { runner } = setUp([]);
  await assert.rejects(runner.start(install, { input: {}, caller }), /command\.install is not listed/);
  await assert.rejects(runner.plan(install, {}), /command\.install is not listed/);
  assert.deepEqual(runner.list(10), []);
  assert.throws(() => setUp([definition('system.status', [])]), /system\.status .* has no lane/);
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

test('who is refused for a job that is running hears which, whatever else stands in the way', async () => {
  const install = definition('command.install', [phase('wait', (context) => untilAborted(context.signal))]);
  const { runner } = setUp([install]);
  const id = await runner.start(install, { input: {}, caller });
  const unmet = { ...install, preconditions: () => [{ name: 'pid file', ok: false, reason: 'it runs' }] };
  await assert.rejects(
    runner.start(unmet, { input: {}, caller }),
    (error) => isFault(error) && error.code === 'conflict' && error.details.jobId === id,
  );
  await runner.stop();
});

test('a job whose checks last until the daemon stops is not begun', async () => {
  const checked = Promise.withResolvers<[]>();
  const install = definition('command.install', [phase('never', async () => assert.fail('ran'))], {
    preconditions: () => checked.promise,
  });
  const { runner, store } = setUp([install]);
  const starting = code(runner.start(install, { input: {}, caller }));
  await new Promise((resolve) => setImmediate(resolve));
  await runner.stop();
  checked.resolve([]);
  assert.equal(await starting, 'conflict');
  assert.deepEqual(runner.list(1), []);
  store.close();
});

test('a phase that cannot be undone is not begun when the disk fails before it: a crash would forget it', async () => {
  const { promise: mayGoOn, resolve: goOn } = Promise.withResolvers<void>();
  const provision = definition('storage.provision', [
    phase('check', () => mayGoOn, { reversible: true }),
    phase('wipe', async () => assert.fail('wiped'), { afterCrash: 'resume' }),
  ]);
  const reboot = definition('command.reboot', [
    phase('issue', async () => undefined, { afterCrash: 'resume' }),
  ]);
  const { runner, store, dir } = setUp([provision, reboot]);
  const id = await runner.start(provision, { input: {}, caller });
  using _full = keptLocked(dir);
  goOn();
  await runner.ended(id);
  const job = runner.get(id);
  assert.deepEqual([job?.state, job?.error?.code], ['failed', 'store_unavailable']);
  assert.deepEqual(
    job?.phases.map(({ state, startedAt }) => [state, startedAt !== null]),
    [
      ['succeeded', true],
      ['pending', false],
    ],
  );
  const power = await runner.start(reboot, { input: {}, caller });
  await runner.ended(power);
  assert.equal(runner.get(power)?.state, 'succeeded', 'a full disk keeps no machine from being restarted');
  store.close();
});
