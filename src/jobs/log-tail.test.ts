import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Files } from '#host/files.ts';
import { tailOf } from '#jobs/log-tail.ts';

const bench = (text: string) => {
  const path = join(mkdtempSync(join(tmpdir(), 'beosd-log-')), 'log');
  writeFileSync(path, text);
  const files = new Files();
  const read = (from: number, to?: number, most = 1000) => tailOf(files, path, { from, to }, most);
  return { path, read };
};

test('a job shows what its own run has said, not what came before or after it', () => {
  const { path, read } = bench('before\n');
  appendFileSync(path, 'ours\n');
  assert.deepEqual(read(7), { text: 'ours\n', truncated: false }, 'while it runs');
  appendFileSync(path, 'All done\n');
  assert.deepEqual(read(7, 12), { text: 'ours\n', truncated: false }, 'when another has run since');
  writeFileSync(path, 'new\n');
  assert.deepEqual(read(7, 12), { text: '', truncated: true }, 'when another has cut the log');
  assert.deepEqual(read(7), { text: 'new\n', truncated: false }, 'when it has cut the log itself');
  assert.deepEqual(read(7, 4), { text: 'new\n', truncated: false }, 'and has ended');
});

test('of a long log the last whole lines are shown', () => {
  const { read } = bench('one\ntwo\nthree\n');
  assert.deepEqual(read(0, undefined, 10), { text: 'three\n', truncated: true });
});
