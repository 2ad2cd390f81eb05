import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Compile } from 'typebox/compile';
import { StatusShape } from '#api/status.ts';
import { known, unknown } from '#lib/observed.ts';
import { Observatory, type Snapshot } from '#state/observatory.ts';
import {
  at,
  clustered,
  facts,
  job,
  link,
  machine,
  minute,
  network,
  nothingInstalled,
  seen,
  wired,
} from '../../tests/support/machines.ts';
import { recordedMachines } from '../../tests/support/recorded-machines.ts';

function observed(now = at) {
  const clock = { time: now, set: 0, now: () => clock.time + clock.set, monotonic: () => clock.time - now };
  const errors: unknown[] = [];
  const observatory = new Observatory({
    clock,
    version: '0.1.0',
    nodeId: '0123456789abcdef0123456789abcdef',
    profile: { defaultFrpServer: '', frpEnable: '0' },
    onListenerError: (error) => errors.push(error),
  });
  const changes: Snapshot[] = [];
  observatory.onChange((snapshot) => changes.push(snapshot));
  return { observatory, clock, changes, errors };
}

const statusOf = (snapshot: Snapshot) => snapshot.status;

test('before any source has reported the node is checking, and the answer is already there', () => {
  const { observatory } = observed();
  assert.equal(observatory.current.state, 'checking');
  const envelope = JSON.parse(observatory.current.body.toString());
  assert.deepEqual(
    [envelope.code, envelope.message, envelope.data.terminusdState],
    [200, 'success', 'initialize'],
  );
  assert.equal(envelope.data.defaultFrpServer, '');
});

test('an update that says nothing new makes no change and no event, however often it comes', () => {
  const { observatory, clock, changes } = observed();
  observatory.update(facts());
  const first = observatory.current;
  assert.equal(changes.length, 1);
  for (let round = 0; round < 10; round++) {
    clock.time += 1000;
    observatory.update({ network: known(structuredClone(wired), 'recorded', clock.time) });
    observatory.update({ externalIp: unknown('external-ip', clock.time, 'not observed yet') });
    observatory.setJobs([]);
    observatory.setOwner({ name: undefined, owned: false });
  }
  assert.equal(observatory.current, first);
  assert.equal(changes.length, 1);
});

test('every change is told once, with what was before, and the bytes are those of the status', () => {
  const { observatory, changes } = observed();
  const pairs: (readonly [string, string])[] = [];
  observatory.onChange((now, before) => pairs.push([before.state, now.state]));
  observatory.update(facts());
  observatory.setJobs([job('command.install', 'running')]);
  observatory.setOwner({ name: 'alice@example.com', owned: true });
  assert.deepEqual(pairs, [
    ['checking', 'not-installed'],
    ['not-installed', 'installing'],
    ['installing', 'installing'],
  ]);
  for (const snapshot of changes) {
    assert.deepEqual(JSON.parse(snapshot.body.toString()).data, JSON.parse(JSON.stringify(snapshot.status)));
  }
  assert.deepEqual(
    [statusOf(observatory.current).terminusName, statusOf(observatory.current).owned],
    ['alice@example.com', true],
  );
});

test('the resync renews observedAt silently, and tells what time alone has changed', () => {
  const { observatory, clock, changes } = observed();
  observatory.update(clustered({}, { machine: seen({ ...machine, bootedAt: at - 2 * minute }) }));
  assert.equal(observatory.current.state, 'restarting');
  clock.time += 30_000;
  observatory.resync();
  assert.equal(changes.length, 1);
  assert.equal(statusOf(observatory.current).observedAt, new Date(clock.time).toISOString());
  clock.time += minute;
  observatory.resync();
  assert.deepEqual([changes.length, observatory.current.state], [2, 'terminus-running']);
});

test('a clock that is set does not make a machine that has just started an old one', () => {
  const { observatory, clock } = observed();
  const sickPods = [{ namespace: 'os-framework', name: 'app-service-0', reason: 'Pending' }];
  observatory.update(clustered({ sickPods }, { machine: seen({ ...machine, bootedAt: at - minute }) }));
  assert.equal(observatory.current.state, 'restarting');
  for (const set of [8 * 60 * minute, -30 * minute]) {
    clock.set = set;
    clock.time += 1000;
    observatory.update({ bus: { available: set < 0, reason: undefined } });
    assert.equal(observatory.current.state, 'restarting', `set by ${set}`);
  }
  const bootedAt = clock.now() - minute - 2000;
  observatory.update({ machine: known({ ...machine, bootedAt }, 'machine', clock.now()) });
  clock.time += 9 * minute;
  observatory.resync();
  assert.equal(observatory.current.state, 'system-error', 'ten minutes are ten minutes');
});

