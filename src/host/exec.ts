import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { createInterface } from 'node:readline';
import { errnoOf } from '#lib/fault.ts';

export interface RunOptions {
  readonly signal?: AbortSignal;
  /** The whole process group is killed after this many ms. Default 10 s: nothing may hang the daemon. */
  readonly timeoutMs?: number;
  /** Written to the child's standard input, which is then closed. The way for secrets. */
  readonly stdin?: string;
  /** The whole environment of the child; default: PATH and LC_ALL=C only. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Output beyond this many bytes per stream ends the child. Default 4 MiB. */
  readonly maxOutputBytes?: number;
  /** Exit codes that are answers, not errors. Default [0]. */
  readonly okCodes?: readonly number[];
}

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that did not do its work: what was run (never its input), how it ended, what it said. */
export class ExecError extends Error {
  override readonly name = 'ExecError';
  readonly file: string;
  readonly args: readonly string[];
  readonly reason: 'exit' | 'signal' | 'timeout' | 'aborted' | 'output' | 'start';
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Set when the child was ended by force: settles when it is really gone. One in uninterruptible sleep may never be. */
  readonly lingering: Promise<void> | undefined;

  constructor(
    init: Pick<ExecError, 'file' | 'args' | 'reason' | 'exitCode' | 'stdout' | 'stderr'> & {
      cause?: unknown;
      lingering?: Promise<void> | undefined;
    },
  ) {
    const said = (init.stderr.trim() || init.stdout.trim()).split('\n').slice(-3).join(' ').slice(0, 500);
    super(
      `${init.file} ended by ${init.reason}${init.exitCode === null ? '' : ` ${init.exitCode}`}${said ? `: ${said}` : ''}`,
      {
        cause: init.cause,
      },
    );
    this.file = init.file;
    this.args = init.args;
    this.reason = init.reason;
    this.exitCode = init.exitCode;
    this.stdout = init.stdout;
    this.stderr = init.stderr;
    this.lingering = init.lingering;
  }
}

/** A long-lived child whose lines are events; it is started again by its owner, never by itself. */
export interface LineChild {
  /** undefined: it could not be started. */
  readonly pid: number | undefined;
  /** Settles when the child has ended, whatever the reason. */
  readonly ended: Promise<void>;
  stop(): void;
}

export interface Exec {
  /** Runs to the end and returns its output. `file` is an absolute path or found on the fixed PATH; no shell, ever. */
  run(file: string, args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Starts a listener whose standard output arrives line by line. A program that is not there costs no process; never throws. */
  lines(file: string, args: readonly string[], onLine: (line: string) => void): LineChild;
  /** Processes started so far: the idle test and /metrics read it. */
  readonly started: number;
}

const fixedPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const plainEnv = { PATH: fixedPath, LC_ALL: 'C', LANG: 'C' } as const;

/** The real thing. */
export class SystemExec implements Exec {
  #started = 0;

  get started(): number {
    return this.#started;
  }

  run(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    options.signal?.throwIfAborted();
    this.#started++;
    const child = spawn(file, [...args], {
      cwd: options.cwd ?? '/',
      env: { ...plainEnv, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true, // a group of its own, so that a timeout reaches the grandchildren too
    });
    return collect(child, file, args, options);
  }

  lines(file: string, args: readonly string[], onLine: (line: string) => void): LineChild {
    if (!isProgram(file)) return unstarted;
    this.#started++;
    let child: ChildProcess;
    try {
      child = spawn(file, [...args], { cwd: '/', env: plainEnv, stdio: ['ignore', 'pipe', 'ignore'] });
    } catch {
      return unstarted; // no memory for another process, say
    }
    if (child.stdout !== null) createInterface({ input: child.stdout }).on('line', onLine);
    const ended = new Promise<void>((resolve) => {
      child.once('error', () => resolve());
      child.once('exit', () => resolve());
    });
    return { pid: child.pid, ended, stop: () => child.kill('SIGTERM') };
  }
}

const unstarted: LineChild = { pid: undefined, ended: Promise.resolve(), stop: () => undefined };

/** Whether a program is not there to be run, rather than the machine short of what a process takes just now. */
export function isMissing(error: unknown): boolean {
  if (!(error instanceof ExecError) || error.reason !== 'start') return false;
  return ['ENOENT', 'ENOTDIR', 'EACCES', 'ENOEXEC'].includes(errnoOf(error.cause) ?? '');
}

/** Whether there is something to execute by this absolute path, or by this name on the fixed PATH. */
function isProgram(file: string): boolean {
  const places = file.includes('/') ? [file] : fixedPath.split(':').map((folder) => `${folder}/${file}`);
  return places.some((place) => {
    try {
      accessSync(place, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    child.kill('SIGKILL'); // the group is gone already
  }
}

function goneOf(child: ChildProcess): Promise<void> {
  const isGone = child.exitCode !== null || child.signalCode !== null;
  return isGone ? Promise.resolve() : new Promise((resolve) => child.once('exit', () => resolve()));
}

function collect(
  child: ChildProcess,
  file: string,
  args: readonly string[],
  options: RunOptions,
): Promise<RunResult> {
  const limit = options.maxOutputBytes ?? 4 * 1024 * 1024;
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  let reason: ExecError['reason'] | undefined;
  let abandon: () => void = () => undefined;
  let lingering: Promise<void> | undefined;
  const end = (why: ExecError['reason']) => {
    reason ??= why;
    lingering ??= goneOf(child);
    killGroup(child);
    // A child in uninterruptible sleep (a dead network mount) outlives even SIGKILL: the caller does not wait for it.
    setTimeout(() => abandon(), 500).unref();
  };
  for (const [stream, chunks] of [
    [child.stdout, out],
    [child.stderr, err],
  ] as const) {
    let size = 0;
    stream?.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > limit) end('output');
      else chunks.push(chunk);
    });
  }
  child.stdin?.on('error', () => undefined); // a child that does not read its input is no error of ours
  child.stdin?.end(options.stdin ?? '');
  const timer = setTimeout(() => end('timeout'), options.timeoutMs ?? 10_000);
  const onAbort = () => end('aborted');
  options.signal?.addEventListener('abort', onAbort, { once: true });
  return new Promise((resolve, reject) => {
    const settle = (exitCode: number | null, cause?: unknown) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
      const stdout = Buffer.concat(out).toString('utf8');
      const stderr = Buffer.concat(err).toString('utf8');
      if (reason === undefined && exitCode !== null && (options.okCodes ?? [0]).includes(exitCode)) {
        resolve({ exitCode, stdout, stderr });
        return;
      }
      const why = reason ?? (cause === undefined ? (exitCode === null ? 'signal' : 'exit') : 'start');
      reject(new ExecError({ file, args, reason: why, exitCode, stdout, stderr, cause, lingering }));
    };
    abandon = () => {
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
      child.unref();
      settle(null);
    };
    child.once('error', (error) => settle(null, error));
    child.once('close', (code) => settle(code));
  });
}
