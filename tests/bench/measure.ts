import { execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ask } from '../support/daemon-process.ts';

const here = import.meta.dirname;

export interface Bare {
  readonly port: number;
  /** From spawn to the line that says it listens, ms. */
  readonly startMs: number;
  stop(): Promise<void>;
}

/** A bare node:http server that answers with `bytes` bytes. */
export async function startBare(bytes: number): Promise<Bare> {
  const began = performance.now();
  const child = spawn(process.execPath, [join(here, 'bare-server.ts'), String(bytes)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout.once('data', (chunk: Buffer) => resolve(Number(chunk.toString())));
    child.once('exit', (code) => reject(new Error(`ended with ${code} before it listened`)));
  });
  const stop = async () => {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await gone;
  };
  return { port, startMs: performance.now() - began, stop };
}

export interface Load {
  readonly requests: number;
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
}

/** Keep-alive load on loopback from a process of its own, bounded in time. */
export async function load(port: number, path: string, ms: number, connections = 50): Promise<Load> {
  const args = [join(here, 'load.ts'), String(port), path, String(connections), String(ms)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: ms + 30_000 });
  return JSON.parse(stdout) as Load;
}

/** So many requests as clients, and those who are none, make them: answers from memory, refusals, bad proofs, large ones. */
export async function mixed(port: number, count: number): Promise<void> {
  const body = JSON.stringify({ username: 'alice' });
  const headers = { 'content-type': 'application/json' };
  const kinds = [
    { path: '/system/status' },
    { path: '/system/ifs' },
    { path: '/openapi.json' },
    { path: '/readyz' },
    { path: '/jobs' },
    { path: '/no/such/path' },
    { method: 'POST', path: '/command/install', headers, body },
    { method: 'POST', path: '/command/install', headers: { ...headers, 'x-signature': 'a.b.c' }, body },
  ];
  const workers = Array.from({ length: 16 }, async (_, worker) => {
    for (let n = worker; n < count; n += 16) await ask(port, kinds[n % kinds.length] ?? { path: '/' });
  });
  await Promise.all(workers);
}
