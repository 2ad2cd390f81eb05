import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { KubeApiServer, whyNoKube } from '../support/kube-apiserver.ts';
import { type Figures, Helper } from '../support/kube-helper.ts';
import { KubeWorld, testNames } from '../support/kube-world.ts';
import { samples } from '../support/samples.ts';

const soak = process.env['BEOSD_SOAK'] === '1';
const [pods, nodes, churnMs] = soak ? [10_000, 200, 60_000] : [500, 10, 5000];
const mib = 1024 * 1024;

/** Runs `task` for 0 … count-1, 32 at a time. */
async function each(count: number, task: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await task(next++);
  };
  await Promise.all(Array.from({ length: 32 }, worker));
}

describe('a large cluster on a real API server', { skip: await whyNoKube() }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-scale-'));
  let server: KubeApiServer;
  let world: KubeWorld;
  let daemon: Helper;
  let port = 0;

  const figures = () => daemon.ask<Figures>('figures');
  const podName = (index: number) => `app-${index}`;

  before(async () => {
    server = await KubeApiServer.start();
    world = new KubeWorld(server);
    await world.define(testNames);
    for (let count = 0; count < 20; count++) await world.namespace(`user-space-${count}`);
    await each(nodes, (index) => world.node(`node-${index}`, { address: `192.168.1.${index + 10}` }));
    await each(100, (index) =>
      world.pod(`user-space-${index % 20}`, podName(index), { node: `node-${index % nodes}` }),
    );
    writeFileSync(join(dir, 'kubeconfig'), server.kubeconfig());
    daemon = new Helper('kube-daemon.ts', dir, join(dir, 'kubeconfig'));
    ({ port } = await daemon.line<{ port: number }>());
    await synced(100);
  });

  after(async () => {
    await daemon?.end();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  async function synced(wanted: number): Promise<Figures> {
    const deadline = performance.now() + 60_000;
    for (;;) {
      const now = await figures();
      if (now.pods === wanted && now.clusterLink === 'connected') return now;
      if (performance.now() > deadline) throw new Error(`not in sync: ${JSON.stringify(now)}`);
      await delay(100);
    }
  }

  test(`${pods} pods on ${nodes} nodes: memory over 100 pods, and a first sync in pages`, async (context) => {
    const few = await synced(100);
    await each(pods - 100, (index) =>
      world.pod(`user-space-${index % 20}`, podName(index + 100), { node: `node-${index % nodes}` }),
    );
    await daemon.end();
    const began = performance.now();
    daemon = new Helper('kube-daemon.ts', dir, join(dir, 'kubeconfig'));
    ({ port } = await daemon.line<{ port: number }>());
    await synced(pods);
    const syncMs = performance.now() - began;
    await delay(2000);
    const many = await figures();
    const used = (one: Figures) => (one.heapUsed + one.external) / mib;
    const [live, rss] = [used(many) - used(few), (many.rss - few.rss) / mib];
    context.diagnostic(
      `live +${live.toFixed(1)} MiB, RSS +${rss.toFixed(1)} MiB, in sync ${syncMs.toFixed(0)} ms after the start`,
    );
    assert.ok(live <= 15, `live +${live.toFixed(1)} MiB`);
  });

  test("changes at the server's sustained rate: all arrive", async (context) => {
    const idle = await samples(port, '/system/status', churnMs);
    const before = await figures();
    const end = performance.now() + churnMs;
    let sent = 0;
    const churn = each(64, async (index) => {
      const path = `/api/v1/namespaces/user-space-${index % 20}/pods/${podName(index)}`;
      for (let count = 0; performance.now() < end; count++, sent++) {
        const condition = { type: 'Ready', status: count % 2 === 0 ? 'False' : 'True' };
        const patch = { status: { conditions: [condition] } };
        await server.must('PATCH', `${path}/status`, patch, 'application/strategic-merge-patch+json');
      }
      const last = { status: { conditions: [{ type: 'Ready', status: 'True' }] } };
      await server.must('PATCH', `${path}/status`, last, 'application/strategic-merge-patch+json');
    });
    const busy = await samples(port, '/system/status', churnMs);
    await churn;
    const after = await figures();
    const cpu = ((after.cpuMs - before.cpuMs) / (after.at - before.at)) * 100;
    context.diagnostic(
      `${Math.round(sent / (churnMs / 1000))} changes a second; p99 idle ${idle.p99.toFixed(2)} ms, busy ${busy.p99.toFixed(2)} ms (the server and the writers share the processors); CPU of the daemon ${cpu.toFixed(0)} %`,
    );
    assert.ok(sent > 0);
    await synced(pods);
  });
});
