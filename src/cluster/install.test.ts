import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { installDefinition } from '#cluster/install.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import { uninstallDefinition } from '#cluster/uninstall.ts';
import { startOf } from '#host/boot.ts';
import { Files } from '#host/files.ts';
import { SystemLongRun } from '#host/longrun.ts';
import { DetachedLauncher } from '#host/longrun-detached.ts';
import { type Checkpoint, Stopping } from '#jobs/definition.ts';
import { isFault } from '#lib/fault.ts';
import { known, unknown } from '#lib/observed.ts';
import { type InstallerBench, installerBench, runPhases } from '../../tests/support/installer-bench.ts';

const password = 'abcdefghijklmnopqrstuvwxyz012345';

function inputFor(bench: InstallerBench) {
  bench.options.secrets.put('password-1', password);
  return { username: 'alice', email: 'a@example.com', domain: 'example.com', secret: 'password-1' };
}

const rises = (figures: readonly number[]) => figures.every((each, at) => each >= (figures[at - 1] ?? 0));
const messageIn = (error: unknown) => (error instanceof Error ? error.message : '');

test('an installation runs the installer as its contract says and ends with a confirmed claim', async () => {
  const bench = installerBench();
  const { outcome, percents } = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.equal(outcome, 'succeeded');
  assert.ok(rises(percents) && percents.at(-1) === 99, percents.join(' '));
  assert.equal(bench.left('starts').length, 1);
  assert.match(
    bench.left('starts')[0] ?? '',
    new RegExp(`^\\d+ install --version 1\\.12\\.1 --base-dir ${bench.baseDir} --kube k3s$`),
  );
  assert.deepEqual(bench.left('seen'), ['file 600']);
  assert.equal(readFileSync(join(bench.baseDir, '.installed'), 'utf8'), '1.12.1 k3s\n');
  assert.deepEqual(bench.claim, ['confirm']);
  assert.equal(existsSync(join(bench.baseDir, 'installing.pid')), false);
  assert.equal(bench.options.secrets.read('password-1'), undefined, 'the secret is gone with the job');
});

test('the logs of an installer, which may hold the password, are for root alone', async () => {
  const bench = installerBench();
  const logs = join(bench.baseDir, 'versions', 'v1.12.1', 'logs');
  rmSync(join(bench.baseDir, 'versions'), { recursive: true, force: true });
  await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.equal(statSync(logs).mode & 0o777, 0o700);
});

test('the profile olares hands the password over in the environment, and nowhere else', async () => {
  const bench = installerBench('olares');
  const { outcome } = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.equal(outcome, 'succeeded');
  assert.deepEqual(bench.left('seen'), ['environment']);
});

test('while it runs, its pid file names a living process', async () => {
  const bench = installerBench();
  bench.mode('slow');
  let seen = 0;
  const onProgress = () => {
    const path = join(bench.baseDir, 'installing.pid');
    if (!existsSync(path)) return;
    const pid = Number(readFileSync(path, 'utf8'));
    if (bench.options.disk.isMeant(pid, path, bench.options.program)) seen++;
  };
  await runPhases(installDefinition(bench.options), inputFor(bench), { onProgress });
  assert.ok(seen > 3, `seen ${seen} times`);
});

test('an old log that already ends in "All done" counts for nothing, whether the installer cuts it or not', async () => {
  for (const mode of ['fail', 'fail own-log']) {
    const bench = installerBench('olares');
    bench.mode(mode);
    mkdirSync(join(bench.baseDir, 'versions/v1.12.1/logs'), { recursive: true });
    writeFileSync(
      join(bench.baseDir, 'versions/v1.12.1/logs/install.log'),
      'Starting Olares ...\nAll done\n',
    );
    const { outcome, percents } = await runPhases(installDefinition(bench.options), inputFor(bench));
    assert.equal(outcome, 'failed');
    assert.equal(percents.at(-1), 30, `${mode}: ${percents.join(' ')}`);
  }
});

