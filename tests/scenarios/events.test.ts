import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ask, type DaemonProcess, startDaemonProcess } from '../support/daemon-process.ts';
import { randomFrom } from '../support/random.ts';
import { type SseEvent, SseReader } from '../support/sse.ts';

const socketOf = (daemon: DaemonProcess) => join(daemon.dataDir, 'beosd.sock');

/** Makes events: dry, harmless changes of the sandbox's own hosts file and refused reboots leave none; jobs do. */
async function stir(daemon: DaemonProcess, n: number): Promise<void> {
  const items = [{ ip: '10.9.8.7', host: `host-${n}.example` }];
  const headers = { 'content-type': 'application/json' };
  const body = JSON.stringify({ items });
  await ask(socketOf(daemon), { method: 'POST', path: '/system/hosts-file', headers, body });
}

test('a reader that reconnects 200 times at random, across restarts and kills, misses and repeats nothing', async (context) => {
  const random = randomFrom(context, 4711);
  let daemon = await startDaemonProcess();
  const seen: SseEvent[] = [];
  let last = 0;
  const restarts = new Set([40, 80, 120, 160]);
  for (let round = 0; round < 200; round++) {
    const reader = new SseReader(socketOf(daemon), last);
    await stir(daemon, round);
    await pause(random() * 25);
    if (restarts.has(round)) {
      if (round % 80 === 0) await daemon.kill();
      else await daemon.stop();
      daemon = await startDaemonProcess({ dataDir: daemon.dataDir });
    }
    reader.cut();
    await reader.closed;
    seen.push(...reader.events);
    last = seen.at(-1)?.id ?? last;
  }
  const final = new SseReader(socketOf(daemon), last);
  const marker = new SseReader(socketOf(daemon), 0);
  await marker.until(({ event }) => event !== '');
  await pause(300);
  final.cut();
  marker.cut();
  await Promise.all([final.closed, marker.closed]);
  seen.push(...final.events);
  const all = marker.events.map(({ id }) => id);
  const ids = seen.filter(({ event }) => event !== 'reset').map(({ id }) => id);
  assert.deepEqual(ids, all, 'what the reader got in pieces is what one reader gets at once');
  assert.ok(all.length >= 10, `there was something to miss: ${all.length} events`);
  assert.equal(seen.filter(({ event }) => event === 'reset').length, 0);
  await daemon.stop();
});
