import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');

/** What a program says that writes to its log first, with standard error at `path`. */
async function saidBehindLog(path: string): Promise<string> {
  const text = `
    import { openLog } from '#daemon/log.ts';
    const log = openLog('info');
    for (let n = 0; n < 2000; n++) log.info({ text: 'x'.repeat(1000) }, 'hello');
    process.stdout.write('serves on');
  `;
  const fd = openSync(path, 'w');
  const child = spawn(process.execPath, ['--input-type=module', '--eval', text], {
    cwd: root,
    stdio: ['ignore', 'pipe', fd],
  });
  closeSync(fd);
  let said = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    said += chunk;
  });
  await once(child, 'close');
  return said;
}

test('a log that the disk has no room for ends nothing', async () => {
  assert.equal(await saidBehindLog('/dev/null'), 'serves on');
  assert.equal(await saidBehindLog('/dev/full'), 'serves on');
});
