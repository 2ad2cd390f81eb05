import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from '#host/clock.ts';
import { Files } from '#host/files.ts';
import { SystemLongRun } from '#host/longrun.ts';
import { DetachedLauncher } from '#host/longrun-detached.ts';
import { SecretFiles } from '#host/secrets.ts';
import { longRunContract } from '../../tests/support/longrun-contract.ts';

longRunContract({
  scratch: tmpdir(),
  launcher: () => new DetachedLauncher(),
  secrets: (dir) => new SecretFiles(dir, new Files()),
  kills: Number(process.env['KILLS'] ?? 20),
  driver: fileURLToPath(new URL('../../tests/support/longrun-driver.ts', import.meta.url)),
});

function bench(launcher: DetachedLauncher) {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-run-'));
  const spec = { id: 'r', env: { PATH: '/usr/bin:/bin' }, cwd: dir, logFile: join(dir, 'log') };
  const options = { launcher, files: new Files(), clock: systemClock };
  return { dir, spec, runs: new SystemLongRun({ ...options, runsDir: join(dir, 'runs') }) };
}

/** Says that it could not launch, after `act` has had the runner's command. */
function refusing(act: (argv: readonly string[]) => void): DetachedLauncher {
  const launcher = new DetachedLauncher();
  launcher.launch = async (_spec, argv) => {
    act(argv);
    throw new Error('no answer in time');
  };
  return launcher;
}

test('a runner that comes after its launch was given up does not begin: nothing runs that nobody knows of', async () => {
  let runner: readonly string[] = [];
  const late = refusing((argv) => {
    runner = argv;
  });
  const { runs, dir, spec } = bench(late);
  const started = join(dir, 'started');
  await assert.rejects(runs.start({ ...spec, argv: ['/bin/touch', started] }), /no answer in time/);
  const [file = '', ...args] = runner;
  spawnSync(file, args, { cwd: dir });
  assert.equal(new Files().exists(started), false);
  assert.deepEqual(runs.ids(), []);
});

test('a launch whose answer was lost counts when the runner is there', async () => {
  const { runs, spec } = bench(refusing(([file = '', ...args]) => void spawnSync(file, args)));
  await runs.start({ ...spec, argv: ['/bin/true'] });
  assert.deepEqual(runs.find('r'), { kind: 'exited', code: 0 });
});

test('a run whose files cannot be read for a moment is not over', async () => {
  const { dir, spec } = bench(new DetachedLauncher());
  class Hesitating extends Files {
    failures = 0;
    override readText(path: string, maxBytes?: number): string | undefined {
      if (this.failures > 0 && this.failures-- > 0)
        throw Object.assign(new Error('EMFILE'), { code: 'EMFILE' });
      return super.readText(path, maxBytes);
    }
  }
  const files = new Hesitating();
  const options = { launcher: new DetachedLauncher(), files, clock: systemClock, checkMs: 20 };
  const runs = new SystemLongRun({ ...options, runsDir: join(dir, 'runs') });
  await runs.start({ ...spec, argv: ['/bin/sh', '-c', 'exit 3'] });
  files.failures = 3;
  assert.deepEqual(await runs.wait('r', AbortSignal.timeout(10_000)), { kind: 'exited', code: 3 });
  assert.equal(files.failures, 0);
});
