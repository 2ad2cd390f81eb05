import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type NodeState, nodeStates } from '#api/states.ts';
import { known, type Observed, unknown } from '#lib/observed.ts';
import { deriveConditions } from '#state/conditions.ts';
import { checkingMs, deriveState, nextTurn, notObserved } from '#state/derive.ts';
import type { Facts, JobFacts } from '#state/facts.ts';
import { initialFacts } from '#state/observatory.ts';
import {
  at,
  clustered,
  day,
  facts,
  installed,
  job,
  machine,
  minute,
  nothingInstalled,
  seen,
} from '../../tests/support/machines.ts';
import { recordedMachines } from '../../tests/support/recorded-machines.ts';

for (const machine of recordedMachines) {
  test(`recorded machine: ${machine.name}`, () => {
    const jobs = machine.jobs ?? [];
    const derived = deriveState(machine.facts, jobs, at);
    assert.equal(derived.state, machine.state, derived.because);
    const codes = deriveConditions(machine.facts, jobs, at).map(({ code }) => code);
    assert.deepEqual(codes, machine.conditions);
  });
}

test('there are at least 40 recorded machines, each with a name of its own', () => {
  assert.ok(recordedMachines.length >= 40);
  assert.equal(new Set(recordedMachines.map(({ name }) => name)).size, recordedMachines.length);
});

test('every state that is not reserved is that of some recorded machine', () => {
  const reached = new Set(recordedMachines.map(({ state }) => state));
  const reserved = ['self-repairing', 'adding-node', 'removing-node'];
  assert.deepEqual(
    nodeStates.filter((state) => !reached.has(state)),
    nodeStates.filter((state) => reserved.includes(state)),
  );
});

test('a source that never reports does not keep the node checking for ever', () => {
  const awaited = facts({ install: unknown('install-files', at, notObserved) });
  assert.equal(deriveState(awaited, [], at + checkingMs - 1).state, 'checking');
  assert.equal(deriveState(awaited, [], at + checkingMs).state, 'system-error');
});

test('a cluster that is only being connected to is awaited, whatever reason it gives, but not for ever', () => {
  const begun = (reason: string) =>
    clustered({}, { cluster: unknown('kubernetes', at, reason), clusterLink: 'connecting' });
  for (const reason of [notObserved, 'not connected yet', 'reading the cluster']) {
    assert.equal(deriveState(begun(reason), [], at + checkingMs - 1).state, 'checking', reason);
    assert.equal(deriveState(begun(reason), [], at + checkingMs).state, 'system-error', reason);
  }
  const refused = { ...begun('connect ECONNREFUSED'), clusterLink: 'unreachable' } as const;
  assert.equal(deriveState(refused, [], at + 1).state, 'system-error');
});

test('before the cluster has been looked for, an installed node is checking, not broken', () => {
  const { cluster, clusterLink } = initialFacts(at);
  assert.equal(deriveState(clustered({}, { cluster, clusterLink }), [], at + 1).state, 'checking');
});

test('a cancelled install that never began leaves nothing to uninstall', () => {
  const cancelled = job('command.install', 'cancelled', { phase: null });
  assert.equal(deriveState(facts(), [cancelled], at).state, 'not-installed');
});

test('a job of ours outranks the pid file that its installer left', () => {
  const left = facts({ install: seen({ ...nothingInstalled, installing: { pid: 7, alive: false } }) });
  assert.equal(deriveState(left, [job('command.install', 'succeeded')], at).state, 'not-installed');
});

test('whatever the facts are, the derivation names one of the 21 states, and every condition is whole', () => {
  fc.assert(
    fc.property(factsArbitrary(), fc.array(jobArbitrary(), { maxLength: 6 }), (some, jobs) => {
      assert.ok(nodeStates.includes(deriveState(some, jobs, at).state));
      for (const { code, message, remedy } of deriveConditions(some, jobs, at)) {
        assert.match(code, /^[a-z][a-z0-9_]*$/);
        assert.ok(message.length > 0 && remedy.length > 0);
      }
    }),
    { numRuns: 2000 },
  );
});