/** Of the recording; the marks of the log have words of their own for the same steps. Two lines may be read as one. */
const wordsOfTheFile = new Set([
  '[A] master: time synchronization is normal',
  'k8s and kubesphere installation is complete',
  'Installing account ...',
  'Installing settings ...',
  'Installing appservice ...',
  'waiting for appservice',
]);

test('a progress file goes before the log', async () => {
  const bench = installerBench();
  bench.mode('progress slow fail');
  const { messages, percents } = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.ok(rises(percents) && percents.at(-1) === 30, percents.join(' '));
  const said = messages.slice(messages.indexOf('waiting for the installer') + 1);
  assert.ok(said.length > 0 && said.every((each) => wordsOfTheFile.has(each)), said.join(' | '));
});

test('a failure says how the installer ended, where, and with which last words, but no secret', async () => {
  const bench = installerBench();
  bench.mode('fail');
  const { outcome, error } = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.equal(outcome, 'failed');
  assert.match(
    messageIn(error),
    /ended with code 1, at "waiting for appservice"\. Its last line: .*timed out/,
  );
  assert.deepEqual(bench.claim, [], 'the owner has to be able to uninstall what is left');
});

test('where the log of a run ends is remembered with it: a later run writes into the same file', async () => {
  const bench = installerBench();
  bench.mode('fail');
  const { checkpoint } = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.equal(checkpoint['logEnd'], Buffer.byteLength(bench.log('install.log')));
});

test('an installer that is killed is a failure with the signal named, never a success', async () => {
  const bench = installerBench();
  bench.mode('crash');
  const { outcome, error } = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.equal(outcome, 'failed');
  assert.match(messageIn(error), /ended by signal 9/);
});

test('an installer that ends well without its mark has failed', async () => {
  const bench = installerBench();
  bench.mode('no-mark');
  const { outcome, error } = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.equal(outcome, 'failed');
  assert.match(messageIn(error), /there is no .*\.installed/);
});

test('a cancelled installation leaves no process behind, however deaf it is', async () => {
  for (const mode of ['hang', 'stubborn']) {
    const bench = installerBench();
    bench.mode(mode);
    const cancel = new AbortController();
    const onProgress = (message: string) => {
      if (message === 'waiting for appservice') cancel.abort(new Error('cancelled by test'));
    };
    const { outcome } = await runPhases(installDefinition(bench.options), inputFor(bench), {
      signal: cancel.signal,
      onProgress,
    });
    assert.equal(outcome, 'cancelled', mode);
    const pid = Number((bench.left('starts')[0] ?? '').split(' ')[0]);
    assert.equal(startOf(pid), undefined, mode);
    assert.equal(existsSync(join(bench.baseDir, 'installing.pid')), false);
    assert.deepEqual(bench.claim, []);
  }
});

test('a claim lapses when the installation is cancelled before the installer began', async () => {
  const bench = installerBench();
  const { outcome } = await runPhases(installDefinition(bench.options), inputFor(bench), {
    signal: AbortSignal.abort(new Error('cancelled by test')),
  });
  assert.equal(outcome, 'cancelled');
  assert.deepEqual([bench.claim, bench.left('starts')], [['lapse'], []]);
});

test('a run that was begun before another boot is not begun again', async () => {
  const bench = installerBench();
  const checkpoint = { log: { inode: 0, offset: 0, before: '' }, boot: 'another' };
  const { outcome, error } = await runPhases(installDefinition(bench.options), inputFor(bench), {
    checkpoint,
  });
  assert.equal(outcome, 'failed');
  assert.match(messageIn(error), /has vanished: the machine was restarted/);
  assert.deepEqual(bench.left('starts'), []);
});

test('the password that the ancestor prints into its log reaches neither progress, nor error, nor journal', async () => {
  const bench = installerBench('olares');
  bench.mode('fail-late');
  const run = await runPhases(installDefinition(bench.options), inputFor(bench));
  assert.match(messageIn(run.error), /Password: \[redacted\]/);
  assert.ok(bench.log('install.log').includes(password), 'the recording does print it');
  assert.ok(!JSON.stringify([run, messageIn(run.error)]).includes(password));
});

