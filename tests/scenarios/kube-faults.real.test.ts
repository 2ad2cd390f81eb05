import assert from 'node:assert/strict';
import { cpSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { ClusterReport } from '#cluster/kube/cluster-watch.ts';
import { KubeApiServer, whyNoKube } from '../support/kube-apiserver.ts';
import { eventually, type Followed, follow, reasonOf } from '../support/kube-harness.ts';
import { arrangeRunning, verdictOn } from '../support/kube-situations.ts';
import { KubeWorld, testNames } from '../support/kube-world.ts';

const soak = process.env['BEOSD_SOAK'] === '1';
const frozenMs = soak ? 60_000 : 12_000;
const resources = 6;

const connected = (report: ClusterReport) => report.clusterLink === 'connected';
const lost = (report: ClusterReport) => report.clusterLink !== 'connected';
const version = (wanted: string) => (report: ClusterReport) =>
  connected(report) && report.cluster.known && report.cluster.value.version === wanted;

function assertLastTruth(report: ClusterReport): void {
  assert.ok(report.cluster.known, 'the last known truth is kept');
  assert.equal(report.cluster.value.keyPodCount, 2);
  assert.notEqual(report.cluster.stale, undefined);
  const verdict = verdictOn(report);
  assert.equal(verdict.state, 'terminus-running');
  assert.ok(verdict.codes.includes('cluster_unreachable'));
}

describe('a real API server that goes and comes back', { skip: await whyNoKube() }, () => {
  let server: KubeApiServer;
  let world: KubeWorld;
  let followed: Followed;
  let release = 0;

  before(async () => {
    server = await KubeApiServer.start();
    world = new KubeWorld(server);
    await world.define(testNames);
    await arrangeRunning(world);
    followed = follow(server.kubeconfig());
    await followed.until('connected', version('1.12.0'));
    await eventually('the pods of this node', () => followed.watch.localPods.size === 2);
  });

  after(async () => {
    await followed?.stop();
    await server?.stop();
  });

  /** A new fact arrives again; ms since `returned`. */
  async function recovered(returned: number): Promise<number> {
    const wanted = `2.0.${++release}`;
    await world.system(testNames, wanted);
    await followed.until('the change after the return', version(wanted), 5000);
    return performance.now() - returned;
  }

  test('killed and started again: last truth, no storm, recovery within 5 s', async (context) => {
    const requests = followed.watch.link.requests;
    await server.stopApi();
    assertLastTruth(await followed.until('lost', lost));
    await server.startApi();
    const ms = await recovered(performance.now());
    const made = followed.watch.link.requests - requests;
    context.diagnostic(`recovered ${ms.toFixed(0)} ms after the server was ready, ${made} requests`);
    assert.ok(ms < 5000);
    assert.ok(made < 20 * resources, `${made} requests`);
  });

  test(`frozen for ${frozenMs / 1000} s: noticed, no storm, recovery within 5 s`, async (context) => {
    const requests = followed.watch.link.requests;
    const frozen = performance.now();
    server.freeze();
    assertLastTruth(await followed.until('noticed', lost, 15_000));
    const noticed = performance.now() - frozen;
    await delay(Math.max(0, frozenMs - noticed));
    const asked = followed.watch.link.requests - requests;
    server.thaw();
    const ms = await recovered(performance.now());
    const made = followed.watch.link.requests - requests;
    context.diagnostic(
      `noticed after ${noticed.toFixed(0)} ms, ${asked} requests while frozen, recovered in ${ms.toFixed(0)} ms, ${made} requests in all`,
    );
    assert.ok(asked <= frozenMs / 1000, `${asked} requests while frozen`);
    assert.ok(ms < 5000);
    assert.ok(made < asked + 5 * resources);
  });

  test('etcd compacted and the server restarted: at most one list for each resource', async () => {
    const { lists } = followed.watch;
    for (let count = 0; count < 20; count++) await world.system(testNames, `3.0.${count}`);
    await server.stopApi();
    await followed.until('lost', lost);
    await server.compact();
    await server.startApi();
    assert.ok((await recovered(performance.now())) < 5000);
    assert.ok(followed.watch.lists - lists <= resources, `${followed.watch.lists - lists} lists`);
  });

  test('the kubeconfig is rotated to another token: used at once, nothing is lost', async () => {
    // The server of the test before may have sent one collection to be listed again, which is no matter of the state.
    await eventually('all watches', () => followed.watch.following, 15_000);
    writeFileSync(`${followed.kubeconfig}.new`, server.kubeconfig('second-token'));
    const lists = followed.watch.lists;
    renameSync(`${followed.kubeconfig}.new`, followed.kubeconfig);
    await followed.until('reopened', lost, 5000);
    assert.ok((await recovered(performance.now())) < 5000);
    assert.equal(followed.watch.lists, lists, 'same cluster: resumed');
    writeFileSync(followed.kubeconfig, server.kubeconfig('wrong-token'));
    const refused = await followed.until('refused', (report) => /answered 401/.test(reasonOf(report)), 5000);
    assertLastTruth(refused);
    writeFileSync(followed.kubeconfig, server.kubeconfig());
    assert.ok((await recovered(performance.now())) < 5000);
  });

  test('etcd put back to an older state: what is no more goes', async () => {
    await server.stopApi();
    await server.stopEtcd();
    cpSync(server.etcdDir(), `${server.dir}/backup`, { recursive: true });
    await server.startEtcd();
    await server.startApi();
    const later = new KubeWorld(server);
    for (let count = 0; count < 20; count++) await later.system(testNames, `4.0.${count}`);
    await later.pod('os-network', 'later', { phase: 'Pending' });
    const sick = (count: number) => (report: ClusterReport) =>
      connected(report) && report.cluster.known && report.cluster.value.sickPods.length === count;
    await followed.until('the later pod', sick(1));
    await server.stopApi();
    await server.stopEtcd();
    rmSync(server.etcdDir(), { recursive: true });
    renameSync(`${server.dir}/backup`, server.etcdDir());
    await server.startEtcd();
    await server.startApi();
    await followed.until('without the later pod', sick(0), 5000);
    assert.ok((await recovered(performance.now())) < 5000);
  });

  test(`idle for ${soak ? 60 : 8} s: no request besides the open watches`, async (context) => {
    // A restored server may have sent a collection to be listed once more, which ends by itself.
    await eventually('all watches', () => followed.watch.following, 15_000);
    const requests = followed.watch.link.requests;
    const reports = followed.reports.length;
    await delay(soak ? 60_000 : 8000);
    context.diagnostic(`${followed.watch.link.requests - requests} requests`);
    assert.equal(followed.watch.link.requests, requests);
    assert.equal(followed.reports.length, reports);
  });
});
