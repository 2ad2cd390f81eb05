import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { afterLogLine, afterProgressLine, begin, describe, duration } from '#cluster/progress.ts';
import { profiles } from '#daemon/profiles.ts';

const marks = profiles.olares.installer.install.marks;
const stamp = '2026-11-23T06:00:00.123+0000\t';

test('each recorded line of an installation gives its percentage', () => {
  const table = [
    [`${stamp}[A] master: time synchronization is normal`, 3],
    [`${stamp}k8s and kubesphere installation is complete`, 10],
    [`${stamp}Installing account ...`, 15],
    [`${stamp}[Module] SomethingElse`, 15],
    [`${stamp}Installing settings ...`, 20],
    [`${stamp}Installing appservice ...`, 25],
    [`${stamp}waiting for appservice`, 30],
    [`${stamp}Installing launcher ...`, 35],
    [`${stamp}[A] LocalHost: CheckLauncherStatus success (1.0s)`, 40],
    [`${stamp}Installing built-in apps ...`, 45],
    [`${stamp}Installing account ...`, 45], // late: never back
    [`${stamp}Performing the final configuration ...`, 65],
    [`${stamp}Installing backup component ...`, 70],
    [`${stamp}Waiting for Vault ...`, 80],
    [`${stamp}Starting Olares ...`, 90],
    [`${stamp}Installation wizard is complete`, 95],
    [`${stamp}All done`, 99], // the last per cent is the exit code's
  ] as const;
  let progress = begin('waiting', 0);
  assert.equal(progress.percent, null);
  for (const [line, percent] of table) {
    progress = afterLogLine(progress, marks, line, 1);
    assert.equal(progress.percent, percent, line);
  }
});

test('a progress file is believed before the log, and only what is a figure counts', () => {
  let progress = afterLogLine(begin('waiting', 0), marks, 'Installing settings ...', 1);
  const table = [
    ['{"percent": 5, "message": "downloading"}', 5, 'downloading'],
    ['{"percent": "80", "message": "text is no figure"}', 5, 'text is no figure'],
    ['{"percent": 3, "message": "back"}', 5, 'back'],
    ['{"percent": 41.9, "phase": "images"}', 41, 'images'],
    ['{"percent": -1}', 41, 'images'],
    ['{"percent": 1e999, "message": "over"}', 99, 'over'],
    ['not json', 99, 'over'],
    ['[1]', 99, 'over'],
    ['null', 99, 'over'],
    [`{"message": "two\\nlines\\u0007"}`, 99, 'two lines'],
  ] as const;
  for (const [line, percent, step] of table) {
    progress = afterProgressLine(progress, line, 2);
    assert.deepEqual([progress.percent, progress.step], [percent, step], line);
  }
  assert.equal(afterLogLine(progress, marks, 'Waiting for Vault ...', 3), progress);
});

test('whatever is written, the figure never goes back and never says 100', () => {
  const line = fc.oneof(
    fc.string(),
    fc.constantFrom(...marks.map(({ text }) => text)),
    fc.record({ percent: fc.anything(), message: fc.anything() }).map((value) => JSON.stringify(value) ?? ''),
  );
  fc.assert(
    fc.property(fc.array(line), fc.boolean(), (lines, exact) => {
      let progress = begin('x', 0);
      for (const each of lines) {
        const before = progress.percent ?? 0;
        progress = exact ? afterProgressLine(progress, each, 1) : afterLogLine(progress, marks, each, 1);
        if ((progress.percent ?? 0) < before || (progress.percent ?? 0) > 99) return false;
      }
      return true;
    }),
  );
});

test('a step that takes long says for how long, in tens of seconds', () => {
  const progress = afterLogLine(begin('waiting', 0), marks, 'Installing account ...', 1_000);
  assert.equal(describe(progress, 30_999), 'Installing account ...');
  assert.equal(describe(progress, 31_000), '`Installing account ...` for 30 s');
  assert.equal(describe(progress, 201_999), '`Installing account ...` for 3 min 20 s');
  assert.equal(duration(60_000), '1 min');
  assert.equal(duration(3_900_000), '1 h 5 min');
  assert.equal(duration(7_200_000), '2 h');
});
