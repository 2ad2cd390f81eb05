import { isDeepStrictEqual } from 'node:util';
import type { Condition } from '#api/shapes.ts';
import type { NodeState } from '#api/states.ts';
import type { Status } from '#api/status.ts';
import { type Observed, unknown } from '#lib/observed.ts';
import { deriveConditions } from '#state/conditions.ts';
import { deriveState, notObserved } from '#state/derive.ts';
import type { Facts, JobFacts } from '#state/facts.ts';
import { buildStatus, type ProfileFacts } from '#state/status.ts';

/** What is known about the node at one moment. Immutable, replaced as a whole. */
export interface Snapshot {
  readonly facts: Facts;
  readonly jobs: readonly JobFacts[];
  readonly state: NodeState;
  /** The fact that decided the state, in words. */
  readonly because: string;
  readonly status: Status;
  readonly conditions: readonly Condition[];
  /** The whole answer of GET /system/status, envelope included, made once. */
  readonly body: Buffer;
}

/** The clock is slewed all the time; it is set by more than this. */
const clockStepMs = 5000;

/** Told after the snapshot was swapped. */
export type SnapshotListener = (now: Snapshot, before: Snapshot) => void;

export interface ObservatoryOptions {
  readonly clock: { now(): number; monotonic(): number };
  /** Version of beosd. */
  readonly version: string;
  readonly nodeId: string;
  readonly profile: ProfileFacts;
  /** Told of a listener that threw; the others are still called. */
  readonly onListenerError?: (error: unknown) => void;
}

export interface Owner {
  readonly name: string | undefined;
  readonly owned: boolean;
}

/** Facts before any source has reported: all unknown, none of it taken for "none". */
export function initialFacts(now: number): Facts {
  const awaited = (source: string) => unknown(source, now, notObserved);
  return {
    machine: awaited('machine'),
    network: awaited('links'),
    hosts: awaited('hosts-file'),
    hostIp: awaited('host-ip'),
    wifi: awaited('network-manager'),
    externalIp: awaited('external-ip'),
    shutdown: awaited('shutdown'),
    install: awaited('install-files'),
    release: awaited('install-files'),
    cluster: awaited('cluster'),
    clusterLink: 'connecting',
    clock: awaited('clock-sync'),
    dataDir: awaited('disk-space'),
    store: { durable: true, reason: undefined, historyLostAt: undefined },
    bus: { available: true, reason: undefined },
    reported: {},
    mountsTried: false,
  };
}

/**
 * The state of the node: facts in, one immutable snapshot out.
 *
 * INVARIANTS: `current` is always complete and is swapped in one assignment; an update that says nothing new makes no
 * change and no event; nothing here waits, and no method throws, whatever the facts or the listeners do.
 */
export class Observatory {
  readonly #options: ObservatoryOptions;
  readonly #listeners = new Set<SnapshotListener>();
  readonly #since = new Map<string, number>();
  #facts: Facts;
  #jobs: readonly JobFacts[] = [];
  #owner: Owner = { name: undefined, owned: false };
  /** What the wall clock was ahead of the monotonic one when the start of the machine was last told, ms. */
  #ahead = 0;
  #current: Snapshot;

  constructor(options: ObservatoryOptions) {
    this.#options = options;
    this.#facts = initialFacts(options.clock.now());
    this.#current = this.#make();
  }

  get current(): Snapshot {
    return this.#current;
  }

  /** Takes in what a source has seen. Values that only became younger are kept without a change. */
  update(patch: Partial<Facts>): void {
    const before = this.#facts;
    const keys = Object.keys(patch) as (keyof Facts)[];
    const changed = keys.filter((key) => !saysTheSame(before[key], patch[key]));
    this.#facts = { ...before, ...patch, ...unknownStill(before, keys, changed) };
    if (patch.machine !== undefined) this.#ahead = this.#aheadNow();
    if (changed.length > 0) this.#tell(this.#swap());
  }

