import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { noLoopDevices } from '../support/loop-disk.ts';
import { testsInPrivateMounts } from '../support/private-mounts.ts';

/**
 * The model of src/storage/model.test.ts once more, where loop disks are the sticks and the kernel mounts them: what it
 * holds to be a mount, a folder and a file is what counts. The shares are in the other one alone.
 */
const soak = process.env['BEOSD_SOAK'] === '1';
const runs = soak ? 30 : 4;
const steps = 100;

test('random plugs, ejects, crashes and reboots over loop disks', {
  skip: noLoopDevices() ?? false,
}, async (t) => {
  const base = realpathSync(mkdtempSync(join(tmpdir(), 'beosd-model-')));
  try {
    const env = {
      BEOSD_SEED: process.env['BEOSD_SEED'] ?? '20261123',
      BEOSD_MODEL_BASE: base,
      BEOSD_MODEL_RUNS: String(runs),
      BEOSD_MODEL_STEPS: String(steps),
    };
    const file = join(import.meta.dirname, '../support/storage-model-child.ts');
    await testsInPrivateMounts(t, file, env, soak ? 60 * 60_000 : 10 * 60_000);
  } finally {
    detachAll(base);
    rmSync(base, { recursive: true, force: true });
  }
});

/** Loop devices know no namespace: what a child that was killed has left is taken away. */
function detachAll(base: string): void {
  const list = execFileSync('losetup', ['--list', '--noheadings', '--output', 'NAME,BACK-FILE'], {
    encoding: 'utf8',
  });
  for (const line of list.split('\n')) {
    const [node, file] = line.trim().split(/\s+/);
    if (node !== undefined && file?.startsWith(`${base}/`) === true)
      spawnSync('losetup', ['--detach', node], { stdio: 'ignore' });
  }
}
