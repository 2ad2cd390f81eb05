import { linkSync, mkdirSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bootIdentity } from '#host/boot.ts';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { abandoned, isAlive, livingMembers, readClaim, readExit } from '#host/longrun-claim.ts';
import { runnerScript } from '#host/longrun-script.ts';
import { errnoOf } from '#lib/fault.ts';

export interface LongRunSpec {
  /** Names the run for good: letters, digits, `-`, `_`. A second start under the same id finds the first. */
  readonly id: string;
  /** Program (absolute path) and arguments. */
  readonly argv: readonly string[];
  /** The whole environment but for {@link secretEnv}. */
  readonly env: Readonly<Record<string, string>>;
  /** Variables that must not be seen: kept off the disk and out of unit properties. */
  readonly secretEnv?: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Standard output and error are appended here. */
  readonly logFile: string;
}

/** What is known of a run. `vanished`: it had begun, does not run any more, and nobody wrote how it ended. */
export type RunState =
  | { readonly kind: 'none' }
  | { readonly kind: 'running'; readonly pid: number }
  | { readonly kind: 'exited'; readonly code: number }
  | { readonly kind: 'vanished'; readonly reason: string };

/** How a run ended. */
export type RunEnd = Extract<RunState, { kind: 'exited' | 'vanished' }>;

/** Children that outlive the daemon (design "Jobs"). */
export interface LongRun {
  /** Starts the command, unless this id was started before: then nothing happens. Resolves when the run is claimed. */
  start(spec: LongRunSpec): Promise<void>;
  find(id: string): RunState;
  /** Resolves when the run has ended; rejects only with the signal's reason. The run goes on when the wait is given up. */
  wait(id: string, signal: AbortSignal): Promise<RunEnd>;
  /** Asks the whole group to end, kills it after the grace period, resolves when nothing of it lives. */
  stop(id: string): Promise<RunEnd | { readonly kind: 'none' }>;
  /** Forgets a run that has ended: removes its folder. One that still runs is left as it is. */
  forget(id: string): void;
  /** Ids that have a folder: what the start of the daemon compares with its journal. */
  ids(): string[];
}

/** Starts the runner; the one thing in which the two implementations differ, beside the way to stop it. */
export interface Launcher {
  readonly name: 'systemd' | 'detached';
  launch(spec: LongRunSpec, argv: readonly string[]): Promise<void>;
  /** Sends TERM to the runner, which passes it on to all of the run; or KILL to all of it. */
  signal(id: string, pid: number, signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Removes what the launcher has put aside until the runner had it. */
  cleanUp(id: string): void;
}

export interface LongRunOptions {
  /** One folder a run. On a disk that survives a reboot: an exit code must not be lost with it. */
  readonly runsDir: string;
  readonly launcher: Launcher;
  readonly files: Files;
  readonly clock: Clock;
  /** How long a runner may take to claim its run. Default 15 s. */
  readonly claimMs?: number;
  /** Between TERM and KILL. Default 20 s. */
  readonly graceMs?: number;
  /** The net below inotify, while a run is waited for. Default 3 s. */
  readonly checkMs?: number;
}

/** While a run is being stopped: its last processes leave no trace that inotify could see. */
const stopCheckMs = 100;
const idPattern = /^[A-Za-z0-9_-]{1,64}$/;

/**
 * Runs commands that outlive the daemon.
 *
 * INVARIANTS: a run has at most one claim, so its command is started at most once, whatever is killed when; a process is
 * recognised by (pid, start time, boot), never by its pid; the end of a run is what its `exit` file says, or `vanished`.
 */
export class SystemLongRun implements LongRun {
  readonly #options: Required<LongRunOptions>;

  constructor(options: LongRunOptions) {
    this.#options = { claimMs: 15_000, graceMs: 20_000, checkMs: 3_000, ...options };
  }

  async start(spec: LongRunSpec): Promise<void> {
    const dir = this.#dir(spec.id);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    if (this.find(spec.id).kind !== 'none') return;
    const { launcher, claimMs } = this.#options;
    const runner = ['/bin/sh', '-c', runnerScript, 'beosd-run', dir, spec.logFile, launcher.name];
    let failure: unknown;
    try {
      await launcher.launch(spec, [...runner, ...spec.argv]);
    } catch (error) {
      failure = error; // the answer may have been lost, or be late, and the runner on its way all the same
    }
    const patience = failure === undefined ? claimMs : 0;
    const claimed = await this.#until(spec.id, patience, () => this.find(spec.id).kind !== 'none');
    if (!claimed && this.#abandon(dir)) {
      launcher.cleanUp(spec.id);
      rmSync(dir, { recursive: true, force: true }); // who comes now finds no place to claim, and goes
      const silent = `${spec.argv[0]} was not started: its runner gave no sign within ${claimMs} ms`;
      throw failure ?? new Error(silent);
    }
    launcher.cleanUp(spec.id); // the runner has its environment by now
  }

