import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import type { InstallFacts, PathUsage, PendingShutdown, ReleaseFacts } from '#state/facts.ts';
import { ClockSync } from '#system/clock-sync.ts';
import { DiskSpace } from '#system/disk-space.ts';
import { InstallFiles } from '#system/install-files.ts';
import { Resync } from '#system/resync.ts';
import { ShutdownWatch } from '#system/shutdown.ts';
import { became } from '../../tests/support/became.ts';
import { heard } from '../../tests/support/heard.ts';

const files = new Files();
const folder = () => mkdtempSync(join(tmpdir(), 'beosd-sources-'));

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

function installFiles(baseDir: string, more: { root?: string; engineWords?: string[] } = {}) {
  const install = heard<InstallFacts>();
  const release = heard<ReleaseFacts>();
  const root = more.root ?? baseDir;
  const source = new InstallFiles({
    files,
    clock: new FakeClock(Date.now()),
    baseDir,
    releasePath: join(root, 'etc/beos/release'),
    releaseKeys: { name: 'BEOS_NAME', version: 'BEOS_VERSION', baseDir: 'BEOS_BASE_DIR' },
    etcdEnvPath: join(root, 'etc/etcd.env'),
    installerNames: ['beos-cli'],
    engineWords: more.engineWords ?? [],
    onFacts: (facts) => {
      install.onFacts(facts.install);
      release.onFacts(facts.release);
    },
  });
  return { source, install, release };
}

test('the files of an installation are seen as they come, also when their folder was not there', async (t) => {
  const base = join(folder(), 'later', 'base');
  const { source, install, release } = installFiles(base, { root: dirname(dirname(base)) });
  source.start();
  t.after(() => source.stop());
  assert.equal(install.last().installed, undefined);
  mkdirSync(base, { recursive: true });
  writeFileSync(join(base, '.prepared'), '1.12.0');
  await install.until(({ prepared }) => prepared);
  writeFileSync(join(base, '.installed'), '1.12.0 k3s');
  await install.until(({ installed }) => installed?.version === '1.12.0');
  write(
    join(dirname(dirname(base)), 'etc/etcd.env'),
    'ETCD_NAME=e\nETCD_LISTEN_PEER_URLS=https://192.168.1.10:2380\n',
  );
  await install.until(({ clusterAddress }) => clusterAddress === '192.168.1.10');
  write(
    join(dirname(dirname(base)), 'etc/beos/release'),
    'BEOS_NAME="alice@example.com"\nBEOS_VERSION=1.12.0=x\n',
  );
  await release.until(({ name, version }) => name === 'alice@example.com' && version === '1.12.0=x');
  rmSync(join(base, '.installed'));
  await install.until(({ installed }) => installed === undefined);
});

test('a half-written upgrade target is unknown: the one before stands, nothing is deleted', (t) => {
  const base = folder();
  const { source, install } = installFiles(base);
  const target = join(base, 'upgrade.target');
  writeFileSync(target, '{"version":"1.12.1","downloaded":true,"downloadOnly":true}');
  source.start();
  t.after(() => source.stop());
  const whole = { version: '1.12.1', downloaded: true, downloadOnly: true };
  assert.deepEqual(install.last().upgradeTarget, whole);
  writeFileSync(target, '{"version":"1.12.1","downlo');
  source.resync();
  const fact = install.said.at(-1);
  assert.deepEqual(fact?.known && [fact.value.upgradeTarget, typeof fact.stale?.reason], [whole, 'string']);
  assert.ok(files.exists(target));
  writeFileSync(target, 'v1.12.2\n');
  source.resync();
  const mended = install.said.at(-1);
  assert.deepEqual(mended?.known && [mended.value.upgradeTarget?.version, mended.stale], [
    'v1.12.2',
    undefined,
  ]);
});

test('a pid file is believed only while /proc has a process that it can have meant', async (t) => {
  const base = folder();
  const { source, install } = installFiles(base);
  t.after(() => source.stop());
  const pidFile = join(base, 'installing.pid');
  const alive = (text: string) => {
    writeFileSync(pidFile, text);
    source.resync();
    return install.last().installing?.alive;
  };
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));
  await became(child);
  assert.equal(alive(`${child.pid}\n`), true);
  // The file is older than the process: the pid was used again.
  utimesSync(pidFile, new Date(0), new Date(0));
  source.resync();
  assert.equal(install.last().installing?.alive, false);
  // … unless the command line is an installer's.
  const program = join(base, 'beos-cli');
  symlinkSync('/bin/sleep', program);
  const installer = spawn(program, ['60'], { stdio: 'ignore' });
  t.after(() => installer.kill('SIGKILL'));
  await became(installer);
  writeFileSync(pidFile, String(installer.pid));
  utimesSync(pidFile, new Date(0), new Date(0));
  source.resync();
  assert.equal(install.last().installing?.alive, true);
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(alive(String(child.pid)), false);
  assert.equal(alive(''), undefined);
  assert.equal(alive('not a pid'), undefined);
});

test('an engine that runs is found by its command line', async (t) => {
  const base = folder();
  const program = join(base, 'testengine');
  symlinkSync('/bin/sleep', program);
  const { source, install } = installFiles(base, { engineWords: ['testengine', '60'] });
  t.after(() => source.stop());
  source.start();
  assert.equal(install.last().engineRunning, false);
  const engine = spawn(program, ['60'], { stdio: 'ignore' });
  t.after(() => engine.kill('SIGKILL'));
  await became(engine);
  source.resync();
  assert.equal(install.last().engineRunning, true);
});

