import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Status } from '#api/status.ts';
import { settled, until } from '../support/containerd.ts';
import { ask, askAsRoot, bundle, type DaemonProcess, startDaemonProcess } from '../support/daemon-process.ts';
import { InstallNode } from '../support/install-node.ts';
import { privateBus } from '../support/private-bus.ts';

const asRoot = process.getuid?.() === 0 ? false : 'needs root to mount';

async function statusOf(daemon: DaemonProcess): Promise<Status> {
  return (await ask(daemon.port, { path: '/system/status' })).json.data as Status;
}

async function untilCondition(
  daemon: DaemonProcess,
  code: string,
  there: boolean,
  withinMs = 20_000,
): Promise<Status> {
  const until = Date.now() + withinMs;
  for (;;) {
    const status = await statusOf(daemon);
    if (status.conditions.includes(code) === there) return status;
    assert.ok(
      Date.now() < until,
      `${code} ${there ? 'did not come' : 'did not go'}: ${status.conditions.join(', ')}\n${daemon.log()}`,
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A small file system of its own, gone at the end of the test. */
function tmpfs(size: string): { path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), 'beosd-small-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path]);
  return {
    path,
    [Symbol.dispose]: () => {
      execFileSync('umount', ['-l', path]);
      rmSync(path, { recursive: true, force: true });
    },
  };
}

/** The recorded installer, and what it has noted. */
function installer() {
  const node = new InstallNode();
  return { program: node.program, left: (name: string) => node.left(name) };
}

const hosts = (n: number) => ({ items: [{ ip: '10.1.2.3', host: `host-${n}.example` }] });

test('full disk: it serves on, says so, refuses to begin what it could not remember, and recovers', {
  skip: asRoot,
}, async () => {
  using disk = tmpfs('4m');
  const dataDir = join(disk.path, 'data');
  mkdirSync(dataDir);
  const { program, left } = installer();
  await using daemon = await startDaemonProcess({ dataDir, env: { BEOS_CLI: program } });
  await settled(daemon);
  const filler = join(disk.path, 'filler');
  try {
    writeFileSync(filler, Buffer.alloc(64 * 1024 * 1024));
  } catch (error) {
    assert.match(String(error), /ENOSPC/);
  }
  for (let n = 0; n < 50; n++) await askAsRoot(daemon, 'POST', '/system/hosts-file', hosts(n));
  const status = await untilCondition(daemon, 'store_unavailable', true);
  assert.ok(status.terminusState !== 'checking');
  const conditions = await askAsRoot(daemon, 'GET', '/system/conditions');
  assert.match(conditions.text, /store_unavailable.*remedy/s);
  const ready = await ask(daemon.port, { path: '/readyz' });
  assert.equal(ready.status, 503);
  const install = await askAsRoot(daemon, 'POST', '/command/install', { username: 'alice', password: 'x' });
  assert.deepEqual([install.status, install.json.error?.['code']], [503, 'store_unavailable'], install.text);
  assert.deepEqual(left('starts'), []);
  rmSync(filler);
  await untilCondition(daemon, 'store_unavailable', false);
  assert.equal((await ask(daemon.port, { path: '/readyz' })).status, 200);
});

test('it also starts on a full disk', { skip: asRoot }, async () => {
  using disk = tmpfs('1m');
  const filler = join(disk.path, 'filler');
  const dataDir = join(disk.path, 'data');
  mkdirSync(dataDir);
  try {
    writeFileSync(filler, Buffer.alloc(16 * 1024 * 1024));
  } catch (error) {
    assert.match(String(error), /ENOSPC/);
  }
  // The sandbox keeps its own hosts file in the data dir; with a full disk it has to do without.
  await using daemon = await startDaemonProcess({ dataDir });
  await untilCondition(daemon, 'store_unavailable', true);
  rmSync(filler);
  await untilCondition(daemon, 'store_unavailable', false);
});

test('what it says has no room, or nobody who listens: it serves on, and stops as ever', async () => {
  for (const out of ['/dev/full', 'a pipe that is closed']) {
    const dataDir = mkdtempSync(join(tmpdir(), 'beosd-deaf-'));
    const full = openSync('/dev/full', 'w');
    const args = [bundle, '--port', '0', '--data-dir', dataDir];
    const stdout = out === '/dev/full' ? full : 'pipe';
    const child = spawn(process.execPath, args, { stdio: ['ignore', stdout, full] });
    closeSync(full);
    child.stdout?.destroy();
    const ended = once(child, 'exit');
    const answers = () =>
      ask(join(dataDir, 'beosd.sock'), { path: '/livez' }).then(
        ({ status }) => status === 200,
        () => false,
      );
    await until(async () => child.exitCode !== null || (await answers()), 30_000);
    assert.ok(await answers(), `${out}: ended with ${child.exitCode}`);
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null], out);
  }
});

test('a store cut in half: set aside, said, and the owner is still the owner', async () => {
  const node = new InstallNode();
  await node.start();
  const answer = await node.signedLegacy('POST', '/command/install', { username: 'alice', password: 'x' });
  await node.ended((answer.json.data as { jobId: string }).jobId);
  await node.daemon.stop();
  const path = join(node.dir, 'data', 'beosd.db');
  truncateSync(path, Math.floor(statSync(path).size / 2));
  await using daemon = await node.start();
  const status = await untilCondition(daemon, 'store_damaged', true);
  assert.equal(status.owned, true);
  const conditions = await askAsRoot(daemon, 'GET', '/system/conditions');
  assert.match(conditions.text, /beosd\.db\.damaged-\d+/);
  // Old signatures cannot be told from new ones now: one window long only what is provably new counts.
  const legacy = await node.signedLegacy('POST', '/command/uninstall', {}, { username: 'alice' });
  assert.equal(legacy.json.error?.['code'], 'replay_window', legacy.text);
  assert.ok(Number(legacy.json.error?.['retryAfter']) > 0);
  const asRootNow = await askAsRoot(daemon, 'POST', '/command/uninstall');
  assert.equal(asRootNow.status, 200, asRootNow.text);
  await node.ended((asRootNow.json.data as { jobId: string }).jobId);
});

