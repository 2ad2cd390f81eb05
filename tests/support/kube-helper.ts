import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { onProcessor } from './processors.ts';

/** What tests/support/kube-daemon.ts tells of itself. */
export interface Figures {
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
  readonly cpuMs: number;
  readonly at: number;
  readonly started: number;
  readonly clusterLink: string;
  readonly pods: number;
}

/** A script of this folder in a process of its own, that answers a line on stdin with a line of JSON on stdout. */
export class Helper {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(script: string, args: readonly string[], processor?: number) {
    const path = join(import.meta.dirname, script);
    const argv = ['--expose-gc', path, ...args];
    this.#child = spawn(...onProcessor(processor, process.execPath, argv), {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    if (this.#child.stdout === null) throw new Error('no output');
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async line<T>(): Promise<T> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the helper has ended');
    return JSON.parse(value) as T;
  }

  ask<T>(line: string): Promise<T> {
    this.#child.stdin?.write(`${line}\n`);
    return this.line<T>();
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}
