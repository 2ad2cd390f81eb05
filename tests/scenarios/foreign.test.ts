import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ask, startDaemonProcess } from '../support/daemon-process.ts';

const asRoot = process.getuid?.() === 0 ? false : 'needs root to mount';

test('it starts beside whatever lies in its data dir', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'beosd-foreign-'));
  for (const folder of ['runs/x/claim', 'runs/y/exit', 'secrets/x', '.owner.json.0123456789ab.tmp']) {
    mkdirSync(join(dataDir, folder), { recursive: true });
  }
  await using daemon = await startDaemonProcess({ dataDir });
  assert.equal((await ask(daemon.port, { path: '/system/status' })).status, 200);
  assert.match(daemon.log(), /sweeping what earlier jobs have left failed/);
});

test('it starts where a file stands in the place of its folders', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'beosd-foreign-'));
  for (const name of ['runs', 'secrets']) writeFileSync(join(dataDir, name), '');
  await using daemon = await startDaemonProcess({ dataDir });
  assert.equal((await ask(daemon.port, { path: '/system/status' })).status, 200);
});

test('it starts on a read-only disk with what a crash has left', { skip: asRoot }, async () => {
  const place = mkdtempSync(join(tmpdir(), 'beosd-readonly-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', place]);
  try {
    const dataDir = join(place, 'data');
    const first = await startDaemonProcess({ dataDir });
    await first.stop();
    for (const folder of ['runs/old', 'secrets']) mkdirSync(join(dataDir, folder), { recursive: true });
    for (const name of ['secrets/p', '.owner.json.0123456789ab.tmp']) writeFileSync(join(dataDir, name), 'x');
    execFileSync('mount', ['-o', 'remount,ro', place]);
    const socket = join(mkdtempSync(join(tmpdir(), 'beosd-run-')), 's');
    await using daemon = await startDaemonProcess({ dataDir, args: ['--socket', socket] });
    assert.equal((await ask(daemon.port, { path: '/system/status' })).status, 200);
  } finally {
    execFileSync('umount', ['-l', place]);
    rmSync(place, { recursive: true, force: true });
  }
});
