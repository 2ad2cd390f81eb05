import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError, SystemExec } from '#host/exec.ts';

test('a child that its deadline ended says when it is really gone', async () => {
  const failed = await new SystemExec()
    .run('sleep', ['60'], { timeoutMs: 20 })
    .catch((error: unknown) => error);
  assert.ok(failed instanceof ExecError);
  assert.equal(failed.reason, 'timeout');
  await failed.lingering;
});

test('a child that ended by itself does not linger', async () => {
  const failed = await new SystemExec().run('false', []).catch((error: unknown) => error);
  assert.ok(failed instanceof ExecError);
  assert.deepEqual([failed.reason, failed.exitCode, failed.lingering], ['exit', 1, undefined]);
});

test('a grandchild that keeps the output open does not make a child that has ended linger', async () => {
  const args = ['-c', 'sleep 60 & exit 0'];
  const failed = await new SystemExec().run('sh', args, { timeoutMs: 200 }).catch((error: unknown) => error);
  assert.ok(failed instanceof ExecError);
  await failed.lingering;
});

test('a listener that is not installed ends at once, and no process is started for it', async () => {
  const exec = new SystemExec();
  for (const file of ['no-such-program', '/no/such/program']) {
    const child = exec.lines(file, [], () => undefined);
    await child.ended;
    assert.equal(child.pid, undefined);
  }
  assert.equal(exec.started, 0);
  const listener = exec.lines('cat', ['/dev/null'], () => undefined);
  await listener.ended;
  assert.equal(exec.started, 1);
});