test('a store cut in half while it installs: nobody begins beside the installer, and an uninstall stops it first', async () => {
  const node = new InstallNode();
  node.play('hang');
  const before = await node.start();
  const answer = await node.signedLegacy('POST', '/command/install', { username: 'alice', password: 'x' });
  assert.equal(answer.status, 200, answer.text);
  await node.started(1);
  await until(() => existsSync(join(node.dir, 'base', 'installing.pid')), 15_000);
  const installer = Number((node.left('starts')[0] ?? '').split(' ')[0]);
  await before.kill();
  const store = join(before.dataDir, 'beosd.db');
  rmSync(`${store}-wal`, { force: true });
  truncateSync(store, Math.floor(statSync(store).size / 2));
  await using daemon = await node.start();
  const status = await untilCondition(daemon, 'store_damaged', true);
  assert.equal(status.terminusState, 'installing', 'its pid file names a process that lives');
  const plan = await askAsRoot(daemon, 'POST', '/command/install?dryRun=true', { username: 'alice' });
  assert.match(plan.text, /"no-run","ok":false,"reason":"an earlier run of the installer goes on/);
  const uninstall = await askAsRoot(daemon, 'POST', '/command/uninstall');
  assert.equal(uninstall.status, 200, uninstall.text);
  node.play('success');
  const job = await node.ended((uninstall.json.data as { jobId: string }).jobId);
  assert.equal(job.state, 'succeeded', JSON.stringify(job));
  assert.ok(!existsSync(`/proc/${installer}`), 'the installer has ended');
  assert.equal(node.left('starts').length, 2);
});

test('a store that cannot be read at the start: jobs that were open in it are taken up when it can', async () => {
  const node = new InstallNode();
  node.play('success', 0.1);
  const before = await node.start();
  const install = { username: 'alice', domain: 'example.com', password: 'canary-4711-secret' };
  const answer = await node.signedLegacy('POST', '/command/install', install);
  const { jobId } = answer.json.data as { jobId: string };
  await before.kill();
  const store = join(before.dataDir, 'beosd.db');
  const parts = ['', '-wal', '-shm'].map((suffix) => `${store}${suffix}`).filter(existsSync);
  for (const part of parts) renameSync(part, `${part}.away`);
  mkdirSync(store);
  await using daemon = await node.start();
  await untilCondition(daemon, 'store_unavailable', true);
  rmdirSync(store);
  for (const part of parts) renameSync(`${part}.away`, part);
  await untilCondition(daemon, 'store_unavailable', false);
  assert.equal((await node.ended(jobId)).state, 'succeeded');
  assert.equal(node.left('starts').length, 1);
});

test('a read-only data dir: it starts, serves, says so, and recovers', { skip: asRoot }, async () => {
  using disk = tmpfs('8m');
  const dataDir = join(disk.path, 'data');
  mkdirSync(dataDir);
  const first = await startDaemonProcess({ dataDir });
  const { nodeId } = await statusOf(first);
  await first.stop();
  execFileSync('mount', ['-o', 'remount,ro', disk.path]);
  const run = mkdtempSync(join(tmpdir(), 'beosd-run-'));
  await using daemon = await startDaemonProcess({ dataDir, args: ['--socket', join(run, 's')] });
  const status = await untilCondition(daemon, 'store_unavailable', true);
  assert.equal(status.nodeId, nodeId, 'what can be read is still known');
  assert.ok(status.conditions.includes('data_dir_read_only'), status.conditions.join(', '));
  execFileSync('mount', ['-o', 'remount,rw', disk.path]);
  await untilCondition(daemon, 'store_unavailable', false);
});

test('no D-Bus: it starts, serves, says so, and notices when the bus comes and goes', async () => {
  await using bus = await privateBus();
  await bus.kill();
  await using daemon = await startDaemonProcess({ env: { DBUS_SYSTEM_BUS_ADDRESS: bus.address } });
  await untilCondition(daemon, 'bus_unavailable', true);
  const conditions = await askAsRoot(daemon, 'GET', '/system/conditions');
  assert.match(conditions.text, /no message bus at/);
  const reboot = await askAsRoot(daemon, 'POST', '/command/reboot?dryRun=true');
  assert.equal(reboot.status, 200, reboot.text);
  await bus.restart();
  await untilCondition(daemon, 'bus_unavailable', false, 40_000);
  await bus.kill();
  await untilCondition(daemon, 'bus_unavailable', true);
});

test('two daemons on one data dir: the second one says so and goes', async () => {
  await using daemon = await startDaemonProcess();
  await assert.rejects(startDaemonProcess({ dataDir: daemon.dataDir }), /another beosd is running/);
});

test('a taken port ends with exit code 3', async () => {
  await using daemon = await startDaemonProcess();
  await assert.rejects(
    startDaemonProcess({ args: ['--port', String(daemon.port)] }),
    /ended with 3.*is taken/s,
  );
});
