import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Followed, follow } from './kube-harness.ts';
import { arrangeRunning, type Situation, situations, verdictOn } from './kube-situations.ts';
import { type KubeApi, KubeWorld, testNames } from './kube-world.ts';

/** A server for a suite, and how to end it. */
export interface SuiteServer extends KubeApi {
  stop(): Promise<void>;
}

const fewestSituations = 30;

/**
 * Every situation, written into a server; state and conditions must be right, and the change must have arrived. The
 * latency (from the sending of the last write to the new facts) is reported; its median is bounded.
 */
export function situationSuite(
  title: string,
  start: () => Promise<SuiteServer>,
  medianMs: number,
  skip: string | false,
): void {
  describe(title, { skip }, () => {
    let server: SuiteServer;
    let world: KubeWorld;
    let followed: Followed;
    const latencies: number[] = [];

    before(async () => {
      server = await start();
      world = new KubeWorld(server);
      followed = follow(server.kubeconfig());
    });

    after(async () => {
      await followed?.stop();
      await server?.stop();
    });

    test('before the platform is installed there are nodes and nothing else', async () => {
      await world.node('node-1');
      const report = await followed.until(
        'the node',
        ({ cluster }) => cluster.known && cluster.value.nodeCount === 1,
      );
      assert.equal(report.clusterLink, 'connected');
      assert.equal(verdictOn(report).state, 'uninitialized');
    });

    test('definitions that come later are found', async () => {
      await world.define(testNames);
      await world.user(testNames, 'alice', { wizard: 'completed' });
      await followed.until(
        'the owner',
        ({ cluster }) => cluster.known && cluster.value.ownerName !== undefined,
      );
      await world.reset();
    });

    for (const situation of situations) {
      test(situation.name, async () => {
        latencies.push(await play(situation, world, followed));
      });
    }

    test('all situations were played, and the median latency is bounded', (context) => {
      assert.ok(latencies.length >= fewestSituations);
      latencies.sort((a, b) => a - b);
      const at = (share: number) => latencies[Math.floor((latencies.length - 1) * share)] ?? Number.NaN;
      const text = [0.5, 0.9, 1].map((share) => `p${share * 100} ${at(share).toFixed(1)} ms`).join(', ');
      context.diagnostic(`${latencies.length} situations: ${text}`);
      assert.ok(at(0.5) <= medianMs, text);
    });
  });
}

/** Returns ms from the last write to the facts. */
async function play(situation: Situation, world: KubeWorld, followed: Followed): Promise<number> {
  await world.reset();
  followed.identity = situation.identity ?? { hostName: 'node-1', addresses: ['192.168.1.10'] };
  await arrangeRunning(world);
  await situation.before?.(world);
  await world.settled(followed);
  const started = performance.now();
  await situation.change(world);
  const report = await followed.until(
    situation.name,
    ({ cluster }) => cluster.known && situation.facts(cluster.value),
  );
  const latency = performance.now() - started;
  const verdict = verdictOn(report);
  assert.equal(verdict.state, situation.state, JSON.stringify(report));
  assert.deepEqual(verdict.codes, situation.conditions ?? []);
  if (situation.names) assert.match(verdict.text, situation.names);
  return latency;
}
