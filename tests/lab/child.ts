import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { within } from './deadline.ts';

export interface ChildEnd {
  readonly code: number | null;
  readonly signal: string | null;
}

/** A long-lived process of the lab. It dies with this process, also when this one is killed. */
export interface Child {
  readonly pid: number;
  readonly ended: Promise<ChildEnd>;
  /** Asks by SIGTERM, insists by SIGKILL after `graceMs`; only ever signals this very child. */
  stop(graceMs?: number): Promise<void>;
}

/** Starts `argv` with no input; what it prints is appended to `logFile`. */
export async function startChild(
  argv: readonly string[],
  logFile: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Child> {
  const log = await open(logFile, 'a');
  try {
    return watch(argv, launch(argv, ['ignore', log.fd, log.fd], env));
  } finally {
    await log.close();
  }
}

/** Starts `argv` and waits for the first line it prints, which says that it is ready. */
export async function startReady(argv: readonly string[], timeoutMs = 20_000): Promise<Child> {
  const process = launch(argv, ['ignore', 'pipe', 'inherit'], {});
  const child = watch(argv, process);
  const { stdout } = process;
  const line = stdout
    ? once(createInterface({ input: stdout }), 'line')
    : Promise.reject(new Error('no output'));
  const early = child.ended.then(({ code }) => {
    throw new Error(`lab: ${argv[0]} ended with ${code} before it was ready`);
  });
  await within(timeoutMs, `the readiness of ${argv.join(' ')}`, Promise.race([line, early]));
  return child;
}

function launch(
  argv: readonly string[],
  stdio: StdioOptions,
  env: Readonly<Record<string, string>>,
): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...argv], {
    cwd: '/',
    env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', ...env },
    stdio,
  });
}

function watch(argv: readonly string[], child: ChildProcess): Child {
  const ended = new Promise<ChildEnd>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  ended.catch(() => undefined);
  if (child.pid === undefined) throw new Error(`lab: ${argv[0]} did not start`);
  return {
    pid: child.pid,
    ended,
    async stop(graceMs = 5000) {
      child.kill('SIGTERM');
      const insist = setTimeout(() => child.kill('SIGKILL'), graceMs);
      await within(graceMs + 10_000, `the end of ${argv[0]}`, ended).finally(() => clearTimeout(insist));
    },
  };
}
