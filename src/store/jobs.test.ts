import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { JobJournal, type JobRow } from '#store/jobs.ts';
import { Store } from '#store/store.ts';

const row = (id: string, createdAt: number, more: Partial<JobRow> = {}): JobRow => ({
  ...{ id, operation: 'command.install', lane: 'cluster', state: 'failed', phase: null, percent: null },
  ...{ phases: '[]', input: 'null', checkpoint: '{}', error: null, caller: '{}', createdAt },
  ...{ startedAt: createdAt, finishedAt: createdAt },
  ...more,
});

test('a clock that was years ahead and is put right makes no old job the newest', () => {
  const store = new Store(mkdtempSync(join(tmpdir(), 'beosd-jobs-')), Date.now);
  const journal = new JobJournal(store);
  const [ahead, right] = [Date.parse('2035-01-01'), Date.parse('2026-11-23')];
  journal.insert(row('failed', ahead), true);
  journal.insert(row('undone', right, { operation: 'command.uninstall', state: 'succeeded' }), true);
  journal.insert(row('again', right + 1, { state: 'running', finishedAt: null }), true);
  assert.deepEqual(
    journal.newestOfEach().map(({ id }) => id),
    ['undone', 'again'],
  );
  const ids = (before?: string) => journal.list(2, before).map(({ id }) => id);
  assert.deepEqual([ids(), ids('undone'), ids('nobody')], [['again', 'undone'], ['failed'], []]);
  store.close();
});

test('what a clock ahead left behind does not push out what came after it', () => {
  const store = new Store(mkdtempSync(join(tmpdir(), 'beosd-jobs-')), Date.now);
  const journal = new JobJournal(store);
  for (let n = 0; n < 1000; n++) journal.insert(row(`ahead-${n}`, Date.parse('2035-01-01') + n), false);
  journal.insert(row('now', Date.parse('2026-11-23')), false);
  assert.equal(journal.get('now')?.id, 'now');
  assert.equal(journal.get('ahead-0'), undefined);
  store.close();
});

test('a failed installation is not forgotten because a thousand other jobs came after it', () => {
  const store = new Store(mkdtempSync(join(tmpdir(), 'beosd-jobs-')), Date.now);
  const journal = new JobJournal(store);
  journal.insert(row('first', 1), false);
  journal.insert(row('failed', 2), false);
  const other = { operation: 'storage.provision', state: 'succeeded' } as const;
  for (let n = 0; n < 1001; n++) journal.insert(row(`other-${n}`, 3 + n, other), false);
  assert.deepEqual(
    journal.newestOfEach().map(({ id }) => id),
    ['failed', 'other-1000'],
  );
  assert.equal(journal.get('first'), undefined);
  assert.equal(journal.list(2000, undefined).length, 1001);
  store.close();
});
