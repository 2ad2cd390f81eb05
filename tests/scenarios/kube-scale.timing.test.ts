import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Figures, Helper } from '../support/kube-helper.ts';
import { stayOn } from '../support/processors.ts';
import { best, type Samples, samples } from '../support/samples.ts';

const soak = process.env['BEOSD_SOAK'] === '1';
/** Calm and hectic in turn, so that what others do on the machine hits both alike. */
const rounds = soak ? 20 : 6;
const roundMs = soak ? 3000 : 2000;
/** What changes the cluster has a processor of its own; the daemon and the client that polls share the other. */
const loadProcessor = 1;
stayOn(0);
const mib = 1024 * 1024;

const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

/** A daemon that follows a cluster of so many pods, once it knows them all. */
async function scene(pods: number, nodes: number) {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-scale-'));
  open.push(async () => rmSync(dir, { recursive: true, force: true }));
  const churn = new Helper('kube-churn.ts', [String(pods), String(nodes)], loadProcessor);
  open.push(() => churn.end());
  const { kubeconfig } = await churn.line<{ kubeconfig: string }>();
  writeFileSync(join(dir, 'kubeconfig'), kubeconfig);
  const began = performance.now();
  const daemon = new Helper('kube-daemon.ts', [dir, join(dir, 'kubeconfig')]);
  open.push(() => daemon.end());
  const { port } = await daemon.line<{ port: number }>();
  const figures = () => daemon.ask<Figures>('figures');
  const deadline = performance.now() + 60_000;
  for (
    let now = await figures();
    now.pods !== pods || now.clusterLink !== 'connected';
    now = await figures()
  ) {
    if (performance.now() > deadline) throw new Error(`not in sync: ${JSON.stringify(now)}`);
    await delay(50);
  }
  return { churn, port, figures, syncMs: performance.now() - began };
}

/** After the garbage of the sync has gone. */
async function settled(figures: () => Promise<Figures>): Promise<Figures> {
  let best = await figures();
  for (let count = 0; count < 5; count++) {
    await delay(400);
    const now = await figures();
    if (now.rss < best.rss) best = now;
  }
  return best;
}

test('10,000 pods on 200 nodes cost at most 15 MB more than 100 pods', async (context) => {
  const small = await scene(100, 2);
  const few = await settled(small.figures);
  const large = await scene(10_000, 200);
  const many = await settled(large.figures);
  const used = (each: Figures) => (each.heapUsed + each.external) / mib;
  const [live, rss] = [used(many) - used(few), (many.rss - few.rss) / mib];
  context.diagnostic(
    `live memory +${live.toFixed(1)} MiB, RSS +${rss.toFixed(1)} MiB (${(few.rss / mib).toFixed(0)} → ${(many.rss / mib).toFixed(0)}), in sync ${large.syncMs.toFixed(0)} ms after the start`,
  );
  assert.ok(live <= 15, `live +${live.toFixed(1)} MiB`);
});

test('1,000 changes a second: the status stays quick', async (context) => {
  const { churn, port, figures } = await scene(10_000, 200);
  await samples(port, '/system/status', 2000);
  const idle: Samples[] = [];
  const busy: Samples[] = [];
  let sent = 0;
  let cpu = 0;
  for (let round = 0; round < rounds; round++) {
    idle.push(await samples(port, '/system/status', roundMs));
    const before = await figures();
    const changes = churn.ask<{ sent: number }>(`churn 1000 ${roundMs}`);
    busy.push(await samples(port, '/system/status', roundMs));
    sent += (await changes).sent;
    const after = await figures();
    cpu += ((after.cpuMs - before.cpuMs) / (after.at - before.at) / rounds) * 100;
  }
  const [calm, hectic] = [best(idle), best(busy)];
  context.diagnostic(
    `${sent} changes in ${rounds} rounds of ${roundMs} ms; p99 of the best round idle ${calm.toFixed(2)} ms, busy ${hectic.toFixed(2)} ms (${(hectic / calm).toFixed(2)}×); CPU of the daemon ${cpu.toFixed(0)} %`,
  );
  assert.ok(sent >= rounds * roundMs * 0.95);
  assert.ok(hectic <= 2 * calm, `p99 ${calm.toFixed(2)} → ${hectic.toFixed(2)} ms`);
});

test('idle: no process is started, and the facts do not change', async (context) => {
  const { figures } = await scene(100, 2);
  const before = await settled(figures);
  await delay(soak ? 60_000 : 5000);
  const after = await figures();
  context.diagnostic(
    `${after.started - before.started} processes, CPU ${(after.cpuMs - before.cpuMs).toFixed(0)} ms`,
  );
  assert.equal(after.started, before.started);
  assert.equal(after.clusterLink, 'connected');
});
