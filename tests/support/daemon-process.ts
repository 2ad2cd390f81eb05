import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');
/** What ./run starts. */
export const bundle = join(root, 'dist/beosd.cjs');

export interface DaemonProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly port: number;
  readonly dataDir: string;
  /** From spawn to the line that says it listens, ms. */
  readonly startMs: number;
  /** What it has written to its log so far. */
  log(): string;
  /** SIGTERM, and waits for the end; the exit code. */
  stop(): Promise<number | null>;
  /** kill -9, and waits for the end. */
  kill(): Promise<void>;
}

/** What ./run tells node, so that what is tested and measured is what runs. */
function nodeFlags(): string[] {
  const command = /exec "\$node" (.*)"\$here\/dist\/beosd\.cjs"/.exec(
    readFileSync(join(root, 'run'), 'utf8'),
  );
  if (command?.[1] === undefined) throw new Error('./run does not start the bundle as this expects');
  return command[1].split(' ').filter((flag) => flag !== '');
}

export interface ProcessOptions {
  readonly dataDir?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly args?: readonly string[];
}

/** The real program in a sandbox of its own, on a port of its own, as the bundle that ./run starts. */
export async function startDaemonProcess(options: ProcessOptions = {}): Promise<DaemonProcess> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'beosd-process-'));
  const began = performance.now();
  const args = [...nodeFlags(), bundle, '--port', '0', '--data-dir', dataDir, ...(options.args ?? [])];
  const env = { ...process.env, NODE_COMPILE_CACHE: join(root, 'dist/.cache'), ...options.env };
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
  let log = '';
  child.stderr.on('data', (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-200_000);
  });
  const port = await listeningPort(child, () => log);
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    return await ended;
  };
  return {
    child,
    pid: child.pid ?? 0,
    port,
    dataDir,
    startMs: performance.now() - began,
    log: () => log,
    stop: () => end('SIGTERM'),
    kill: async () => {
      await end('SIGKILL');
    },
    [Symbol.asyncDispose]: async () => {
      await end('SIGTERM');
    },
  };
}

function listeningPort(child: ChildProcess, log: () => string): Promise<number> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`did not listen within 30 s\n${log()}`));
    }, 30_000);
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const match = /listening on http:\/\/\S+:(\d+)/.exec(said);
      if (match === null) return;
      clearTimeout(timer);
      resolve(Number(match[1]));
    });
    child.once('close', (code, signal) => {
      // 'exit' may come before the last words, which say why.
      clearTimeout(timer);
      reject(new Error(`ended with ${code ?? signal} before it listened\n${log()}`));
    });
  });
}

export interface Reply {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly text: string;
  /** The envelope. */
  readonly json: { code: number; message: string; data?: unknown; error?: Record<string, unknown> };
}

export interface Ask {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

/** One request to a port on loopback, or to a unix socket. */
export function ask(to: number | string, { method = 'GET', path, headers = {}, body }: Ask): Promise<Reply> {
  const target = typeof to === 'number' ? { host: '127.0.0.1', port: to } : { socketPath: to };
  return new Promise((resolve, reject) => {
    const asked = request({ ...target, method, path, headers, agent: false, timeout: 15_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => {
        let json: Reply['json'] = { code: 0, message: '' };
        if (/json/.test(response.headers['content-type'] ?? '')) json = JSON.parse(text) as Reply['json'];
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
      });
      response.on('error', reject);
    });
    asked.on('timeout', () => asked.destroy(new Error(`${method} ${path}: no answer within 15 s`)));
    asked.on('error', reject);
    asked.end(body);
  });
}

/** As root over the daemon's own socket, with a JSON body. */
export function askAsRoot(
  daemon: DaemonProcess,
  method: string,
  path: string,
  body?: unknown,
): Promise<Reply> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  return ask(join(daemon.dataDir, 'beosd.sock'), {
    method,
    path,
    ...(text === undefined ? {} : { body: text, headers: { 'content-type': 'application/json' } }),
  });
}

/** KiB from /proc/PID/smaps_rollup (proc(5)): resident, and what belongs to this process alone and was written. */
export function memoryOf(pid: number): { readonly rssKiB: number; readonly privateKiB: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const value = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return { rssKiB: value('Rss'), privateKiB: value('Private_Dirty') };
}

/** CPU time used so far, ms: utime + stime of /proc/PID/stat at 100 ticks a second. */
export function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** Processes that the daemon has started, as its own metrics count them. */
export async function startedBy(port: number): Promise<number> {
  const { text } = await ask(port, { path: '/metrics' });
  return Number(/^beosd_processes_started_total (\d+)/m.exec(text)?.[1] ?? Number.NaN);
}
