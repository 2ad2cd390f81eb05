import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '#host/clock.ts';
import { Files } from '#host/files.ts';
import { type Launcher, SystemLongRun } from '#host/longrun.ts';
import type { SecretFiles } from '#host/secrets.ts';

export interface ContractOptions {
  /** Where folders for the tests are made; with systemd, a place that its units see. */
  readonly scratch: string;
  readonly launcher: (secrets: SecretFiles | undefined) => Launcher;
  readonly secrets: (dir: string) => SecretFiles;
  /** How often the small daemon is killed, each time at another moment. */
  readonly kills: number;
  readonly driver: string;
  /** Called after the last test. */
  readonly done?: () => Promise<void>;
}

const node = process.execPath;

/** What every way to run something beyond the daemon's life has to keep; the same for sessions and for transient units. */
export function longRunContract({ scratch, launcher, secrets, kills, driver, done }: ContractOptions): void {
  after(() => done?.());
  const { name } = launcher(undefined);
  const bench = () => {
    const dir = mkdtempSync(join(scratch, 'beosd-run-'));
    const logFile = join(dir, 'log');
    const shelf = secrets(join(dir, 'secrets'));
    const runs = new SystemLongRun({
      runsDir: join(dir, 'runs'),
      launcher: launcher(shelf),
      files: new Files(),
      clock: systemClock,
      checkMs: 300,
      graceMs: 5_000, // also on a busy machine enough for those that listen
    });
    let count = 0;
    const id = () => `t${process.pid}-${dir.slice(-6)}-${count++}`;
    return { dir, logFile, runs, shelf, id, spec: { env: { PATH: '/usr/bin:/bin' }, cwd: dir, logFile } };
  };
  const shell = (dir: string, text: string): string[] => {
    const path = join(dir, `command-${Math.random().toString(36).slice(2)}.sh`);
    writeFileSync(path, text);
    return ['/bin/sh', path];
  };
  const deadline = () => AbortSignal.timeout(20_000);

  test(`${name}: the exit code is the result, and the output is in the log`, async () => {
    const { runs, spec, dir, logFile, id } = bench();
    writeFileSync(logFile, 'before\n');
    const run = id();
    await runs.start({ ...spec, id: run, argv: shell(dir, 'echo out; echo err >&2; pwd; exit 7') });
    assert.deepEqual(await runs.wait(run, deadline()), { kind: 'exited', code: 7 });
    assert.equal(readFileSync(logFile, 'utf8'), `before\nout\nerr\n${dir}\n`);
  });

  test(`${name}: arguments and environment arrive as they are, whatever characters they have`, async () => {
    const { runs, spec, dir, logFile, id } = bench();
    const run = id();
    const odd = ['$HOME', '%n', '$$', '`id`', "it's", '"', '\\', 'a b', '*', ''];
    const argv = [...shell(dir, 'printf "<%s>\\n" "$@" "$ODD"'), ...odd];
    await runs.start({ ...spec, id: run, argv, env: { ...spec.env, ODD: '$HOME %n\\"' } });
    assert.deepEqual(await runs.wait(run, deadline()), { kind: 'exited', code: 0 });
    assert.equal(
      readFileSync(logFile, 'utf8'),
      [...odd, '$HOME %n\\"'].map((each) => `<${each}>\n`).join(''),
    );
  });

  test(`${name}: a secret reaches the command and nothing that stays`, async () => {
    const { runs, spec, dir, shelf, logFile, id } = bench();
    const run = id();
    const secret = 'p"a$s`s\\w rd';
    const argv = shell(dir, 'printf "%s" "$SECRET" | od -An -tx1 | tr -d " \\n"');
    await runs.start({ ...spec, id: run, argv, secretEnv: { SECRET: secret } });
    assert.equal((await runs.wait(run, deadline())).kind, 'exited');
    assert.equal(readFileSync(logFile, 'utf8'), Buffer.from(secret).toString('hex'));
    assert.equal(shelf.read(`${run}.env`), undefined);
  });

  test(`${name}: a second start of the same run does nothing, also when both come at once`, async () => {
    const { runs, spec, dir, id } = bench();
    const run = id();
    const argv = shell(dir, `echo x >> ${dir}/starts; sleep 0.2`);
    await Promise.all([1, 2, 3].map(() => runs.start({ ...spec, id: run, argv })));
    await runs.wait(run, deadline());
    await runs.start({ ...spec, id: run, argv });
    assert.equal(readFileSync(join(dir, 'starts'), 'utf8'), 'x\n');
  });

  test(`${name}: stop ends the whole group, kills what does not listen, and tells the truth after it`, async () => {
    const { runs, spec, dir, id } = bench();
    const polite = id();
    await runs.start({ ...spec, id: polite, argv: shell(dir, 'sleep 600 & sleep 600') });
    assert.deepEqual(await runs.stop(polite), { kind: 'exited', code: 143 });
    const deaf = id();
    const argv = shell(dir, `trap '' TERM; touch ${dir}/deaf; while :; do sleep 0.05; done`);
    await runs.start({ ...spec, id: deaf, argv });
    const late = deadline();
    while (!existsSync(join(dir, 'deaf'))) await delay(5, undefined, { signal: late });
    assert.equal((await runs.stop(deaf)).kind, 'vanished');
    assert.equal(runs.find(deaf).kind, 'vanished');
    assert.deepEqual(await runs.stop(id()), { kind: 'none' });
  });

  test(`${name}: a run whose processes were killed from outside has vanished`, async () => {
    const { runs, spec, dir, id } = bench();
    const run = id();
    await runs.start({ ...spec, id: run, argv: shell(dir, 'exec sleep 600') });
    const state = runs.find(run);
    assert.ok(state.kind === 'running');
    process.kill(-state.pid, 'SIGKILL');
    assert.equal((await runs.wait(run, deadline())).kind, 'vanished');
  });

  test(`${name}: a claim of another boot, or of a pid that is somebody else's now, is not taken for the run`, async () => {
    const { runs, spec, dir, id } = bench();
    const run = id();
    await runs.start({ ...spec, id: run, argv: shell(dir, 'sleep 0.1') });
    await runs.wait(run, deadline());
    const folder = join(dir, 'runs', run);
    const [, startTime, boot] = readFileSync(join(folder, 'claim'), 'utf8').split(' ');
    rmSync(join(folder, 'exit'));
    writeFileSync(join(folder, 'claim'), `${process.pid} ${startTime} ${boot} ${name}\n`);
    assert.deepEqual(runs.find(run), { kind: 'vanished', reason: 'the process was killed from outside' });
    writeFileSync(join(folder, 'claim'), `${process.pid} ${startTime} x${boot} ${name}\n`);
    assert.deepEqual(runs.find(run), { kind: 'vanished', reason: 'the machine was restarted meanwhile' });
    writeFileSync(join(folder, 'claim'), '');
    assert.equal(runs.find(run).kind, 'vanished');
  });

  test(`${name}: kill -9 of the daemon at ${kills} random moments: one start, true result`, async () => {
    const seed = Number(process.env['SEED'] ?? 1);
    const random = mulberry(seed);
    const one = async (at: number): Promise<void> => {
      const { dir, logFile, id } = bench();
      const run = id();
      const code = at % 3 === 0 ? 3 : 0;
      const command = shell(
        dir,
        `echo x >> ${dir}/starts; sleep 0.25; echo end >> ${dir}/ends; exit ${code}`,
      );
      const args = [driver, name, join(dir, 'runs'), join(dir, 'secrets'), run, logFile, ...command];
      for (let round = 0; round < 1 + (at % 3); round++) await startAndKill(args, random() * 450);
      const said = await output(spawn(node, args, { stdio: ['ignore', 'pipe', 'inherit'] }));
      const note = `seed ${seed}, run ${at}`;
      assert.match(said, new RegExp(`"kind":"exited","code":${code}`), note);
      assert.equal(readFileSync(join(dir, 'starts'), 'utf8'), 'x\n', note);
      assert.equal(readFileSync(join(dir, 'ends'), 'utf8'), 'end\n', note);
    };
    for (let at = 0; at < kills; at += 4) {
      await Promise.all([at, at + 1, at + 2, at + 3].filter((each) => each < kills).map(one));
    }
  });

  test(`${name}: the claim of a run is readable by root alone`, async () => {
    const { runs, spec, dir, id } = bench();
    const run = id();
    await runs.start({ ...spec, id: run, argv: shell(dir, 'exit 0') });
    assert.equal(statSync(join(dir, 'runs', run)).mode & 0o777, 0o700);
    await runs.wait(run, deadline());
    runs.forget(run);
    assert.deepEqual(runs.ids(), []);
  });
}

async function startAndKill(args: readonly string[], afterMs: number): Promise<void> {
  const child = spawn(node, [...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await delay(afterMs); // the random moment is the point of the test
  child.kill('SIGKILL');
  await gone;
}

async function output(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString('utf8');
  });
  await new Promise<void>((resolve) => child.once('close', () => resolve()));
  return text;
}

/** A small seeded generator (mulberry32): the same seed, the same moments. */
function mulberry(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
