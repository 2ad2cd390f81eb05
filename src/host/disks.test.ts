import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SystemDisks } from '#host/disks.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';

function world() {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-disks-'));
  const lock = join(folder, 'disks.lock');
  const image = join(folder, 'disk');
  writeFileSync(image, Buffer.alloc(2 * 1024 * 1024, 1));
  return { lock, image, disks: new SystemDisks(new SystemExec(), new Files(), lock) };
}

/** A program that holds the lock as one does that outlives its daemon; it ends when its input does. */
async function survivor(lock: string) {
  const child = spawn('flock', ['--no-fork', lock, 'sh', '-c', 'echo writing; cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

test('what writes to a disk is waited for, also when the daemon that started it has gone', async () => {
  const { lock, disks } = world();
  await disks.quiet();
  const child = await survivor(lock);
  let over = false;
  const quiet = disks.quiet().then(() => {
    over = true;
  });
  assert.equal(
    await Promise.race([
      quiet,
      once(child, 'exit', { signal: AbortSignal.timeout(300) }).catch(() => 'pending'),
    ]),
    'pending',
  );
  assert.equal(over, false);
  child.stdin.end();
  await quiet;
});

test('a program that writes to a disk holds the lock itself', async () => {
  const { lock, image, disks } = world();
  const child = await survivor(lock);
  const wiped = disks.wipe(image, 2 * 1024 * 1024);
  assert.equal(readFileSync(image).at(-1), 1, 'nothing is written beside the survivor');
  child.stdin.end();
  await wiped;
  assert.ok(readFileSync(image).every((byte) => byte === 0));
});

test('a folder is given away without what is in it, and a link in its place without what it leads to', {
  skip: process.getuid?.() === 0 ? false : 'needs root',
}, async () => {
  const { image, disks } = world();
  const folder = mkdtempSync(join(tmpdir(), 'beosd-given-'));
  mkdirSync(join(folder, 'inside'));
  symlinkSync(image, join(folder, 'link'));
  await disks.give(folder, { uid: 1234, gid: 1235 });
  await disks.give(join(folder, 'link'), { uid: 1234, gid: 1235 });
  const ownerOf = (path: string) => {
    const { uid, gid } = lstatSync(path);
    return [uid, gid];
  };
  assert.deepEqual([folder, join(folder, 'link')].map(ownerOf), [
    [1234, 1235],
    [1234, 1235],
  ]);
  assert.deepEqual([join(folder, 'inside'), image].map(ownerOf), [
    [0, 0],
    [0, 0],
  ]);
});
