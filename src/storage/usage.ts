import type { UsageStat } from '#api/storage.ts';
import type { Clock } from '#host/clock.ts';
import { ExecError } from '#host/exec.ts';
import type { FsUsage, Mounts } from '#host/mounts.ts';
import { messageOf } from '#lib/fault.ts';
import { SingleFlight } from '#lib/mutex.ts';

/** The numbers of `df`: what root keeps for itself is neither used nor free. */
export function usageStat(path: string, fstype: string, fs: FsUsage): UsageStat {
  const used = (fs.blocks - fs.free) * fs.blockSize;
  const free = fs.available * fs.blockSize;
  // ntfs-3g makes inodes as they are needed, and tells of more that are free than there are.
  const inodesUsed = Math.max(0, fs.inodes - fs.inodesFree);
  return {
    path,
    fstype,
    total: fs.blocks * fs.blockSize,
    free,
    used,
    usedPercent: used + free === 0 ? 0 : (used / (used + free)) * 100,
    inodesTotal: fs.inodes,
    inodesUsed,
    inodesFree: fs.inodesFree,
    inodesUsedPercent: fs.inodes === 0 ? 0 : (inodesUsed / fs.inodes) * 100,
  };
}

export interface Probed {
  readonly usage: UsageStat;
  /** It does not answer; the numbers are the last known ones, or zeros. */
  readonly invalid: boolean;
}

interface Flight {
  readonly done: Promise<void>;
  /** It waits behind other mounts that may hang, and has not been asked yet. */
  waits: boolean;
}

interface State {
  usage: FsUsage | undefined;
  invalid: boolean;
  reason: string;
  at: number;
  flight: Flight | undefined;
  /** The last try brought no answer: it did not end in time, or could not be made. */
  late: boolean;
  /** The child that asked last hangs in the kernel: another one would only hang beside it. */
  lingers: boolean;
  retryAt: number;
  failures: number;
  /** Somebody has waited for its first numbers; nobody does so again. */
  waitedFor: boolean;
  /** It is of a mount that is gone: nobody is told any more what comes of it. */
  former: boolean;
}

/** Numbers of what cannot be asked. */
export const zeros: FsUsage = { blockSize: 0, blocks: 0, free: 0, available: 0, inodes: 0, inodesFree: 0 };

/**
 * What came of asking a mount: it answers, it answers with an error, or it does not answer in time. Unknown: nothing
 * does, for the machine has too much to do.
 */
export type Said = 'answers' | 'fails' | 'hangs' | 'unknown';

/** How patient the probe is, in ms. */
export interface Patience {
  /** A caller waits this long for fresh numbers, then gets the last known ones. */
  readonly answer: number;
  /** A mount that has not answered for this long is invalid, and nobody waits for it any more. */
  readonly dead: number;
  /** Numbers this young are given out again. */
  readonly fresh: number;
}

const patient: Patience = { answer: 30, dead: 2500, fresh: 500 };

/**
 * Asks file systems for their numbers, each in a child of its own that can be given up. A mount that has been found
 * dead is answered from memory at once; it is asked again in the background, ever more rarely, with jitter.
 */
export class UsageProbe {
  readonly #mounts: Mounts;
  readonly #clock: Clock;
  readonly #patience: Patience;
  readonly #states = new Map<string, State>();
  /** A child takes a moment of ours to start: few at a time, and those that may hang not before those that answer. */
  readonly #trusted = new Pool(8);
  readonly #suspects = new Pool(1);
  readonly #control = new SingleFlight<boolean>();
  readonly #onChange: (path: string, invalid: boolean, reason: string) => void;

  constructor(
    mounts: Mounts,
    clock: Clock,
    onChange: (path: string, invalid: boolean, reason: string) => void,
    patience: Patience = patient,
  ) {
    this.#mounts = mounts;
    this.#clock = clock;
    this.#onChange = onChange;
    this.#patience = patience;
  }

