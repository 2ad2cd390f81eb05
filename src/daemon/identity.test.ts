import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeIdOf } from '#daemon/identity.ts';
import { Files } from '#host/files.ts';
import { KeyValues } from '#store/kv.ts';
import { Store } from '#store/store.ts';

test('the node is known by its machine-id without giving it away, else by an id of its own that stays', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'beosd-identity-'));
  const store = new Store(join(root, 'data'), Date.now);
  t.after(() => store.close());
  const kv = new KeyValues(store);
  const files = new Files(root);
  mkdirSync(join(root, 'etc'));
  const own = nodeIdOf(files, kv, false);
  assert.match(own, /^[0-9a-f]{32}$/);
  assert.equal(nodeIdOf(files, kv, true), own);
  const path = join(root, 'etc/machine-id');
  const machineId = '0123456789abcdef0123456789abcdef';
  writeFileSync(path, `${machineId}\n`);
  const derived = nodeIdOf(files, kv, false);
  assert.ok(/^[0-9a-f]{32}$/.test(derived) && derived !== own && derived !== machineId);
  assert.equal(nodeIdOf(files, kv, true), own, 'the sandbox is another node');
  for (const text of ['uninitialized\n', '']) {
    writeFileSync(path, text);
    assert.equal(nodeIdOf(files, kv, false), own, JSON.stringify(text));
  }
  rmSync(path);
  mkdirSync(path);
  assert.equal(nodeIdOf(files, kv, false), own, 'a folder in its place');
});