test('a condition keeps its first date while it lasts, and gets a new one when it comes back', () => {
  const { observatory, clock } = observed();
  const bad = { clock: known({ synchronised: false }, 'clock-sync', at) };
  const since = () =>
    observatory.current.conditions.find(({ code }) => code === 'clock_not_synchronised')?.since;
  observatory.update(facts(bad));
  clock.time += minute;
  observatory.update({ bus: { available: false, reason: 'no socket' } });
  assert.equal(since(), new Date(at).toISOString());
  observatory.update({ clock: known({ synchronised: true }, 'clock-sync', clock.time) });
  assert.equal(since(), undefined);
  clock.time += minute;
  observatory.update(bad);
  assert.equal(since(), new Date(clock.time).toISOString());
});

test('a listener that throws is reported, and the others are still told', () => {
  const { observatory, changes, errors } = observed();
  const stop = observatory.onChange(() => {
    throw new Error('bad listener');
  });
  observatory.onChange((snapshot) => changes.push(snapshot));
  observatory.update(facts());
  assert.deepEqual([changes.length, errors.length], [2, 1]);
  stop();
  observatory.update({ clusterLink: 'connecting' });
  assert.equal(errors.length, 1);
});

test('the status of every recorded machine is as the contract says', () => {
  const check = Compile(StatusShape);
  for (const { name, facts: recorded, jobs = [] } of recordedMachines) {
    const { observatory } = observed();
    observatory.update(recorded);
    observatory.setJobs(jobs);
    const { data } = JSON.parse(observatory.current.body.toString());
    assert.ok(check.Check(data), `${name}: ${JSON.stringify(check.Errors(data))}`);
    assert.ok(
      Object.values(data).every((value) => value !== null),
      name,
    );
  }
});

test('the observatory emits exactly when something has changed, whatever comes', () => {
  const patches = fc.array(
    fc.oneof(
      fc.nat(recordedMachines.length - 1).map((index) => ({ kind: 'facts' as const, index })),
      fc.nat(recordedMachines.length - 1).map((index) => ({ kind: 'jobs' as const, index })),
    ),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(patches, (sequence) => {
      const { observatory, changes } = observed();
      for (const { kind, index } of sequence) {
        const recorded = recordedMachines[index];
        const before = observatory.current;
        const told = changes.length;
        if (kind === 'facts') observatory.update(structuredClone(recorded?.facts ?? {}));
        else observatory.setJobs(structuredClone(recorded?.jobs ?? []));
        assert.equal(changes.length > told, observatory.current !== before);
        const again = observatory.current;
        if (kind === 'facts') observatory.update(structuredClone(recorded?.facts ?? {}));
        else observatory.setJobs(structuredClone(recorded?.jobs ?? []));
        assert.equal(observatory.current, again);
      }
    }),
    { numRuns: 200 },
  );
});

test('a node that can be installed shows no install progress, whatever was done before', () => {
  const { observatory } = observed();
  observatory.update(facts());
  observatory.setJobs([
    job('command.install', 'succeeded'),
    job('command.uninstall', 'succeeded', { createdAt: at - 5 * minute }),
  ]);
  const { terminusState, installingState, installingProgress, uninstallingState } = statusOf(
    observatory.current,
  );
  assert.deepEqual(
    [terminusState, installingState, installingProgress, uninstallingState],
    ['not-installed', '', '', 'completed'],
  );
});

test('progress of jobs is told as the clients read it', () => {
  const { observatory } = observed();
  observatory.update(facts());
  observatory.setJobs([
    job('command.install', 'running', { percent: 41.7 }),
    job('command.collectLogs', 'failed', { error: 'no space' }),
  ]);
  const status = statusOf(observatory.current);
  assert.deepEqual(
    [
      status.installingState,
      status.installingProgress,
      status.collectingLogsState,
      status.collectingLogsError,
    ],
    ['in-progress', '41%', 'failed', 'no space'],
  );
});

test('nothing of an uninstalled node is left in the status', () => {
  const { observatory } = observed();
  observatory.update(clustered());
  assert.equal(statusOf(observatory.current).terminusName, 'alice@example.com');
  observatory.update({ install: seen(nothingInstalled) });
  const { terminusName, terminusVersion, installedTime } = statusOf(observatory.current);
  assert.deepEqual([terminusName, terminusVersion, installedTime], [undefined, undefined, undefined]);
});

test('cable and Wi-Fi are told apart, and sizes are in whole G', () => {
  const { observatory } = observed();
  observatory.update(facts({ network: seen(network([link('wlan0', 'wifi', ['192.168.1.9/24'])])) }));
  const { wifiConnected, wiredConnected, memory, disk } = statusOf(observatory.current);
  assert.deepEqual([wifiConnected, wiredConnected, memory, disk], [true, false, '16 G', '466 G']);
});
