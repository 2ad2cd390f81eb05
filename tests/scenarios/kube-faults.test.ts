import assert from 'node:assert/strict';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { afterEach, test } from 'node:test';
import { inspect } from 'node:util';
import type { ClusterReport } from '#cluster/kube/cluster-watch.ts';
import { type FaultyAnswer, KubeFake } from '../support/kube-fake.ts';
import { eventually, type Followed, follow, reasonOf } from '../support/kube-harness.ts';
import { arrangeRunning, verdictOn } from '../support/kube-situations.ts';
import { KubeWorld, testNames } from '../support/kube-world.ts';

/** Resources that are followed: nodes, pods, users, terminus, config maps, pods of this node. */
const resources = 6;

interface Scene {
  readonly fake: KubeFake;
  readonly world: KubeWorld;
  readonly followed: Followed;
}

const open: Scene[] = [];

async function scene(): Promise<Scene> {
  const fake = await KubeFake.start();
  const world = new KubeWorld(fake);
  await world.define(testNames);
  await arrangeRunning(world);
  const followed = follow(fake.kubeconfig());
  const made = { fake, world, followed };
  open.push(made);
  await followed.until('connected', connected);
  await eventually('the pods of this node', () => followed.watch.localPods.size === 2);
  await eventually('all watches', () => followed.watch.following); // or what happens next falls between list and watch
  return made;
}

afterEach(async () => {
  for (const { followed, fake } of open.splice(0)) {
    await followed.stop();
    await fake.stop();
  }
});

const connected = (report: ClusterReport) => report.clusterLink === 'connected';
const lost = (report: ClusterReport) => report.clusterLink === 'unreachable';
const version = (wanted: string) => (report: ClusterReport) =>
  report.clusterLink === 'connected' && report.cluster.known && report.cluster.value.version === wanted;

function assertLastTruth(report: ClusterReport, reason: RegExp): void {
  assert.ok(report.cluster.known, 'the last known truth is kept');
  assert.equal(report.cluster.value.keyPodCount, 2);
  assert.match(report.cluster.stale?.reason ?? '', reason);
  const verdict = verdictOn(report);
  assert.equal(verdict.state, 'terminus-running');
  assert.ok(verdict.codes.includes('cluster_unreachable'));
}

test('cut connections resume where they broke off, without a new list', async () => {
  const { fake, world, followed } = await scene();
  const { lists } = followed.watch;
  const before = fake.requests.length;
  fake.cut();
  assertLastTruth(await followed.until('lost', lost), /connection|closed|stream|going away/);
  await world.system(testNames, '1.12.9');
  await followed.until('the change made meanwhile', version('1.12.9'), 5000);
  assert.equal(followed.watch.lists, lists, 'nothing was listed again');
  // One probe, one watch for each resource.
  await eventually('all watches', () => followed.watch.following);
  assert.equal(fake.requests.length - before, resources + 1);
});

test('the pods of this node grow old while their own watch is broken, whatever else the server says', async () => {
  const { fake, world, followed } = await scene();
  const { watch } = followed;
  const isOurs = (path: string) => path.includes('nodeName');
  await eventually('the watch', () => watch.localPodsAge === 0);
  fake.misbehave = ({ path }) => (isOurs(path) ? { kind: 'status', status: 500 } : undefined);
  fake.endWatches('pods');
  await eventually('the end of the watch', () => watch.localPodsAge > 0);
  const broke = performance.now();
  const asked = fake.requests.length;
  await eventually('three more tries', () => fake.requests.slice(asked).filter(isOurs).length >= 3);
  await world.system(testNames, '1.12.9');
  await eventually('news of something else', () => {
    const { cluster } = watch.report;
    return cluster.known && cluster.value.version === '1.12.9';
  });
  assert.ok(watch.localPodsAge >= performance.now() - broke - 1, `${watch.localPodsAge} ms old`);
  fake.misbehave = () => undefined;
  await eventually('the watch again', () => watch.localPodsAge === 0);
});