test('a folder that cannot be read is unknown, not "nothing installed"', () => {
  const base = folder();
  mkdirSync(join(base, '.installed')); // reading it fails with EISDIR, for root too
  const { source, install } = installFiles(base);
  source.resync();
  assert.match(JSON.stringify(install.said), /"known":false.*EISDIR/);
});

test('an address of the cluster that cannot be read hides nothing else, and the last one counts on', () => {
  const base = folder();
  const { source, install } = installFiles(base);
  write(join(base, '.installed'), '1.12.0 k3s');
  const path = join(base, 'etc/etcd.env');
  write(path, 'ETCD_LISTEN_PEER_URLS=https://192.168.1.10:2380\n');
  source.resync();
  rmSync(path);
  mkdirSync(path);
  source.resync();
  const fact = install.said.at(-1);
  assert.ok(
    fact?.known && fact.value.installed?.version === '1.12.0' && fact.value.clusterAddress === '192.168.1.10',
  );
  assert.match(fact.stale?.reason ?? '', /etcd\.env.*EISDIR/);
});

test('a scheduled shutdown is seen, and its cancelling too; a dry run is none', async (t) => {
  const path = join(folder(), 'systemd/shutdown/scheduled');
  const pending = heard<PendingShutdown | undefined>();
  const watch = new ShutdownWatch({ files, clock: new FakeClock(), path, onFacts: pending.onFacts });
  watch.start();
  t.after(() => watch.stop());
  assert.equal(pending.last(), undefined);
  write(path, 'USEC=1764000000000000\nWARN_WALL=1\nMODE=reboot\n');
  await pending.until((value) => value?.mode === 'reboot' && value.at === 1764000000000);
  writeFileSync(path, 'USEC=1\nMODE=dry-poweroff\n');
  await pending.until((value) => value === undefined);
  writeFileSync(path, 'USEC=1\nMODE=kexec\n');
  await pending.until((value) => value?.mode === 'other');
  rmSync(path);
  await pending.until((value) => value === undefined);
});

test('where no time service has left a trace nothing is said about the clock', (t) => {
  class Bare extends Files {
    override exists(): boolean {
      return false;
    }
    override modifiedAt(): undefined {
      return undefined;
    }
  }
  const clockFacts = heard<{ synchronised: boolean }>();
  const source = new ClockSync({
    files: new Bare(),
    clock: new FakeClock(),
    bootedAt: () => 0,
    onFacts: clockFacts.onFacts,
  });
  source.start();
  t.after(() => source.stop());
  assert.equal(clockFacts.said.at(-1)?.known, false);
});

test('timesyncd that runs but has not set the clock is the one case of "not synchronised"', (t) => {
  const traces = new Map<string, number>([['/run/systemd/timesync', 1]]);
  class Traces extends Files {
    override exists(path: string): boolean {
      return traces.has(path) || path === '/';
    }
    override modifiedAt(path: string): number | undefined {
      return traces.get(path);
    }
    override watchDir() {
      return { close: () => undefined };
    }
  }
  const clockFacts = heard<{ synchronised: boolean }>();
  const source = new ClockSync({
    files: new Traces(),
    clock: new FakeClock(),
    bootedAt: () => 1000,
    onFacts: clockFacts.onFacts,
  });
  source.start();
  t.after(() => source.stop());
  assert.equal(clockFacts.last().synchronised, false);
  traces.set('/run/systemd/timesync/synchronized', 1);
  source.resync();
  assert.equal(clockFacts.last().synchronised, true);
  traces.clear();
  traces.set('/var/lib/chrony/drift', 900); // of the boot before
  source.resync();
  assert.equal(clockFacts.said.at(-1)?.known, false);
  traces.set('/var/lib/chrony/drift', 1100);
  source.resync();
  assert.equal(clockFacts.last().synchronised, true);
});

test('the data directory is measured, also before it exists, and unknown where it cannot be', () => {
  const base = folder();
  const usage = heard<PathUsage>();
  const source = new DiskSpace({
    files,
    clock: new FakeClock(),
    dataDir: join(base, 'not/yet'),
    onFacts: usage.onFacts,
  });
  source.start();
  assert.ok(usage.last().totalBytes > 0);
  assert.equal(usage.last().readOnly, false);
  const gone = heard<PathUsage>();
  class Broken extends Files {
    override fileSystem(): never {
      throw new Error('EIO');
    }
  }
  new DiskSpace({
    files: new Broken(),
    clock: new FakeClock(),
    dataDir: base,
    onFacts: gone.onFacts,
  }).start();
  assert.match(JSON.stringify(gone.said), /"known":false.*EIO/);
});

test('the resync gives every source its turn once a minute, also after one that throws', async () => {
  const clock = new FakeClock();
  let turns = 0;
  const errors: unknown[] = [];
  const bad = {
    resync: () => {
      throw new Error('bad source');
    },
  };
  const resync = new Resync(clock, [bad, { resync: () => turns++ }], (error) => errors.push(error));
  const running = resync.start();
  await clock.advance(59_999);
  assert.equal(turns, 0);
  await clock.advance(1);
  await clock.advance(60_000);
  assert.deepEqual([turns, errors.length], [2, 2]);
  resync.stop();
  await running;
});

test('files that mean nothing to it cost it nothing, however many are written beside its own', async (t) => {
  const base = folder();
  const { source, install } = installFiles(base);
  source.start();
  t.after(() => source.stop());
  for (let n = 0; n < 300; n++) writeFileSync(join(base, `unpacked-${n}`), '');
  writeFileSync(join(base, '.prepared'), '1.12.0');
  await install.until(({ prepared }) => prepared);
  await new Promise(setImmediate); // every event that was waiting has been told by then
  assert.ok(install.said.length < 10, `read ${install.said.length} times`);
});
