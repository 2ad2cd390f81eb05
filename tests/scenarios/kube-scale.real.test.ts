import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { KubeApiServer, whyNoKube } from '../support/kube-apiserver.ts';
import { type Figures, Helper } from '../support/kube-helper.ts';
import { KubeWorld, testNames } from '../support/kube-world.ts';
import { stayOn } from '../support/processors.ts';
import { best, type Samples, samples } from '../support/samples.ts';

const soak = process.env['BEOSD_SOAK'] === '1';
const [pods, nodes] = soak ? [10_000, 200] : [500, 10];
/** Calm and hectic in turn, so that what others do on the machine hits both alike. */
const [rounds, roundMs] = soak ? [20, 3000] : [5, 2000];
/** The server and who writes to it have a processor of their own; the daemon and the client that polls share the other. */
const loadProcessor = 1;
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
    stayOn(0);
    server = await KubeApiServer.start(loadProcessor);
    world = new KubeWorld(server);
    await world.define(testNames);
    for (let count = 0; count < 20; count++) await world.namespace(`user-space-${count}`);
    await each(nodes, (index) => world.node(`node-${index}`, { address: `192.168.1.${index + 10}` }));
    await each(100, (index) =>
      world.pod(`user-space-${index % 20}`, podName(index), { node: `node-${index % nodes}` }),
    );
    writeFileSync(join(dir, 'kubeconfig'), server.kubeconfig());
    daemon = new Helper('kube-daemon.ts', [dir, join(dir, 'kubeconfig')]);
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
    daemon = new Helper('kube-daemon.ts', [dir, join(dir, 'kubeconfig')]);
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

  test("changes at the server's sustained rate: the status stays quick, and all arrive", async (context) => {
    const writer = new Helper('kube-writer.ts', [server.url, server.caFile, String(pods)], loadProcessor);
    await writer.line();
    const idle: Samples[] = [];
    const busy: Samples[] = [];
    let sent = 0;
    let cpu = 0;
    for (let round = 0; round < rounds; round++) {
      idle.push(await samples(port, '/system/status', roundMs));
      const before = await figures();
      const written = writer.ask<{ sent: number }>(`write ${roundMs}`);
      busy.push(await samples(port, '/system/status', roundMs));
      sent += (await written).sent;
      const after = await figures();
      cpu += ((after.cpuMs - before.cpuMs) / (after.at - before.at) / rounds) * 100;
    }
    await writer.end();
    const [calm, hectic] = [best(idle), best(busy)];
    context.diagnostic(
      `${Math.round((sent / rounds / roundMs) * 1000)} changes a second for ${(rounds * roundMs) / 1000} s; p99 of the best round idle ${calm.toFixed(2)} ms, busy ${hectic.toFixed(2)} ms (${(hectic / calm).toFixed(2)}×); CPU of the daemon ${cpu.toFixed(0)} %`,
    );
    assert.ok(sent > 0);
    await synced(pods);
    assert.ok(hectic <= 2 * calm, `p99 ${calm.toFixed(2)} → ${hectic.toFixed(2)} ms`);
  });
});
