import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { cpuMsOf, startDaemonProcess, startedBy } from '../support/daemon-process.ts';

test('60 s of idling: no process is started, less than 0.5 % of a core is used', async (context) => {
  await using daemon = await startDaemonProcess();
  await pause(3000);
  const before = { cpu: cpuMsOf(daemon.pid), started: await startedBy(daemon.port) };
  await pause(60_000);
  const cpu = cpuMsOf(daemon.pid) - before.cpu;
  const started = (await startedBy(daemon.port)) - before.started;
  context.diagnostic(`${cpu} ms of CPU in 60 s, ${started} processes`);
  assert.ok(Number.isFinite(before.started), 'the daemon counts what it starts');
  assert.equal(started, 0);
  assert.ok(cpu < 300, `${cpu} ms of CPU in 60 s`);
});
