import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mayRebind, trustedHosts } from '#daemon/sources.ts';
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

test('what the configuration names to be trusted is trusted: only the owner says where it leads', () => {
  const env = {
    DOWNLOAD_CDN_URL: 'https://cdn.example.com/x',
    REGISTRY_MIRRORS: 'm1.lan:5000, http://M2.lan,',
  };
  assert.deepEqual(trustedHosts({ didGateUrl: 'https://gate.example.com/1.0' }, env), [
    'gate.example.com',
    'cdn.example.com',
    'm1.lan',
    'm2.lan',
  ]);
  assert.deepEqual(trustedHosts({ didGateUrl: undefined }, {}), []);
});