  /** The newest job of each operation that the state looks at. */
  setJobs(jobs: readonly JobFacts[]): void {
    if (isDeepStrictEqual(jobs, this.#jobs)) return;
    this.#jobs = jobs;
    this.#tell(this.#swap());
  }

  setOwner(owner: Owner): void {
    if (isDeepStrictEqual(owner, this.#owner)) return;
    this.#owner = owner;
    this.#tell(this.#swap());
  }

  /** The slow net: derives again, as some rules depend on time alone, and renews `observedAt`. */
  resync(): void {
    const before = this.#swap();
    if (isNews(before, this.#current)) this.#tell(before);
  }

  /** Returns how to stop listening. */
  onChange(listener: SnapshotListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Returns what was current before. */
  #swap(): Snapshot {
    const before = this.#current;
    this.#current = this.#make();
    return before;
  }

  #tell(before: Snapshot): void {
    const now = this.#current;
    for (const listener of [...this.#listeners]) {
      try {
        listener(now, before);
      } catch (error) {
        this.#options.onListenerError?.(error);
      }
    }
  }

  #aheadNow(): number {
    const { clock } = this.#options;
    return clock.now() - clock.monotonic();
  }

  /**
   * Somebody has set the clock, as on every start of a board that has none of its own: the start of the machine moves
   * with it at once, not when it is next read. Else the node would seem to have been up for hours.
   */
  #moveStart(): void {
    const { machine } = this.#facts;
    const step = this.#aheadNow() - this.#ahead;
    if (!machine.known || Math.abs(step) < clockStepMs) return;
    this.#ahead += step;
    const value = { ...machine.value, bootedAt: machine.value.bootedAt + step };
    this.#facts = { ...this.#facts, machine: { ...machine, value } };
  }

  #make(): Snapshot {
    const { clock, version, nodeId, profile } = this.#options;
    this.#moveStart();
    const now = clock.now();
    const facts = this.#facts;
    const jobs = this.#jobs;
    const derived = deriveState(facts, jobs, now);
    const conditions = this.#dated(facts, now);
    const status = buildStatus({
      facts,
      jobs,
      derived,
      conditionCodes: conditions.map(({ code }) => code),
      identity: { version, nodeId, owned: this.#owner.owned, ownerName: this.#owner.name },
      profile,
      now,
    });
    const body = Buffer.from(JSON.stringify({ code: 200, message: 'success', data: status }));
    return { facts, jobs, ...derived, status, conditions, body };
  }

  /** A condition keeps its first date for as long as its code persists. */
  #dated(facts: Facts, now: number): Condition[] {
    const found = deriveConditions(facts, this.#jobs, now);
    const codes = new Set(found.map(({ code }) => code));
    for (const code of this.#since.keys()) if (!codes.has(code)) this.#since.delete(code);
    return found.map((condition) => {
      const since = this.#since.get(condition.code) ?? now;
      this.#since.set(condition.code, since);
      return { ...condition, fixedBy: [...condition.fixedBy], since: new Date(since).toISOString() };
    });
  }
}

/** A fact that is as unknown as before has been so since then, whatever its source says. */
function unknownStill(
  before: Facts,
  keys: readonly (keyof Facts)[],
  changed: readonly (keyof Facts)[],
): Partial<Facts> {
  const still = keys.filter((key) => {
    const fact = before[key];
    return !changed.includes(key) && isObserved(fact) && !fact.known;
  });
  return Object.fromEntries(still.map((key) => [key, before[key]]));
}

/** Equal but for when it was last confirmed. */
function saysTheSame(before: unknown, now: unknown): boolean {
  if (before === now) return true;
  return isDeepStrictEqual(withoutAge(before), withoutAge(now));
}

function withoutAge(fact: unknown): unknown {
  if (!isObserved(fact)) return fact;
  if (fact.known) {
    const { at: _at, ...rest } = fact;
    return rest;
  }
  return { known: false, source: fact.source, reason: fact.reason };
}

function isObserved(fact: unknown): fact is Observed<unknown> {
  return typeof fact === 'object' && fact !== null && 'known' in fact && 'source' in fact;
}

/** Whether time alone has changed something; `observedAt`, or a message that counts minutes, is no news. */
function isNews(before: Snapshot, now: Snapshot): boolean {
  return !isDeepStrictEqual(undated(before.status), undated(now.status));
}

function undated(status: Status): Omit<Status, 'observedAt'> {
  const { observedAt: _observedAt, ...rest } = status;
  return rest;
}
