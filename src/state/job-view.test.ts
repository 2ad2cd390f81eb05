import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JobFacts } from '#state/facts.ts';
import { viewOf } from '#state/job-view.ts';

const job = (operation: string, state: JobFacts['state'], at: string, order: number): JobFacts => ({
  ...{ operation, state, phase: 'install', percent: null, error: undefined },
  ...{ createdAt: Date.parse(at), finishedAt: Date.parse(at), order },
});

test('a failed install of a clock that was years ahead is cleared by the uninstall after it', () => {
  const failed = job('command.install', 'failed', '2035-01-01', 0);
  assert.equal(viewOf([failed]).installFailed, failed);
  assert.equal(
    viewOf([failed, job('command.uninstall', 'succeeded', '2026-11-23', 1)]).installFailed,
    undefined,
  );
});

test('an uninstall that came before a failed install clears nothing, whatever the clock said', () => {
  const failed = job('command.install', 'failed', '2026-11-23', 1);
  assert.equal(
    viewOf([failed, job('command.uninstall', 'succeeded', '2035-01-01', 0)]).installFailed,
    failed,
  );
});
