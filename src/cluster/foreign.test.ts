import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { foreignCheck } from '#cluster/install.ts';
import { became } from '../../tests/support/became.ts';
import { installerBench } from '../../tests/support/installer-bench.ts';

function bench() {
  const { options, baseDir } = installerBench();
  mkdirSync(baseDir, { recursive: true });
  const path = join(baseDir, 'installing.pid');
  return { options, path, isFree: () => foreignCheck(options, 'installing.pid').ok };
}

test('a pid that was given to another process since is nobody in the way; one that wrote the file is', () => {
  const { path, isFree } = bench();
  writeFileSync(path, String(process.pid));
  assert.equal(isFree(), false);
  utimesSync(path, new Date('2020-01-01'), new Date('2020-01-01'));
  assert.equal(isFree(), true, 'the file is older than the process');
});

test('an installer is known by its command line too: a clock that was put right hides none', async () => {
  const { options, path, isFree } = bench();
  const child = spawn('/bin/sh', ['-c', 'read -r _', options.program], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  await became(child);
  writeFileSync(path, String(child.pid));
  utimesSync(path, new Date('2020-01-01'), new Date('2020-01-01'));
  const busy = !isFree();
  child.stdin.end();
  await once(child, 'exit');
  assert.ok(busy);
});

test('what is no pid file names nobody', () => {
  const { path, isFree } = bench();
  mkdirSync(path);
  assert.equal(isFree(), true);
  rmSync(path, { recursive: true });
  writeFileSync(path, '');
  truncateSync(path, 2 ** 30);
  assert.equal(isFree(), true);
  truncateSync(path, 0);
  assert.equal(isFree(), true);
});
