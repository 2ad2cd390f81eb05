import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const head = "import { after, before, describe, it } from 'node:test';\n";

/** What `./test FILE` says of a file with this text. */
function said(text: string): { readonly output: string; readonly exitCode: number | null } {
  const file = join(mkdtempSync(join(tmpdir(), 'beosd-tally-')), 'some.test.ts');
  writeFileSync(file, head + text);
  const { NODE_TEST_CONTEXT: _ours, ...env } = process.env;
  const runner = join(import.meta.dirname, 'test.ts');
  const result = spawnSync(process.execPath, [runner, file], { encoding: 'utf8', env });
  return { output: result.stdout, exitCode: result.status };
}

const good = "it('is good', () => undefined);\n";

for (const [what, text, counts, clue] of [
  ['a good one', good, '1 passed, 0 failed, 0 skipped', /1 passed/],
  [
    'a suite that is skipped as a whole is told with its reason',
    `${good}describe('lab', { skip: 'needs root' }, () => { it('a', () => undefined); });`,
    '1 passed, 0 failed, 1 skipped',
    /some\.test\.ts: lab, all of it \(needs root\)/,
  ],
  [
    'a suite whose last hook fails has failed, although its tests passed',
    "describe('leaks', () => { after(() => { throw new Error('left behind'); }); it('a', () => undefined); });",
    '1 passed, 1 failed, 0 skipped',
    /left behind/,
  ],
  [
    'a suite that cannot even name its tests has failed',
    `${good}describe('broken', () => { throw new Error('no tests here'); });`,
    '1 passed, 1 failed, 0 skipped',
    /no tests here/,
  ],
  [
    'a suite is not counted again for the test in it that failed',
    "describe('one', () => { it('a', () => { throw new Error('wrong'); }); });",
    '0 passed, 1 failed, 0 skipped',
    /wrong/,
  ],
  [
    'a first hook that fails is told with its own words',
    "describe('one', () => { before(() => { throw new Error('no server'); }); it('a', () => undefined); });",
    '0 passed, 2 failed, 0 skipped',
    /no server/,
  ],
  ['a file without a test has failed', '', '0 passed, 1 failed, 0 skipped', /without a single test/],
  [
    'a file that cannot be loaded says why',
    "import 'nowhere-to-be-found';",
    '0 passed, 1 failed, 0 skipped',
    /Cannot find package 'nowhere-to-be-found'/,
  ],
] as const) {
  test(`counted: ${what}`, () => {
    const { output, exitCode } = said(text);
    assert.ok(output.trimEnd().endsWith(counts), output);
    assert.match(output, clue);
    assert.equal(exitCode, counts.includes(' 0 failed') ? 0 : 1);
  });
}
