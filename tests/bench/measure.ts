import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

export const root = join(import.meta.dirname, '../..');

export interface Running {
  readonly child: ChildProcess;
  readonly port: number;
  /** From spawn to the first answer, ms. */
  readonly startMs: number;
  stop(): Promise<void>;
}

/** The bundle in a sandbox of its own, up to its first answer of /system/status. */
export async function startDaemon(dataDir = mkdtempSync(join(tmpdir(), 'beosd-bench-'))): Promise<Running> {
  const args = [join(root, 'dist/beosd.cjs'), '--port', '0', '--data-dir', dataDir];
  return await startAndAsk(args, /listening on http:\/\/\S+:(\d+)/, '/system/status');
}

/** A bare node:http server that answers with `bytes` bytes. */
export async function startBare(bytes: number): Promise<Running> {
  return await startAndAsk([join(root, 'tests/bench/bare-server.ts'), String(bytes)], /^(\d+)$/m, '/');
}

async function startAndAsk(args: string[], portLine: RegExp, path: string): Promise<Running> {
  const began = performance.now();
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'], cwd: root });
  const port = await new Promise<number>((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const match = portLine.exec(text);
      if (match !== null) resolve(Number(match[1]));
    });
    child.once('exit', (code) => reject(new Error(`ended with ${code} before it listened`)));
  });
  await get(port, path);
  const startMs = performance.now() - began;
  const stop = async () => {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await gone;
  };
  return { child, port, startMs, stop };
}

export function get(port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    asked.on('error', reject).end();
  });
}

export interface Load {
  readonly requests: number;
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
}

export async function load(port: number, path: string, ms: number, connections = 50): Promise<Load> {
  const args = [join(root, 'tests/bench/load.ts'), String(port), path, String(connections), String(ms)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: ms + 30_000 });
  return JSON.parse(stdout) as Load;
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
  const { body } = await get(port, '/metrics');
  return Number(/^beosd_processes_started_total (\d+)/m.exec(body)?.[1] ?? Number.NaN);
}

export const idle = (ms: number) => sleep(ms);
