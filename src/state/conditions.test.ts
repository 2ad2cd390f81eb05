import assert from 'node:assert/strict';
import { test } from 'node:test';
import { operationNames, specOf } from '#api/operations.ts';
import { failed } from '#lib/observed.ts';
import { deriveConditions, isFull } from '#state/conditions.ts';
import type { Facts, JobFacts } from '#state/facts.ts';
import {
  at,
  clustered,
  facts,
  healthyNode,
  job,
  minute,
  running,
  seen,
} from '../../tests/support/machines.ts';
import { recordedMachines } from '../../tests/support/recorded-machines.ts';

const one = (some: Facts, code: string, jobs: JobFacts[] = []) =>
  deriveConditions(some, jobs, at).find((condition) => condition.code === code);

test('every route that a condition names is one that the contract has', () => {
  const routes = operationNames.map((name) => `${specOf(name).method} ${specOf(name).path}`);
  for (const { facts: recorded, jobs = [] } of recordedMachines) {
    for (const { fixedBy } of deriveConditions(recorded, jobs, at)) {
      assert.deepEqual(
        fixedBy.filter((route) => !routes.includes(route)),
        [],
      );
    }
  }
});

test('a condition names the thing', () => {
  const sickPods = [{ namespace: 'os-framework', name: 'app-service-0', reason: 'CrashLoopBackOff' }];
  assert.match(
    one(clustered({ sickPods }), 'pod_unhealthy')?.message ?? '',
    /os-framework\/app-service-0 \(CrashLoopBackOff\)/,
  );
  const silent = failed(seen(running), 'cluster', at - 5 * minute, 'socket hang up');
  assert.match(
    one(clustered({}, { cluster: silent, clusterLink: 'unreachable' }), 'cluster_unreachable')?.message ?? '',
    /5 min.*socket hang up/,
  );
  const stale = failed(facts().network, 'links', at - 3 * minute, 'ip ended by timeout');
  assert.match(
    one(facts({ network: stale }), 'facts_stale')?.message ?? '',
    /network \(for 3 min\): ip ended by timeout/,
  );
  const aside = { durable: true, reason: 'x', historyLostAt: at, setAside: '/data/beosd.db.damaged-7' };
  assert.match(one(facts({ store: aside }), 'store_damaged')?.message ?? '', /damaged-7/);
  const upgrade = job('command.upgrade', 'failed', { phase: 'images', error: 'no space' });
  assert.match(one(clustered(), 'upgrade_failed', [upgrade])?.message ?? '', /images: no space/);
});

test('pressures of any name become codes', () => {
  const pressures = ['DiskPressure', 'MemoryPressure', 'PIDPressure', 'NetworkUnavailable'].map((type) => ({
    type,
    message: 'x',
  }));
  const codes = deriveConditions(clustered({ node: { ...healthyNode, pressures } }), [], at).map(
    ({ code }) => code,
  );
  assert.deepEqual(codes, ['disk_pressure', 'memory_pressure', 'pid_pressure', 'network_unavailable']);
});

test('a small file system is full when it is, not because it is small', () => {
  assert.deepEqual(
    [isFull(16e6, 16e6), isFull(0, 16e6), isFull(1e9, 1e12), isFull(60e6, 1e12)],
    [false, true, false, true],
  );
});

test('what capabilities report stands beside what is derived', () => {
  const dead = {
    code: 'mount_dead',
    severity: 'warning',
    message: '//nas/a does not answer',
    remedy: 'x',
    fixedBy: [],
  } as const;
  assert.deepEqual(one(facts({ reported: { storage: [dead] } }), 'mount_dead'), dead);
});
