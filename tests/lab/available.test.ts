import assert from 'node:assert/strict';
import { test } from 'node:test';
import { skipOrFail } from './available.ts';

const reason = 'the lab could not install cpio: no network';

test('a lab that cannot run is skipped with its reason on a machine of somebody, and fails an integration', () => {
  assert.equal(skipOrFail(reason, undefined), reason);
  assert.equal(skipOrFail(reason, 'false'), reason);
  assert.throws(() => skipOrFail(reason, 'true'), /could not install cpio: no network/);
});

test('a lab that can run does so everywhere', () => {
  for (const ci of [undefined, 'true']) assert.equal(skipOrFail(undefined, ci), undefined);
});
