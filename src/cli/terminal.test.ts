import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dataText } from '#cli/output.ts';
import { visible } from '#cli/terminal.ts';

test('what others have named is shown, not obeyed: escape sequences of both kinds, bells, backspaces', () => {
  const label = 'STICK\u001b]0;owned\u0007\u001b[2J\u009b31m\u0008\r';
  assert.equal(visible(label), 'STICK\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\x08\\x0d');
  assert.equal(visible('two\n\tlines, and Übung ✓'), 'two\n\tlines, and Übung ✓');
});

test('an object without a key is nothing, and says so', () => {
  assert.equal(dataText({}), 'none\n');
});