test('a daemon that stops leaves the installer alone and finds its true result later, 10 of 10', async () => {
  for (let at = 0; at < 10; at++) {
    const bench = installerBench();
    const mode = at % 2 === 0 ? 'success' : 'fail';
    bench.mode(mode);
    const definition = installDefinition(bench.options);
    const input = inputFor(bench);
    let checkpoint: Checkpoint = {};
    let seen = 0;
    for (let restart = 0; restart < 3; restart++) {
      const stop = new AbortController();
      const onProgress = () => {
        if (++seen % (1 + at) === 0) stop.abort(new Stopping());
      };
      const run = await runPhases(definition, input, { signal: stop.signal, checkpoint, onProgress });
      checkpoint = run.checkpoint;
      if (run.outcome !== 'interrupted') break;
    }
    // Once more, as after a crash between the end of the job and its entry in the journal.
    const last = await runPhases(definition, input, { checkpoint, from: 'install' });
    assert.equal(
      last.outcome,
      mode === 'success' ? 'succeeded' : 'failed',
      `run ${at}: ${messageIn(last.error)}`,
    );
    assert.equal(bench.left('starts').length, 1, `run ${at}`);
  }
});

test('an installer that has filled the disk ends as it ends: its result does not hang on what others are told', async () => {
  class FullDisk extends Files {
    override replace(): void {
      throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    }
    override remove(path: string): void {
      if (path.includes('base')) throw Object.assign(new Error('read-only'), { code: 'EROFS' });
      super.remove(path);
    }
  }
  const bench = installerBench('beos', { files: new FullDisk() });
  const definition = installDefinition(bench.options);
  const { outcome, error } = await runPhases(definition, inputFor(bench));
  assert.equal(outcome, 'succeeded', messageIn(error));
  assert.equal(bench.left('starts').length, 1);
});

test('an installer that cannot be started is named with the reason, and is no fault of ours', async () => {
  const bench = installerBench();
  const launcher = new DetachedLauncher();
  launcher.launch = () => Promise.reject(new Error('no message bus at unix:path=/x'));
  const { files, clock } = bench.options;
  const longRun = new SystemLongRun({ runsDir: join(bench.dir, 'runs'), launcher, files, clock });
  const definition = installDefinition({ ...bench.options, longRun });
  const { outcome, error } = await runPhases(definition, inputFor(bench));
  assert.equal(outcome, 'failed');
  assert.ok(isFault(error) && error.code === 'installer_unavailable', messageIn(error));
  assert.match(error.message, /node-cli could not be started: no message bus/);
});

test('a run that goes on without its job stands in the way of an installation, and an uninstall stops it first', async () => {
  const bench = installerBench();
  bench.mode('hang');
  const logs = join(bench.baseDir, 'versions/v1.12.1/logs');
  mkdirSync(logs, { recursive: true });
  const { longRun, program } = bench.options;
  const spec = { env: { PATH: '/usr/bin:/bin' }, cwd: join(logs, '..'), logFile: join(logs, 'install.log') };
  await longRun.start({ ...spec, id: 'lost', argv: [program, 'install', '--base-dir', bench.baseDir] });
  const state = longRun.find('lost');
  assert.ok(state.kind === 'running');
  writeFileSync(join(bench.baseDir, 'installing.pid'), `${state.pid}\n`);
  const unmet = (await installDefinition(bench.options).preconditions(input)).filter(({ ok }) => !ok);
  assert.deepEqual(
    unmet.map(({ name, code }) => [name, code]),
    [['no-run', 'conflict']],
  );
  assert.match(unmet[0]?.reason ?? '', new RegExp(`process ${state.pid}`));
  const definition = uninstallDefinition(bench.options);
  assert.ok((await definition.preconditions({})).every(({ ok }) => ok));
  let stillThere = 0;
  const onProgress = () => {
    if (longRun.find('lost').kind === 'running') stillThere++;
  };
  const { outcome, error } = await runPhases(definition, {}, { onProgress });
  assert.equal(outcome, 'succeeded', messageIn(error));
  assert.equal(stillThere, 0, 'it has ended before the uninstall begins');
  assert.match(bench.left('starts').at(-1) ?? '', /^\d+ uninstall/);
});

