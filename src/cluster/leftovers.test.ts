import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { sweepLeftovers } from '#cluster/leftovers.ts';
import { bootIdentity, startOf } from '#host/boot.ts';
import { installerBench } from '../../tests/support/installer-bench.ts';

test('a start removes the secrets and runs of jobs that are over, and nothing of open ones or of what still runs', async () => {
  const { options, dir } = installerBench();
  const { secrets, longRun } = options;
  for (const name of ['password-old', 'password-open', 'over.env', 'open.env']) secrets.put(name, 'x');
  const script = (name: string, text: string) => {
    writeFileSync(join(dir, name), text);
    return ['/bin/sh', join(dir, name)];
  };
  const spec = { env: { PATH: '/usr/bin:/bin' }, cwd: dir, logFile: join(dir, 'log') };
  await longRun.start({ ...spec, id: 'over', argv: script('over.sh', 'exit 0') });
  await longRun.start({ ...spec, id: 'open', argv: script('open.sh', 'exit 0') });
  await longRun.start({ ...spec, id: 'alive', argv: script('alive.sh', 'sleep 600') });
  for (const id of ['over', 'open']) await longRun.wait(id, AbortSignal.timeout(10_000));

  sweepLeftovers(options, [{ id: 'open', input: { username: 'a', secret: 'password-open' } }]);

  assert.deepEqual(
    ['password-old', 'password-open', 'over.env', 'open.env'].filter(
      (name) => secrets.read(name) !== undefined,
    ),
    ['password-open', 'open.env'],
  );
  assert.deepEqual(longRun.ids(), ['alive', 'open']);
  await longRun.stop('alive');
});

test('foreign things among runs and secrets stand in the way of nothing', () => {
  const { options, dir } = installerBench();
  mkdirSync(join(dir, 'runs', 'foreign', 'claim'), { recursive: true });
  mkdirSync(join(dir, 'runs', 'everybody'));
  writeFileSync(join(dir, 'runs', 'everybody', 'claim'), `1 ${startOf(1)} ${bootIdentity()} detached\n`);
  mkdirSync(join(dir, 'secrets', 'a-folder'), { recursive: true });
  options.secrets.put('password-old', 'x');
  assert.equal(options.longRun.find('foreign').kind, 'vanished');
  assert.equal(options.longRun.find('everybody').kind, 'vanished', 'process 1 is never a run of ours');
  assert.throws(() => sweepLeftovers(options, []), /EISDIR/);
  assert.equal(options.secrets.read('password-old'), undefined);
  assert.deepEqual(options.longRun.ids(), []);
});
