import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Caller } from '#api/caller.ts';
import { FakeClock } from '#host/fake/clock.ts';
import type { JobDefinition, Phase } from '#jobs/definition.ts';
import { JobRunner, type JobRunnerOptions } from '#jobs/runner.ts';
import { isFault } from '#lib/fault.ts';
import { JobJournal } from '#store/jobs.ts';
import { Store } from '#store/store.ts';

export const caller: Caller = { class: 'root', proof: 'socket' };
export const phase = (
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
export const definition = (
  operation: JobDefinition['operation'],
  phases: Phase<object>[],
  more: Partial<JobDefinition<object>> = {},
): JobDefinition<object> => ({ operation, preconditions: () => [], phases: () => phases, ...more });

/** A runner over a store of its own, or over the one that another has left in `dir`. */
export function setUp(
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

export const untilAborted = (signal: AbortSignal) =>
  new Promise<void>((_resolve, reject) => {
    signal.throwIfAborted();
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });

/** The code of the fault that it throws. */
export async function code(work: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (error) {
    return isFault(error) ? error.code : String(error);
  }
  return 'nothing thrown';
}

/** A disk in trouble: another process keeps the store to itself, so that nothing can be written to it. */
export function keptLocked(dir: string): Disposable {
  const other = new DatabaseSync(join(dir, 'beosd.db'));
  other.exec('BEGIN IMMEDIATE');
  return { [Symbol.dispose]: () => other.close() };
}