  find(id: string): RunState {
    const dir = this.#dir(id);
    const claim = readClaim(this.#options.files, dir);
    if (claim === undefined) return { kind: 'none' };
    const code = readExit(this.#options.files, dir);
    if (code !== undefined) return { kind: 'exited', code };
    if (claim === 'unreadable') return { kind: 'vanished', reason: 'the machine went down as the run began' };
    if (claim === abandoned) return { kind: 'vanished', reason: 'the runner was given up before it began' };
    if (claim.boot !== bootIdentity())
      return { kind: 'vanished', reason: 'the machine was restarted meanwhile' };
    if (isAlive(claim)) return { kind: 'running', pid: claim.pid };
    // It may have written its exit and ended between the two looks.
    const late = readExit(this.#options.files, dir);
    return late === undefined
      ? { kind: 'vanished', reason: 'the process was killed from outside' }
      : { kind: 'exited', code: late };
  }

  async wait(id: string, signal: AbortSignal): Promise<RunEnd> {
    signal.throwIfAborted();
    let end: RunEnd | undefined;
    const ended = () => {
      const state = this.find(id);
      if (state.kind === 'exited' || state.kind === 'vanished') end = state;
      if (state.kind === 'none') end = { kind: 'vanished', reason: 'there is no such run' };
      return end !== undefined;
    };
    await this.#until(id, Number.POSITIVE_INFINITY, ended, { signal });
    signal.throwIfAborted();
    return end ?? { kind: 'vanished', reason: 'there is no such run' };
  }

  async stop(id: string): Promise<RunEnd | { readonly kind: 'none' }> {
    const { launcher, graceMs } = this.#options;
    if (readClaim(this.#options.files, this.#dir(id)) === undefined && !this.#claimFirst(id))
      return { kind: 'none' };
    for (const [signal, left] of [
      ['SIGTERM', () => this.find(id).kind === 'running'],
      ['SIGKILL', () => this.#members(id).length > 0],
    ] as const) {
      const claim = readClaim(this.#options.files, this.#dir(id));
      if (typeof claim !== 'object' || !left()) break;
      await launcher.signal(id, claim.pid, signal);
      await this.#until(id, graceMs, () => this.#members(id).length === 0, { checkMs: stopCheckMs });
    }
    const state = this.find(id);
    if (state.kind === 'running')
      throw new Error(`process ${state.pid} cannot be ended (uninterruptible sleep)`);
    return state;
  }

  forget(id: string): void {
    if (this.find(id).kind === 'running') return;
    this.#options.launcher.cleanUp(id);
    rmSync(this.#dir(id), { recursive: true, force: true });
  }

  ids(): string[] {
    return this.#options.files.list(this.#options.runsDir).filter((name) => idPattern.test(name));
  }

  #dir(id: string): string {
    if (!idPattern.test(id)) throw new Error(`not the id of a run: ${JSON.stringify(id.slice(0, 80))}`);
    return join(this.#options.runsDir, id);
  }

  #members(id: string): number[] {
    const claim = readClaim(this.#options.files, this.#dir(id));
    return typeof claim === 'object' && claim.boot === bootIdentity() ? livingMembers(claim) : [];
  }

  /** A run that is asked to stop before it was claimed must never begin. False: there is nothing to stop. */
  #claimFirst(id: string): boolean {
    const dir = this.#dir(id);
    if (!this.#options.files.exists(dir)) return false;
    if (!this.#abandon(dir)) return true; // the runner was quicker
    return false;
  }

  /** True when the claim was free and is ours now, so that no runner will take it. */
  #abandon(dir: string): boolean {
    const temp = join(dir, `.claim.${process.pid}`);
    writeFileSync(temp, `${abandoned}\n`);
    try {
      linkSync(temp, join(dir, 'claim'));
      return true;
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      throw error;
    } finally {
      unlinkSync(temp);
    }
  }

  /** Waits for `done` by inotify on the run's folder and a look every few seconds. False when `ms` have passed. */
  async #until(
    id: string,
    ms: number,
    done: () => boolean,
    how: { signal?: AbortSignal; checkMs?: number } = {},
  ): Promise<boolean> {
    const { files, clock } = this.#options;
    const { signal, checkMs = this.#options.checkMs } = how;
    const deadline = clock.monotonic() + ms;
    for (;;) {
      const round = new AbortController();
      const stop = signal ? AbortSignal.any([signal, round.signal]) : round.signal;
      const watching = this.#watch(files, this.#dir(id), () => round.abort());
      try {
        if (isSure(done)) return true; // after the watch stands: nothing falls between
        const left = deadline - clock.monotonic();
        if (left <= 0 || signal?.aborted) return false;
        await clock.sleep(Math.min(checkMs, left), stop).catch(() => undefined);
      } finally {
        watching?.close();
      }
    }
  }

  #watch(files: Files, dir: string, onChange: () => void): { close(): void } | undefined {
    try {
      return files.watchDir(dir, onChange, () => undefined);
    } catch {
      return undefined; // no watch left, or no folder: the look every few seconds remains
    }
  }
}

/** What cannot be read just now (no descriptor left, a disk that hesitates) is not known, and is looked at again. */
function isSure(done: () => boolean): boolean {
  try {
    return done();
  } catch {
    return false;
  }
}
