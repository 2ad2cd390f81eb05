import assert from 'node:assert/strict';
import { realpath } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { labAvailable } from './available.ts';
import { bootContainer, type Container } from './nspawn.ts';

const reason = await labAvailable('container');
const root = fileURLToPath(new URL('../..', import.meta.url));

describe('runs that outlive the daemon, under systemd', {
  skip: reason ?? false,
  timeout: 15 * 60_000,
}, () => {
  let box: Container;
  before(async () => {
    const names = ['src', 'tests', 'package.json', 'node_modules'];
    const binds = await Promise.all(
      names.map(async (name) => ({ from: await realpath(`${root}${name}`), to: `/opt/beosd/${name}` })),
    );
    box = await bootContainer({ binds });
  });
  after(() => box[Symbol.asyncDispose]());

  it('keep the whole contract in transient units', async () => {
    const argv = ['node', '--test', '--test-reporter=tap', '/opt/beosd/tests/lab/longrun-inside.ts'];
    // It rejects with the report of the suite inside when a test of it fails.
    const { stdout } = await box.run(argv, { timeoutMs: 300_000 });
    assert.match(stdout, /^# pass 9$/m);
  });
});
