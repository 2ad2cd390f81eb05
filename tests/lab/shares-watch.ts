import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { type Deferred, deferred, within } from './deadline.ts';
import type { Guest } from './guest.ts';

interface Change {
  /** When an answer of the API showed it first, ms of the guest's clock. */
  readonly at: number;
  readonly rows: number;
  readonly invalid: readonly string[];
}

interface Wait {
  readonly at: number;
  /** The first of the looks in a row that found it so. */
  readonly since: number;
  readonly thread: string;
  readonly wchan: string;
  readonly stack: string;
}

type Line =
  | { readonly kind: 'times'; readonly phase: string; readonly times: readonly (readonly [string, number])[] }
  | ({ readonly kind: 'invalid' } & Change)
  | ({ readonly kind: 'waits' } & Wait)
  | { readonly kind: 'looks'; readonly looks: number; readonly threads: number }
  | { readonly kind: 'saw'; readonly name: string }
  | { readonly kind: 'found'; readonly name: string; readonly where: string }
  | { readonly kind: 'rounds'; readonly rounds: number };

const script = '/opt/lab/shares-inside.ts';

/** What shares-inside.ts sees in the guest, while it runs there. */
export class SharesWatch {
  /** How long the API took to answer, ms, by phase. */
  readonly times = new Map<string, number[]>();
  readonly changes: Change[] = [];
  /** Looks at a thread that found it in uninterruptible sleep. */
  readonly waits: Wait[] = [];
  readonly found: string[] = [];
  readonly programs = new Set<string>();
  looks = 0;
  threads = 0;
  rounds = 0;
  readonly #vm: Guest;
  readonly #running: { readonly ended: Promise<unknown>; stop(): void }[] = [];
  #news: Deferred<void> = deferred();
  #ended: string | undefined;

  constructor(vm: Guest) {
    this.#vm = vm;
  }

  /** Starts one of its watches. */
  async start(...argv: readonly string[]): Promise<void> {
    const path = fileURLToPath(new URL('shares-inside.ts', import.meta.url));
    await this.#vm.put(script, await readFile(path));
    const child = this.#vm.follow(['node', script, ...argv], (line) => this.#take(line));
    this.#running.push(child);
    void child.ended.then((exit) => {
      this.#ended = `${argv.join(' ')}: ${JSON.stringify(exit)}`;
      this.#news.resolve();
    });
  }

  /** From now on the answers belong to this phase. */
  async phase(name: string): Promise<void> {
    await this.#vm.put('/run/lab/phase', name);
  }

  /** Waits until what is seen is as wanted. */
  async until(what: string, timeoutMs: number, wanted: () => boolean): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!wanted()) {
      assert.equal(this.#ended, undefined, `a watch ended before ${what}`);
      const left = end - performance.now();
      await within(left, `${what}; last seen: ${JSON.stringify(this.changes.at(-1))}`, this.#news.promise);
    }
  }

  /** The API has answered so often in a phase. */
  async answers(phase: string, count: number): Promise<void> {
    await this.until(`${count} answers in ${phase}`, 600_000, () => this.#timesOf(phase).length >= count);
  }

  /** All of these paths, or none of them, are invalid: since when, ms of the guest's clock. */
  async allInvalid(paths: readonly string[], invalid: boolean, timeoutMs: number): Promise<number> {
    const is = ({ invalid: bad }: Change) => paths.every((path) => bad.includes(path) === invalid);
    const isNow = () => this.changes.length > 0 && this.changes.slice(-1).every(is);
    await this.until(`${paths.join(', ')} ${invalid ? 'invalid' : 'valid'}`, timeoutMs, isNow);
    const other = this.changes.findLastIndex((change) => !is(change));
    return this.changes[other + 1]?.at ?? Number.NaN;
  }

  /** The time that this share (0 to 1) of the answers of the phases kept to, ms. */
  percentile(share: number, ...phases: readonly string[]): number {
    const sorted = phases.flatMap((phase) => this.#timesOf(phase)).sort((a, b) => a - b);
    return sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN;
  }

  count(...phases: readonly string[]): number {
    return phases.reduce((sum, phase) => sum + this.#timesOf(phase).length, 0);
  }

  stop(): void {
    for (const each of this.#running) each.stop();
  }

  #timesOf(phase: string): readonly number[] {
    return this.times.get(phase) ?? [];
  }

  #take(text: string): void {
    const line = JSON.parse(text) as Line;
    if (line.kind === 'invalid') this.changes.push(line);
    else if (line.kind === 'waits') this.waits.push(line);
    else if (line.kind === 'saw') this.programs.add(line.name);
    else if (line.kind === 'found') this.found.push(`${line.where} of ${line.name}`);
    else if (line.kind === 'rounds') this.rounds += line.rounds;
    else if (line.kind === 'looks') [this.looks, this.threads] = [this.looks + line.looks, line.threads];
    else {
      const times = this.times.get(line.phase) ?? [];
      times.push(...line.times.map(([, ms]) => ms));
      this.times.set(line.phase, times);
    }
    const news = this.#news;
    this.#news = deferred();
    news.resolve();
  }
}

const ofServers = /\[(cifs|nfs\w*|lockd|sunrpc|rpc\w*|fuse)\]/;
const ofOwnDisk = /\[(ext4|jbd2|virtio_blk)\]/;

/**
 * Waits that have to do with file servers: those in the kernel's clients of them, and all that last. Every thread of
 * every program is found now and then in a wait of a moment for its memory map, or for the machine's own disk when the
 * store is written: those are no hang.
 */
export function hangs(waits: readonly Wait[]): readonly Wait[] {
  return waits.filter(
    ({ stack, since, at }) => ofServers.test(stack) || (at - since >= 1000 && !ofOwnDisk.test(stack)),
  );
}