test('nothing of an answer that is no JSON gets into an error: what was sent may stand in it', async () => {
  const { fake, followed } = await scene();
  fake.misbehave = ({ watch }) => (watch ? undefined : { kind: 'garbage' });
  const failure = await followed.watch.request({ path: '/api/v1/namespaces' }).then(
    () => assert.fail('it was taken for an answer'),
    (error: unknown) => error,
  );
  assert.match(inspect(failure), /not JSON/);
  assert.ok(!inspect(failure).includes('<html'), inspect(failure));
});

test('a server that is away is asked for a few times a second, and found again within 5 s', async () => {
  const { fake, world, followed } = await scene();
  await fake.stop();
  assertLastTruth(await followed.until('lost', lost), /./);
  await world.system(testNames, '1.12.9');
  const reopened = performance.now();
  await fake.relisten();
  await followed.until('back', version('1.12.9'), 5000);
  assert.ok(performance.now() - reopened < 5000);
});

test('whoever waits for a connection gets the next one, also when some were opened in vain', async () => {
  const { fake, world, followed } = await scene();
  const isProbe = (path: string) => path.includes('kube-system');
  fake.misbehave = ({ path }) => (isProbe(path) ? { kind: 'status', status: 500 } : undefined);
  fake.cut();
  const asked = fake.requests.length;
  const probes = () => fake.requests.slice(asked).filter(isProbe).length;
  await eventually('four connections in vain', () => probes() >= 4, 15_000);
  await world.system(testNames, '1.12.9');
  fake.misbehave = () => undefined;
  await followed.until('back', version('1.12.9'), 5000);
  await eventually('the pods of this node', () => followed.watch.localPodsAge === 0);
});

test('a watch that is never answered, on a connection that is well, is told and asked for anew', async () => {
  const { fake, world, followed } = await scene();
  fake.misbehave = ({ path, watch }) =>
    watch && path.includes('terminus') ? { kind: 'silence' } : undefined;
  fake.endWatches('terminus');
  const told = (report: ClusterReport) => lost(report) && /terminus: no answer/.test(reasonOf(report));
  assertLastTruth(await followed.until('told', told, 20_000), /no answer within/);
  await world.system(testNames, '1.12.9');
  fake.misbehave = () => undefined;
  await followed.until('back', version('1.12.9'), 15_000);
});

for (const [name, answer] of [
  ['429 with Retry-After', { kind: 'status', status: 429, retryAfter: 1 }],
  ['500', { kind: 'status', status: 500 }],
  ['503', { kind: 'status', status: 503 }],
  ['503 with the Retry-After of a starting server', { kind: 'status', status: 503, retryAfter: 10 }],
  ['half a JSON line', { kind: 'half-line' }],
  ['something that is not JSON', { kind: 'garbage' }],
] as const satisfies readonly (readonly [string, FaultyAnswer])[]) {
  test(`a server that answers every watch with ${name}: last truth, no storm, back within 5 s`, async () => {
    const { fake, world, followed } = await scene();
    fake.misbehave = ({ watch }) => (watch ? answer : undefined);
    fake.cut();
    assertLastTruth(await followed.until('lost', lost), /./);
    const { lists } = followed.watch;
    const before = fake.requests.length;
    const sick = performance.now();
    await eventually('several refusals', () => fake.requests.length - before > 3 * resources, 15_000);
    const seconds = (performance.now() - sick) / 1000;
    const perSecond = (fake.requests.length - before) / seconds;
    assert.ok(perSecond < 10 * resources, `${perSecond.toFixed(1)} requests a second`);
    assert.equal(followed.watch.lists, lists, 'nothing was listed again');
    await world.system(testNames, '1.12.9');
    fake.misbehave = () => undefined;
    await followed.until('back', version('1.12.9'), 5000);
  });
}

test('a history that was compacted away is listed again once', async () => {
  const { fake, world, followed } = await scene();
  const { lists } = followed.watch;
  fake.cut();
  await world.system(testNames, '1.12.9');
  fake.compact();
  await followed.until('the change', version('1.12.9'), 5000);
  await eventually('all lists', () => followed.watch.lists >= lists + resources - 1, 5000);
  assert.ok(followed.watch.lists - lists <= resources, `${followed.watch.lists - lists} lists`);
});