  /** Numbers of a mount. `key` changes when another file system is mounted at the path. Never rejects, never hangs. */
  async usage(key: string, path: string, fstype: string): Promise<Probed> {
    const state = this.#stateOf(key);
    const flight = this.#refresh(state, path);
    if (!state.invalid && flight !== undefined) {
      await firstOf(flight, this.#patienceFor(state));
    }
    const invalid = state.invalid || state.usage === undefined;
    return { usage: usageStat(path, fstype, state.usage ?? zeros), invalid };
  }

  /** What is known, without asking. */
  isInvalid(key: string): boolean {
    return this.#states.get(key)?.invalid ?? false;
  }

  /** Somebody else found out that it is dead (its server refuses connections). */
  markInvalid(key: string, path: string, reason: string): void {
    this.#set(this.#stateOf(key), path, true, reason);
  }

  /** Asks now, also a mount that is thought dead. */
  async check(key: string, path: string): Promise<Said> {
    const state = this.#stateOf(key);
    const before = state.flight;
    if (before?.waits === false) {
      await before.done;
      if (!state.invalid) return 'answers';
      // What was asked before this may have been asked of a server that was away.
    }
    state.retryAt = 0;
    await this.#refresh(state, path, true);
    if (!state.invalid) return 'answers';
    if (!state.late) return 'fails';
    return !state.lingers && (await this.#isSlow()) ? 'unknown' : 'hangs';
  }

  /** It was mounted anew: who still asks the old mount, or hangs at it, says nothing about this one. */
  renewed(key: string): void {
    const state = this.#states.get(key);
    if (state === undefined) return;
    this.#states.set(key, { ...state, flight: undefined, lingers: false, retryAt: 0 });
    state.former = true;
  }

  /** It was mounted for the first time, or by a person, a moment ago: its server has just answered. */
  mounted(key: string, path: string): void {
    this.renewed(key);
    this.#set(this.#stateOf(key), path, false, '');
  }

  /** Forgets mounts that are gone. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of this.#states.keys()) if (!keys.has(key)) this.#states.delete(key);
  }

  /** Old numbers are worth a moment of waiting for new ones; the very first ones a longer one, but only once. */
  #patienceFor(state: State): number {
    if (state.usage !== undefined) return this.#patience.answer;
    const isFirst = !state.waitedFor;
    state.waitedFor = true;
    return isFirst ? this.#patience.dead : 0;
  }

  #stateOf(key: string): State {
    let state = this.#states.get(key);
    if (state === undefined) {
      state = {
        usage: undefined,
        invalid: false,
        reason: '',
        at: Number.NEGATIVE_INFINITY,
        flight: undefined,
        late: false,
        lingers: false,
        retryAt: 0,
        failures: 0,
        waitedFor: false,
        former: false,
      };
      this.#states.set(key, state);
    }
    return state;
  }

  /** One probe at a time per mount; undefined: nothing needs to be asked now. */
  #refresh(state: State, path: string, force = false): Promise<void> | undefined {
    if (state.flight !== undefined && !(force && state.flight.waits)) return state.flight.done;
    if (state.lingers) return undefined;
    const now = this.#clock.monotonic();
    if (!force && !state.invalid && now - state.at < this.#patience.fresh) return undefined;
    if (now < state.retryAt) return undefined;
    state.flight = this.#ask(state, path, force);
    return state.flight.done;
  }

  #ask(state: State, path: string, force: boolean): Flight {
    // Who forces an answer has reason to expect one.
    const isSuspect = state.invalid && !force;
    // Undefined: somebody could not wait for its turn, and asks, or has asked.
    const ask = async () => {
      if (state.flight !== flight) return undefined;
      flight.waits = false;
      return await this.#mounts.usage(path, this.#patience.dead);
    };
    const asked = (isSuspect ? this.#suspects : this.#trusted).run(ask).then(
      (usage) => usage && this.#answered(state, path, usage),
      (error: unknown) => this.#failed(state, path, error),
    );
    const done = asked.finally(() => {
      if (state.flight === flight) state.flight = undefined;
    });
    const flight: Flight = { done, waits: isSuspect };
    return flight;
  }

  #answered(state: State, path: string, usage: FsUsage): void {
    state.usage = usage;
    state.at = this.#clock.monotonic();
    state.failures = 0;
    this.#set(state, path, false, '');
  }

  async #failed(state: State, path: string, error: unknown): Promise<void> {
    this.#awaitEnd(state, error);
    // An error is the file system's word only when it was asked, and answered: not when no child could be started.
    const answered = error instanceof ExecError && error.reason === 'exit';
    const unasked = !answered && !(error instanceof ExecError && error.reason === 'timeout');
    state.late = !answered;
    if (state.late && !state.invalid && (unasked || (await this.#isSlow())) && !state.lingers) {
      state.retryAt = this.#clock.monotonic() + this.#patience.fresh;
      return;
    }
    state.failures++;
    const backoff = Math.min(60_000, 2000 * 2 ** Math.min(state.failures, 5));
    state.retryAt = this.#clock.monotonic() + backoff * (0.75 + Math.random() / 2);
    this.#set(state, path, true, messageOf(error));
  }

  /** Even a file system that cannot hang is not answered for in time: the machine has too much to do, nothing is dead. */
  #isSlow(): Promise<boolean> {
    const ask = () => this.#mounts.usage('/proc', this.#patience.dead);
    return this.#control.run('', () =>
      ask().then(
        () => false,
        () => true,
      ),
    );
  }

  #awaitEnd(state: State, error: unknown): void {
    if (!(error instanceof ExecError) || error.lingering === undefined) return;
    state.lingers = true;
    void error.lingering.then(() => {
      state.lingers = false;
    });
  }

  #set(state: State, path: string, invalid: boolean, reason: string): void {
    const changed = state.invalid !== invalid;
    state.invalid = invalid;
    state.reason = reason;
    if (changed && !state.former) this.#onChange(path, invalid, reason);
  }
}

/** Runs at most `width` tasks at a time, in the order of arrival, and begins at most one in each turn of the loop. */
class Pool {
  readonly #width: number;
  #turn: Promise<void> = Promise.resolve();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(width: number) {
    this.#width = width;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#width) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    this.#turn = this.#turn.then(() => new Promise((resolve) => setImmediate(resolve)));
    try {
      await this.#turn;
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}

/** Waits for a promise, but no longer than `ms`. */
async function firstOf(work: Promise<void>, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  try {
    await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}
