import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentFile, unitName } from '#host/longrun-systemd.ts';

test('an environment file escapes what systemd would read, and refuses more than one line', () => {
  assert.equal(environmentFile({ A: 'plain', B: 'a"b\\c$d`e' }), 'A="plain"\nB="a\\"b\\\\c\\$d\\`e"\n');
  assert.throws(() => environmentFile({ A: 'x\ny' }), /A must be one line/);
});

test('a unit is named after its run', () => {
  assert.equal(unitName('abc'), 'beosd-abc.service');
});
