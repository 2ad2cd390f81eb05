import { join } from 'node:path';
import { type ErrorCode, fault } from '#api/errors.ts';
import { Follower } from '#cluster/follow.ts';
import type { InstallerCommand } from '#cluster/installer-profile.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import type { LongRunSpec, RunEnd } from '#host/longrun.ts';
import { anchorAtEnd, type TailAnchor } from '#host/tail.ts';
import { type PhaseContext, Stopping } from '#jobs/definition.ts';
import { type Fault, messageOf } from '#lib/fault.ts';

export interface InstallerRun {
  readonly command: InstallerCommand;
  /** What the placeholders of argv and env stand for. */
  readonly values: Readonly<Record<string, string>>;
  /** Further variables that may be seen: the path of a secret file. */
  readonly env?: Readonly<Record<string, string>>;
  /** Variables that are themselves secret. */
  readonly secretEnv?: Readonly<Record<string, string>>;
  /** Takes the secrets of this run out of a text. */
  readonly redact: (text: string) => string;
  /** Shown until the installer gives its first sign. */
  readonly firstStep: string;
}

/** Folder of the version's files, the working directory of every command; `logs` is below. */
export function versionFolder(options: Pick<InstallerOptions, 'baseDir' | 'version'>): string {
  return join(options.baseDir, 'versions', `v${options.version}`);
}

/**
 * Makes the folder of the logs where it is missing, for root alone: the ancestor's CLI writes the first password into its
 * log, with a mode that is its own to choose.
 */
export function makeLogFolder(options: Pick<InstallerOptions, 'baseDir' | 'version' | 'files'>): void {
  options.files.makeDir(join(versionFolder(options), 'logs'), 0o700);
}

/** Replaces whole placeholders; a text that merely contains one stays as it is. */
export function fill(text: string, values: Readonly<Record<string, string>>): string {
  const name = /^\{(\w+)\}$/.exec(text)?.[1];
  if (name === undefined) return text;
  const value = values[name];
  if (value === undefined) throw new Error(`the profile asks for {${name}}, which nobody gives`);
  return value;
}

/**
 * Runs one command of the installer to its end, or finds the one that was begun before a crash: whatever happens, the
 * command is started at most once for a job. Resolves when it has exited with 0; rejects with a Fault that says how it
 * ended and where. Cancelled: the command is stopped first. Daemon stops: the command goes on without us.
 */
export async function runInstaller(
  options: InstallerOptions,
  context: PhaseContext<unknown>,
  run: InstallerRun,
): Promise<void> {
  const { jobId, signal } = context;
  const cwd = versionFolder(options);
  const logFile = join(cwd, 'logs', run.command.logFile);
  const pidFile = join(options.baseDir, run.command.pidFile);
  const progressFile = join(cwd, 'logs', `progress-${jobId}.jsonl`);
  const begun = beginOnce(options, context, logFile);
  const follower = new Follower({
    ...options,
    marks: run.command.marks,
    folder: join(cwd, 'logs'),
    logFile,
    progressFile,
    from: begun.from,
    firstStep: run.firstStep,
    redact: run.redact,
    report: context.progress,
  });
  try {
    const end = await carryOn();
    await follower.finish();
    tell(() => options.files.remove(progressFile));
    const failure = failureOf(options, end, follower);
    if (failure) throw failure;
  } catch (error) {
    if (!signal.aborted) throw error;
    if (!(signal.reason instanceof Stopping)) await options.longRun.stop(jobId);
    throw signal.reason;
  } finally {
    // Who still runs, because we stop or because nothing could end it, keeps its pid file.
    tell(() => {
      if (options.longRun.find(jobId).kind === 'running') return;
      context.remember({ logEnd: options.files.size(logFile) ?? 0 });
      options.files.remove(pidFile);
    });
  }

  async function carryOn(): Promise<RunEnd> {
    signal.throwIfAborted();
    const { longRun, bootIdentity, files } = options;
    if (longRun.find(jobId).kind === 'none' && begun.boot !== bootIdentity()) {
      return { kind: 'vanished', reason: 'the machine was restarted as it began' };
    }
    const spec: LongRunSpec = {
      id: jobId,
      argv: [options.program, ...run.command.argv.map((each) => fill(each, run.values))],
      env: environment(options, run, progressFile),
      secretEnv: { ...passedOn(options, true), ...run.secretEnv },
      cwd,
      logFile,
    };
    await longRun.start(spec).catch((cause: unknown) => {
      throw fault('installer_unavailable', `${options.program} could not be started: ${messageOf(cause)}`, {
        cause,
      });
    });
    tell(() => {
      const state = longRun.find(jobId);
      if (state.kind === 'running') files.replace(pidFile, `${state.pid}\n`);
    });
    const over = new AbortController();
    const following = follower.run(AbortSignal.any([signal, over.signal]));
    try {
      return await longRun.wait(jobId, signal);
    } finally {
      over.abort();
      await following;
    }
  }
}

/** Files by which others follow the run. It does not hang on them: an installer fills disks, and ends nonetheless as it ends. */
function tell(act: () => void): void {
  try {
    act();
  } catch {
    // a full or a read-only disk: others do not hear of it
  }
}

/** Writes down, before anything starts, where the log ends now and which boot this is; a later start finds both. */
function beginOnce(
  options: InstallerOptions,
  context: PhaseContext<unknown>,
  logFile: string,
): { readonly from: TailAnchor; readonly boot: string } {
  const { log, boot } = context.checkpoint as { log?: TailAnchor; boot?: string };
  if (log !== undefined && boot !== undefined) return { from: log, boot };
  const begun = { from: anchorAtEnd(logFile), boot: options.bootIdentity() };
  // `logFile`, `logOffset` and, at the end, `logEnd` are what GET /jobs/:id/log reads; `log` is for this run alone.
  context.remember({ log: begun.from, logFile, logOffset: begun.from.offset, boot: begun.boot });
  return begun;
}

function environment(
  options: InstallerOptions,
  run: InstallerRun,
  progressFile: string,
): Record<string, string> {
  const own = Object.entries(run.command.env).map(([name, value]) => [name, fill(value, run.values)]);
  return {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    LANG: 'C.UTF-8',
    ...passedOn(options, false),
    ...Object.fromEntries(own),
    ...run.env,
    [options.profile.progressEnv]: progressFile,
  };
}

/** The daemon's own variables; whoever may list units sees theirs, so a token among them takes the way of a secret. */
function passedOn(options: InstallerOptions, secret: boolean): Record<string, string> {
  const isSecret = (name: string) => /_(TOKEN|SECRET|PASSWORD|KEY)$/.test(name);
  return Object.fromEntries(Object.entries(options.passedOn).filter(([name]) => isSecret(name) === secret));
}

function failureOf(options: InstallerOptions, end: RunEnd, follower: Follower): Fault<ErrorCode> | undefined {
  if (end.kind === 'exited' && end.code === 0) return undefined;
  const how = end.kind === 'exited' ? ending(end.code) : `has vanished: ${end.reason}`;
  const said = follower.lastLine === '' ? '' : ` Its last line: ${follower.lastLine}`;
  return fault('installer_failed', `${options.program} ${how}, at "${follower.step}".${said}`);
}

/** sh reports a command that a signal ended as 128 + its number. */
function ending(code: number): string {
  return code > 128 && code < 160 ? `was ended by signal ${code - 128}` : `ended with code ${code}`;
}

/** What argv and environment of every command may ask for. */
export function nodeValues(options: InstallerOptions): Record<string, string> {
  return { version: options.version, baseDir: options.baseDir, kube: options.kube };
}