test('a 410 in a running watch is not even told to the state', async () => {
  const { fake, followed, world } = await scene();
  const reports = followed.reports.length;
  const { lists } = followed.watch;
  let once = true;
  fake.misbehave = ({ watch, path }) => {
    if (!once || !watch || !path.includes('terminus')) return undefined;
    once = false;
    return { kind: 'gone' };
  };
  fake.endWatches('terminus');
  await eventually('a new list', () => followed.watch.lists === lists + 1, 5000);
  await world.system(testNames, '1.12.9');
  await followed.until('the change', version('1.12.9'), 5000);
  assert.ok(followed.reports.slice(reports).every(connected), 'never lost');
});

test('a server that comes back with an older history is listed again, and what is no more goes', async () => {
  const { fake, followed } = await scene();
  const backup = fake.save();
  const world = new KubeWorld(fake);
  await world.pod('os-network', 'later', { phase: 'Pending' });
  await followed.until(
    'the later pod',
    ({ cluster }) => cluster.known && cluster.value.sickPods.length === 1,
  );
  fake.restore(backup);
  fake.cut();
  const back = await followed.until(
    'without the later pod',
    (report) => connected(report) && report.cluster.known && report.cluster.value.sickPods.length === 0,
    5000,
  );
  assert.ok(back.cluster.known && back.cluster.value.keyPodCount === 2);
});

test('bookmarks move the position: a quiet resource survives a compaction without a list', async () => {
  const { fake, world, followed } = await scene();
  for (let count = 0; count < 5; count++) await world.system(testNames, `1.12.${count}`);
  await followed.until('the last', version('1.12.4'));
  fake.bookmark();
  await world.system(testNames, '1.12.8');
  await followed.until('after the bookmark', version('1.12.8'));
  const { lists } = followed.watch;
  fake.compactBelow(1);
  fake.cut();
  await world.system(testNames, '1.12.9');
  await followed.until('resumed', version('1.12.9'), 5000);
  assert.ok(followed.watch.lists - lists <= 1, 'only who had no news after the bookmark may list');
});

test('the kubeconfig is rotated: the new one is used at once', async () => {
  const { fake, world, followed } = await scene();
  const second = await KubeFake.start();
  try {
    const there = new KubeWorld(second);
    await there.define(testNames);
    await arrangeRunning(there);
    await there.system(testNames, '2.0.0');
    writeFileSync(`${followed.kubeconfig}.new`, second.kubeconfig());
    renameSync(`${followed.kubeconfig}.new`, followed.kubeconfig);
    await followed.until('the other cluster', version('2.0.0'), 5000);
    await world.system(testNames, '1.99.0');
    const requests = fake.requests.length;
    await there.system(testNames, '2.0.1');
    await followed.until('still the other cluster', version('2.0.1'));
    assert.equal(fake.requests.length, requests, 'the old server is not asked any more');
  } finally {
    await followed.stop();
    await second.stop();
  }
});

test('a kubeconfig that cannot be read says why, and the last truth stays', async () => {
  const { followed, fake } = await scene();
  writeFileSync(followed.kubeconfig, '{"clusters": [');
  assertLastTruth(await followed.until('lost', lost, 5000), /not YAML|no entry|not a kubeconfig/);
  writeFileSync(followed.kubeconfig, fake.kubeconfig());
  await followed.until('back', connected, 5000);
});

test('without a kubeconfig nothing is asked, and when it appears it is found', async () => {
  const { followed, fake } = await scene();
  rmSync(followed.kubeconfig);
  const report = await followed.until('none', ({ clusterLink }) => clusterLink === 'no-kubeconfig', 5000);
  assert.ok(report.cluster.known, 'it may be being rewritten: the last truth stays for a while');
  writeFileSync(followed.kubeconfig, fake.kubeconfig());
  await followed.until('back', connected, 5000);
});

test('credentials that are refused are told as such', async () => {
  const { followed, fake } = await scene();
  fake.misbehave = () => ({ kind: 'status', status: 401 });
  fake.cut();
  assertLastTruth(
    await followed.until('lost', (report) => lost(report) && /answered 401/.test(reasonOf(report)), 5000),
    /answered 401/,
  );
});