test('before the next turn the state stays as it is, whatever the facts are and however long that is', () => {
  const soon = fc.integer({ min: 0, max: 15 * minute });
  const recorded = fc.constantFrom(...recordedMachines.map((each) => each.facts));
  fc.assert(
    fc.property(
      fc.oneof(factsArbitrary(), recorded),
      fc.array(jobArbitrary(), { maxLength: 6 }),
      soon,
      (some, jobs, later) => {
        const turn = nextTurn(some, jobs, at) ?? Number.POSITIVE_INFINITY;
        assert.ok(turn > at);
        const then = Math.min(at + later, turn - 1);
        assert.equal(
          deriveState(some, jobs, then).state,
          deriveState(some, jobs, at).state,
          `turn at ${turn - at}`,
        );
      },
    ),
    { numRuns: 3000 },
  );
});

test('what ended ahead of the clock did not end just now', () => {
  const sickPods = [{ namespace: 'os-framework', name: 'app-service-0', reason: 'CrashLoopBackOff' }];
  const from2035 = clustered(
    { sickPods },
    { install: seen({ ...installed, installed: { version: '1.12.0', at: at + 9 * 365 * day } }) },
  );
  assert.equal(deriveState(from2035, [], at).state, 'system-error');
  const reboot = job('command.reboot', 'succeeded', { finishedAt: at + day, boot: machine.bootId });
  assert.equal(deriveState(clustered(), [reboot], at).state, 'terminus-running');
});

const reasons: Partial<Record<NodeState, readonly string[]>> = {
  'network-not-ready': ['network_not_ready'],
  'install-failed': ['install_failed'],
  'ip-change-failed': ['ip_change_failed'],
  'invalid-ip-address': ['address_changed'],
  'system-error': [
    'cluster_unreachable',
    'pod_unhealthy',
    'node_not_in_cluster',
    'engine_without_installation',
    'facts_stale',
  ],
};

test('a state that is bad has a condition that says why, whatever the facts are', () => {
  fc.assert(
    fc.property(factsArbitrary(), fc.array(jobArbitrary(), { maxLength: 6 }), (some, jobs) => {
      const { state, because } = deriveState(some, jobs, at);
      const wanted = reasons[state];
      const codes = deriveConditions(some, jobs, at).map(({ code }) => code);
      assert.ok(wanted === undefined || wanted.some((code) => codes.includes(code)), `${state}: ${because}`);
    }),
    { numRuns: 2000 },
  );
});

/** Facts of one recorded machine each, mixed, some of them unknown, waiting or stale. */
function factsArbitrary(): fc.Arbitrary<Facts> {
  const picks = fc.array(fc.nat(recordedMachines.length - 1), { minLength: 14, maxLength: 14 });
  const fates = fc.array(fc.nat(5), { minLength: 14, maxLength: 14 });
  return fc.tuple(picks, fates).map(([from, fate]) => {
    const keys = Object.keys(facts()) as (keyof Facts)[];
    const mixed = keys.map((key, index) => {
      const value = recordedMachines[from[index % 14] ?? 0]?.facts[key];
      return [key, spoiled(value, fate[index % 14] ?? 0)];
    });
    return { ...facts(), ...Object.fromEntries(mixed) };
  });
}

function spoiled(value: unknown, fate: number): unknown {
  if (typeof value !== 'object' || value === null || !('known' in value)) return value;
  const fact = value as Observed<unknown>;
  if (fate === 0) return unknown('test', at - 1000, notObserved);
  if (fate === 1) return unknown('test', at - 1000, 'EIO');
  if (fate === 2 && fact.known)
    return { ...known(fact.value, 'test', 0), stale: { since: at - 5000, reason: 'EIO' } };
  return fact;
}

function jobArbitrary(): fc.Arbitrary<JobFacts> {
  return fc.record({
    operation: fc.constantFrom(
      'command.install',
      'command.uninstall',
      'command.changeHost',
      'command.upgrade',
      'command.reboot',
      'storage.provision',
      'other',
    ),
    state: fc.constantFrom('queued', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted'),
    phase: fc.option(fc.constantFrom('run', 'download')),
    percent: fc.option(fc.double({ min: 0, max: 100, noNaN: true })),
    error: fc.option(fc.string(), { nil: undefined }),
    createdAt: fc.integer({ min: at - 1e9, max: at }),
    finishedAt: fc.option(
      fc.oneof(
        fc.integer({ min: at - 1e9, max: at }),
        fc.integer({ min: at - 20 * minute, max: at + 20 * minute }),
      ),
      { nil: undefined },
    ),
  });
}
