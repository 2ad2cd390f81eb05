import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mayRebind } from '#daemon/sources.ts';
import { unknown } from '#lib/observed.ts';
import { deriveState } from '#state/derive.ts';
import type { Facts, JobFacts } from '#state/facts.ts';
import { at, clustered, facts, job, nothingInstalled, seen } from '../../tests/support/machines.ts';

test('a lost address is replaced in the hosts file only while nothing is installed and nobody works on it', () => {
  const may = (some: Facts, ...jobs: JobFacts[]) =>
    mayRebind({ facts: some, state: deriveState(some, jobs, at).state });
  assert.equal(may(facts()), true);
  assert.equal(may(clustered()), false);
  assert.equal(may(facts({ install: unknown('install-files', at, 'EIO') })), false);
  assert.equal(may(facts(), job('command.install', 'running')), false);
  const byHand = seen({ ...nothingInstalled, installing: { pid: 7, alive: true } });
  assert.equal(may(facts({ install: byHand })), false);
  assert.equal(
    may(facts({ install: seen({ ...nothingInstalled, uninstalling: { pid: 7, alive: true } }) })),
    false,
  );
});
