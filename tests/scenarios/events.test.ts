import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { askAsRoot } from '../support/daemon-process.ts';
import { InstallNode } from '../support/install-node.ts';
import { randomFrom } from '../support/random.ts';
import { type SseEvent, SseReader } from '../support/sse.ts';

/** Installs and uninstalls without end: each is a dozen events. */
async function churn(node: InstallNode, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await askAsRoot(node.daemon, 'POST', '/command/install', { username: 'alice' });
      await askAsRoot(node.daemon, 'POST', '/command/uninstall');
    } catch {
      // the daemon is being restarted
    }
    await pause(20);
  }
}

test('a reader that reconnects 200 times at random, across restarts and kills, misses and repeats nothing', async (context) => {
  const random = randomFrom(context, 4711);
  const node = new InstallNode();
  node.play('success', 0);
  await node.start();
  const socket = () => join(node.daemon.dataDir, 'beosd.sock');
  const over = new AbortController();
  const churning = churn(node, over.signal);
  const seen: SseEvent[] = [];
  let last = 0;
  for (let round = 0; round < 200; round++) {
    const reader = new SseReader(socket(), last);
    await pause(random() * 60);
    if (round % 40 === 20) {
      if (round % 80 === 20) await node.daemon.kill();
      else await node.daemon.stop();
      await node.start();
    }
    reader.cut();
    await reader.closed;
    seen.push(...reader.events);
    last = seen.at(-1)?.id ?? last;
  }
  over.abort();
  await churning;
  const { json } = await askAsRoot(node.daemon, 'GET', '/jobs?limit=1');
  const newest = (json.data as { id: string }[])[0]?.id ?? '';
  await node.ended(newest);
  const [rest, whole] = [new SseReader(socket(), last), new SseReader(socket(), 0)];
  const { id: end } = await whole.until(
    ({ event, data }) => event === 'job' && data['id'] === newest && data['finishedAt'] !== null,
  );
  // Who cuts two readers at one moment has not cut them at one event: both are compared up to the same one.
  if (last < end) await rest.until(({ id }) => id >= end);
  for (const reader of [rest, whole]) reader.cut();
  await Promise.all([rest.closed, whole.closed]);
  seen.push(...rest.events);
  const upToEnd = (events: readonly SseEvent[]) => events.map(({ id }) => id).filter((id) => id <= end);
  context.diagnostic(`${whole.events.length} events`);
  assert.ok(whole.events.length > 200, `there was something to miss: ${whole.events.length} events`);
  assert.deepEqual(
    upToEnd(seen),
    upToEnd(whole.events),
    'what the reader got in pieces is what one reader gets at once',
  );
  assert.equal(seen.filter(({ event }) => event === 'reset').length, 0);
  await node.daemon.stop();
});
