import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '#host/clock.ts';
import { FileLock, LockBusy } from '#host/file-lock.ts';

const holder = `
  import { DatabaseSync } from 'node:sqlite';
  const db = new DatabaseSync(process.argv[1]);
  db.exec('BEGIN EXCLUSIVE');
  console.log('held');
  setInterval(() => {}, 1000);
`;

test('another process keeps us out, and its death by kill -9 lets us in', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'beosd-lock-')), 'sub', 'lock');
  const lock = new FileLock(path, systemClock);
  assert.equal(await lock.run(() => 1), 1);
  const child = spawn(process.execPath, ['--input-type=module', '-e', holder, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  await assert.rejects(
    lock.run(() => assert.fail('entered'), 100),
    LockBusy,
  );
  const entered = lock.run(() => 2, 5000);
  child.kill('SIGKILL');
  assert.equal(await entered, 2);
});

test('work that throws releases the lock', async () => {
  const lock = new FileLock(join(mkdtempSync(join(tmpdir(), 'beosd-lock-')), 'lock'), systemClock);
  await assert.rejects(
    lock.run(() => assert.fail('work failed')),
    /work failed/,
  );
  assert.equal(await lock.run(() => 3, 100), 3);
});
