import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Follower } from '#cluster/follow.ts';
import { profiles } from '#daemon/profiles.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';

function bench() {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-follow-'));
  const clock = new FakeClock();
  const said: string[] = [];
  const logFile = join(folder, 'install.log');
  const progressFile = join(folder, 'progress.jsonl');
  const follower = new Follower({
    files: new Files(),
    clock,
    marks: profiles.olares.installer.install.marks,
    folder,
    logFile,
    progressFile,
    from: { inode: 0, offset: 0, before: '' },
    firstStep: 'waiting for the installer',
    redact: (text) => text.replaceAll('geheim', '[password]'),
    report: (percent, message) => said.push(`${percent} ${message}`),
  });
  return { follower, clock, said, logFile, progressFile, folder };
}

test('a stalled step says how long it has taken, and changes its words at most every ten seconds', async () => {
  const { follower, clock, said, logFile } = bench();
  follower.look();
  writeFileSync(logFile, 'Installing account ...\n');
  for (let second = 0; second < 62; second++) {
    follower.look();
    await clock.advance(1_000);
  }
  assert.deepEqual(said, [
    'null waiting for the installer',
    '15 Installing account ...',
    '15 `Installing account ...` for 30 s',
    '15 `Installing account ...` for 40 s',
    '15 `Installing account ...` for 50 s',
    '15 `Installing account ...` for 1 min',
  ]);
  appendFileSync(logFile, 'Installing settings ...\n');
  follower.look();
  assert.equal(said.at(-1), '20 Installing settings ...');
});

test('a secret in the words of a progress file is taken out', () => {
  const { follower, said, progressFile } = bench();
  writeFileSync(progressFile, '{"percent": 7, "message": "user a, password geheim"}\n');
  follower.look();
  assert.deepEqual(said, ['7 user a, password [password]']);
});

test('a log that cannot be read costs the progress and nothing else', () => {
  const { follower, said, logFile } = bench();
  mkdirSync(logFile);
  follower.look();
  assert.deepEqual([said, follower.lastLine, follower.step], [[], '', 'waiting for the installer']);
});

test('the last words of a log tell nobody a secret, also one that is not of this run', () => {
  const { follower, logFile } = bench();
  writeFileSync(logFile, 'joining with token: K10abcdef::server:4711\n');
  follower.look();
  assert.equal(follower.lastLine, 'joining with token: [redacted]');
});

test('a log of many megabytes is read to its last words when the run has ended, and without a pause while it runs', async () => {
  const { follower, clock, said, logFile } = bench();
  const noise = `${'x'.repeat(1023)}\n`.repeat(9 * 1024);
  writeFileSync(logFile, `${noise}Installing account ...\n`);
  const over = new AbortController();
  const running = follower.run(over.signal);
  for (let look = 0; look < 3; look++) await clock.advance(250);
  assert.deepEqual(said, ['null waiting for the installer', '15 Installing account ...']);
  over.abort();
  await running;
  appendFileSync(logFile, `${noise}Task failed: no space left\n`);
  await follower.finish();
  assert.equal(follower.lastLine, 'Task failed: no space left');
});
