import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serviceManager } from '#host/notify.ts';

const env = { NOTIFY_SOCKET: '/run/systemd/notify', WATCHDOG_USEC: '60000000' };

test('a message that does not reach the service manager ends nothing', async () => {
  const said: string[] = [];
  const run = (_file: string, args: readonly string[]) => {
    said.push(args.at(-1) ?? '');
    return Promise.reject(new Error('no process can be started'));
  };
  const manager = serviceManager(env, { run }, () => undefined);
  await manager.notify('READY=1');
  await manager.notify('WATCHDOG=1');
  assert.deepEqual(said, ['READY=1', 'WATCHDOG=1']);
});

test('only a manager that watches this very process is told that it lives', () => {
  const run = () => Promise.reject(new Error('not asked'));
  const watchdog = (more: NodeJS.ProcessEnv) =>
    serviceManager({ ...env, ...more }, { run }, () => undefined).watchdogMs;
  assert.equal(watchdog({}), 60_000);
  assert.equal(watchdog({ WATCHDOG_PID: String(process.pid) }), 60_000);
  assert.equal(watchdog({ WATCHDOG_PID: '1' }), undefined);
  assert.equal(watchdog({ WATCHDOG_USEC: '0' }), undefined);
});
