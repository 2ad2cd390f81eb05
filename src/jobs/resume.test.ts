import assert from 'node:assert/strict';
import { copyFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { JobDefinition } from '#jobs/definition.ts';
import { caller, definition, phase, setUp, untilAborted } from '../../tests/support/job-runner.ts';

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

/** A job as the journal has it after `act` was done to its row: what a full disk, or the power, has left of it. */
async function leftOver(jobs: JobDefinition<object>, act: (phases: { state: string }[]) => string) {
  const { runner, store, dir } = setUp([jobs]);
  const id = await runner.start(jobs, { input: {}, caller });
  await runner.stop();
  store.write((db) => {
    const phases = JSON.parse(String(db.get('SELECT phases FROM jobs')?.['phases'])) as { state: string }[];
    const state = act(phases);
    const started = state === 'queued' ? null : 1;
    const sql = 'UPDATE jobs SET state = ?, started_at = ?, phases = ?';
    db.run(sql, state, started, JSON.stringify(phases));
  });
  store.close();
  return { id, dir };
}

test('a reboot that the journal knows only the beginning of is not begun by the next start: no machine restarts for ever', async () => {
  const stages: [string, (phases: { state: string }[]) => string][] = [
    ['asked for', () => 'queued'],
    ['taken up', () => 'running'],
    [
      'waited for',
      ([wait]) => {
        if (wait !== undefined) wait.state = 'succeeded';
        return 'running';
      },
    ],
  ];
  for (const [stage, act] of stages) {
    const asked: string[] = [];
    const reboot = definition('command.reboot', [
      phase('wait', async () => void asked.push('wait'), { reversible: true, afterCrash: 'fail' }),
      phase('issue', async () => void asked.push('issue'), { afterCrash: 'resume' }),
    ]);
    const never = definition('command.reboot', [
      phase('wait', ({ signal }) => untilAborted(signal)),
      phase('issue', async () => assert.fail()),
    ]);
    const { id, dir } = await leftOver(never, (phases) => {
      for (const each of phases) each.state = 'pending';
      return act(phases);
    });
    const { runner, store } = setUp([reboot], dir);
    runner.resume();
    await runner.ended(id);
    assert.deepEqual([runner.get(id)?.state, asked], ['interrupted', []], stage);
    store.close();
  }
});

test('a reboot that had been asked for in full has succeeded, whatever became of the daemon', async () => {
  const never = definition('command.reboot', [phase('issue', ({ signal }) => untilAborted(signal))]);
  const { id, dir } = await leftOver(never, (phases) => {
    for (const each of phases) each.state = 'succeeded';
    return 'running';
  });
  const { runner, store } = setUp([never], dir);
  runner.resume();
  await runner.ended(id);
  assert.equal(runner.get(id)?.state, 'succeeded');
  store.close();
});

test('a job that was cancelled before a crash is ended by the next start, by the phase that it was in', async () => {
  const calls: string[] = [];
  const phases = (killed: boolean) => [
    phase('act', () => new Promise(() => undefined), {
      afterCrash: 'resume',
      resume: async ({ signal }) => {
        assert.equal(killed, false);
        calls.push('stopped what it had begun');
        signal.throwIfAborted();
      },
    }),
    phase('then', async () => void calls.push('went on')),
  ];
  const before = definition('command.install', phases(true));
  const killed = setUp([before]);
  const id = await killed.runner.start(before, { input: {}, caller });
  await new Promise((resolve) => setImmediate(resolve));
  killed.runner.cancel(id, 'owner alice');
  killed.store.close();
  const { runner, store } = setUp([definition('command.install', phases(false))], killed.dir);
  runner.resume();
  await runner.ended(id);
  assert.deepEqual(calls, ['stopped what it had begun']);
  const job = runner.get(id);
  assert.deepEqual([job?.state, job?.error?.message], ['cancelled', 'Cancelled by owner alice.']);
  store.close();
});

test('a job of a beosd that did it in other steps is interrupted, not a success', async () => {
  const before = definition('command.install', [phase('old way', ({ signal }) => untilAborted(signal))]);
  const one = setUp([before]);
  const id = await one.runner.start(before, { input: {}, caller });
  await one.runner.stop();
  one.store.close();
  const { runner, store } = setUp(
    [definition('command.install', [phase('new way', async () => assert.fail('ran'))])],
    one.dir,
  );
  runner.resume();
  await runner.ended(id);
  assert.equal(runner.get(id)?.state, 'interrupted');
  assert.match(runner.get(id)?.error?.message ?? '', /new way/);
  store.close();
});