test('uninstall runs the installer, checks the mark, and lets go of the owner', async () => {
  const bench = installerBench('olares');
  mkdirSync(bench.baseDir, { recursive: true });
  writeFileSync(join(bench.baseDir, '.installed'), '1.12.1 k3s\n');
  const { outcome, percents } = await runPhases(uninstallDefinition(bench.options), {});
  assert.equal(outcome, 'succeeded');
  assert.ok(rises(percents) && percents.at(-1) === 99, percents.join(' '));
  assert.match(
    bench.left('starts')[0] ?? '',
    new RegExp(`^\\d+ uninstall --phase install --base-dir ${bench.baseDir}$`),
  );
  assert.deepEqual(bench.claim, ['release']);
});

test('what others left of failed work is gone with the node: it can be installed again', async () => {
  const bench = installerBench('olares');
  mkdirSync(bench.baseDir, { recursive: true });
  const marks = ['installing.pid', 'changingip.pid', '.ip_change_failed'];
  for (const name of ['.installed', ...marks]) writeFileSync(join(bench.baseDir, name), '999999999\n');
  bench.mode('fail');
  assert.equal((await runPhases(uninstallDefinition(bench.options), {})).outcome, 'failed');
  assert.deepEqual(
    marks.filter((name) => !existsSync(join(bench.baseDir, name))),
    [],
    'a node that is still there keeps them',
  );
  bench.mode('success');
  const { outcome } = await runPhases(uninstallDefinition(bench.options), {}, { jobId: 'again' });
  assert.equal(outcome, 'succeeded');
  assert.deepEqual(
    marks.filter((name) => existsSync(join(bench.baseDir, name))),
    [],
  );
});

test('an uninstall that fails keeps the owner', async () => {
  const bench = installerBench();
  bench.mode('fail');
  const { outcome } = await runPhases(uninstallDefinition(bench.options), {});
  assert.equal(outcome, 'failed');
  assert.deepEqual(bench.claim, []);
});

test('what stands in the way of an installation is named', async () => {
  const cases: [string, Partial<InstallerOptions>, string, string | undefined][] = [
    ['installer', { program: '/nowhere/cli' }, '/nowhere/cli', 'installer_unavailable'],
    ['sandbox', { sandboxed: true }, '--system', 'sandbox'],
    ['version', { version: '' }, 'INSTALLED_VERSION', undefined],
    ['clock', { clockSynchronised: () => known({ synchronised: false }, 't', 0) }, 'NTP', undefined],
  ];
  for (const [name, more, reason, code] of cases) {
    const checks = await installDefinition(installerBench('beos', more).options).preconditions(input);
    assert.deepEqual(
      checks.filter(({ ok }) => !ok).map((each) => [each.name, each.reason.includes(reason), each.code]),
      [[name, true, code]],
    );
  }
  const bench = installerBench('beos', { clockSynchronised: () => unknown('t', 0, 'no bus') });
  const huge = { ...bench.options.profile, disk: { baseDirBytes: 2 ** 60, rootBytes: 1 } };
  mkdirSync(bench.baseDir);
  writeFileSync(join(bench.baseDir, '.installed'), 'x');
  writeFileSync(join(bench.baseDir, 'installing.pid'), `${process.pid}\n`);
  const checks = await installDefinition({ ...bench.options, profile: huge }).preconditions(input);
  assert.deepEqual(
    checks.filter(({ ok }) => !ok).map(({ name }) => name),
    ['not-installed', 'no-installing.pid', 'space-base-dir'],
  );
  assert.match(
    checks.find(({ name }) => name === 'space-base-dir')?.reason ?? '',
    /GiB free at .*, 1073741824\.0 GiB needed/,
  );
});

const input = { username: 'a', email: '', domain: '', secret: 'none' };
