import { Backoff, type Random } from '#cluster/kube/backoff.ts';
import { KubeStatusError } from '#cluster/kube/connection.ts';
import { JsonLines, ListSplitter } from '#cluster/kube/json-stream.ts';
import { type KubeLink, parseRevision, type Session } from '#cluster/kube/link.ts';
import { asObject, type RawObject } from '#cluster/kube/raw.ts';
import type { Clock } from '#host/clock.ts';
import { messageOf } from '#lib/fault.ts';

export interface ResourceSpec<T> {
  /** For messages: `pods`. */
  readonly name: string;
  /** Collection path: `/api/v1/pods`. */
  readonly path: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
  /** Name of the CRD, for a resource that may not exist yet: its absence is an empty set, its arrival is watched. */
  readonly crd?: string;
  /** What is kept of an object; undefined: nothing, it is none of ours. */
  readonly keep: (object: RawObject) => T | undefined;
}

/** Told of every difference; `after` undefined: gone. */
export type ChangeListener<T> = (key: string, after: T | undefined, before: T | undefined) => void;

export interface ReflectorOptions<T> {
  readonly clock: Clock;
  readonly random: Random;
  readonly link: KubeLink;
  readonly spec: ResourceSpec<T>;
  readonly onChange: ChangeListener<T>;
  /** Called when {@link Reflector.synced} or {@link Reflector.problem} may have changed. */
  readonly onStatus: () => void;
}

const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
const harmlessInARow = 3;
/**
 * A server's Retry-After is heard up to this, ms. A starting one asks for 10 s for resources that it defines a moment
 * later, and this node's state would be old for so long; six requests every two seconds hurt nobody.
 */
const mostAskedMs = 2000;
const pageSize = 500;
const pageDeadlineMs = 30_000;
/** A watch that the server has not begun to answer by then is asked for anew: the connection may be well, and it lost. */
const openWithinMs = 10_000;
/** A watch that ends sooner, without a word, does not count as a success. */
const shortWatchMs = 2000;
/** The server ends a watch after 30 to 60 minutes; so many seconds keep the daemons of a cluster out of step. */
const watchSeconds = { least: 1800, spread: 1800 };
/** A watch that the server has not ended so long after it was to, ms, is one that it has forgotten. */
const watchGraceMs = 60_000;

/** The server ended a watch that had hardly begun. */
class EndedEarly extends Error {
  override readonly name = 'EndedEarly';
}

/** The position in the server's history is no longer there: everything is listed again. */
class Gone extends Error {
  override readonly name = 'Gone';
}

/**
 * A copy of one collection that follows the API server: a paged list, then a watch with bookmarks, resumed where it
 * broke off. Lists again only when the server has forgotten our position (410) or went back in time.
 *
 * INVARIANTS: what was last known stays until the server says otherwise; a failure never empties the copy; after each
 * failure there is a wait, so that a sick server is asked a few times a second at most.
 */
export class Reflector<T> {
  readonly #options: ReflectorOptions<T>;
  readonly #items = new Map<string, T>();
  readonly #backoff: Backoff;
  #session: Session | undefined;
  #version: string | undefined;
  #cluster: string | undefined;
  #synced = false;
  #problem: string | undefined;
  #lists = 0;
  #following = false;
  /** Monotonic ms when the copy was last known to be what the server says; undefined: never. */
  #followedAt: number | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#backoff = new Backoff(options.clock, options.random);
  }

  /** `namespace/name` (or `name`) → what is kept. */
  get items(): ReadonlyMap<string, T> {
    return this.#items;
  }

  /** The first list is complete. */
  get synced(): boolean {
    return this.#synced;
  }

  /** Why the copy does not follow the server now; undefined: it does. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Full lists made so far. */
  get lists(): number {
    return this.#lists;
  }

  /**
   * ms since the copy was last known to be what the server says: 0 while a watch is open, never 0 otherwise. Other
   * traffic on the connection says nothing of this collection.
   */
  get age(): number {
    if (this.#following) return 0;
    if (this.#followedAt === undefined) return Number.POSITIVE_INFINITY;
    return Math.max(1, this.#options.clock.monotonic() - this.#followedAt);
  }

  /** Runs until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const session = await this.#options.link.session(signal);
        this.#meet(session);
        if (!this.#canResume(session)) await this.#list(session, signal);
        await this.#watch(session, signal);
      } catch (error) {
        if (!signal.aborted) await this.#recover(error, signal).catch(() => undefined);
      }
    }
  }

  /**
   * A server that has just started forgets positions and ends watches until it has read its definitions: what went wrong
   * with the one before says nothing about it. How often a new one is met at all is bounded by the link.
   */
  #meet(session: Session): void {
    if (session === this.#session) return;
    this.#session = session;
    this.#backoff.reset();
  }

  /** Our position means something to this server: same cluster, and its history reaches as far as ours. */
  #canResume({ cluster, revision }: Session): boolean {
    if (this.#version === undefined || this.#cluster !== cluster) return false;
    const ours = parseRevision(this.#version);
    return ours === undefined || revision === undefined || revision >= ours;
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const { name, crd } = this.#options.spec;
    const status = error instanceof KubeStatusError ? error.status : undefined;
    if (status === 404 && crd !== undefined && (await this.#undefinedYet(crd, signal))) return;
    const gone = error instanceof Gone || status === 410;
    if (gone) this.#version = undefined;
    // A 410 or an early end is part of the game (the server forgets its history every few minutes); a row of them is not.
    const harmless = gone || error instanceof EndedEarly;
    if (!harmless || this.#backoff.failures >= harmlessInARow)
      this.#setProblem(`${name}: ${messageOf(error)}`);
    const asked = error instanceof KubeStatusError ? error.retryAfterMs : undefined;
    await this.#backoff.wait(signal, Math.min(asked ?? 0, mostAskedMs));
  }

  /** Reads the whole collection in pages into a new copy, then takes over the differences in one go. */
  async #list(session: Session, signal: AbortSignal): Promise<void> {
    this.#lists++;
    const began = this.#options.clock.monotonic();
    const fresh = new Map<string, T>();
    let token = '';
    let version: string | undefined;
    do {
      const splitter = new ListSplitter((item) => this.#collect(item, fresh));
      const path = this.#path({ limit: String(pageSize), ...(token === '' ? {} : { continue: token }) });
      await session.connection.stream({ path, signal, deadlineMs: pageDeadlineMs }, (chunk) =>
        splitter.push(chunk),
      );
      const { metadata } = splitter.end();
      token = metadata?.continue ?? '';
      version = metadata?.resourceVersion;
    } while (token !== '');
    this.#cluster = session.cluster;
    this.#replace(fresh, version);
    this.#followedAt = began;
  }

  #collect(item: unknown, into: Map<string, T>): void {
    const object = asObject(item);
    if (object === undefined) return;
    const kept = this.#options.spec.keep(object);
    if (kept !== undefined) into.set(keyOf(object), kept);
  }

  #replace(fresh: Map<string, T>, version: string | undefined): void {
    this.#version = version;
    for (const [key, before] of this.#items) {
      if (fresh.has(key)) continue;
      this.#items.delete(key);
      this.#options.onChange(key, undefined, before);
    }
    for (const [key, after] of fresh) this.#set(key, after);
    if (!this.#synced) {
      this.#synced = true;
      this.#options.onStatus();
    }
  }

  #set(key: string, after: T | undefined): void {
    const before = this.#items.get(key);
    if (after === undefined) {
      if (!this.#items.delete(key)) return;
    } else {
      this.#items.set(key, after);
    }
    this.#options.onChange(key, after, before);
  }

  async #watch(session: Session, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const began = clock.monotonic();
    const seconds = watchSeconds.least + Math.floor(random() * watchSeconds.spread);
    const path = this.#path({
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: this.#version ?? '',
      timeoutSeconds: String(seconds),
    });
    const settled = () => {
      if (clock.monotonic() - began > shortWatchMs) this.#backoff.reset();
    };
    const lines = new JsonLines((value) => {
      settled();
      this.#event(value);
    });
    const onOpen = () => {
      this.#following = true;
      this.#setProblem(undefined);
    };
    try {
      const deadlineMs = seconds * 1000 + watchGraceMs;
      const request = { path, signal, onOpen, openWithinMs, deadlineMs };
      await session.connection.stream(request, (chunk) => lines.push(chunk));
    } finally {
      // One that breaks as soon as it is open has brought nothing.
      if (this.#following && clock.monotonic() - began > shortWatchMs) {
        this.#followedAt = session.connection.heardAt;
      }
      this.#following = false;
    }
    settled();
    if (this.#backoff.failures > 0 || clock.monotonic() - began <= shortWatchMs) {
      throw new EndedEarly('the watch ended at once');
    }
  }

  #event(value: unknown): void {
    const event = asObject(value);
    const object = asObject(event?.['object']);
    if (event === undefined || object === undefined) throw new Error('an event without an object');
    if (event['type'] === 'ERROR') throw eventError(object);
    const metadata = asObject(object['metadata']);
    const version = metadata?.['resourceVersion'];
    if (typeof version === 'string') this.#advance(version);
    if (event['type'] === 'BOOKMARK') return;
    const kept = event['type'] === 'DELETED' ? undefined : this.#options.spec.keep(object);
    this.#set(keyOf(object), kept);
  }

  #advance(version: string): void {
    const [now, before] = [parseRevision(version), parseRevision(this.#version ?? '')];
    // A history that runs backwards is another history: what we hold may not exist in it.
    if (now !== undefined && before !== undefined && now < before) {
      throw new Gone(`revision ${now} after ${before}`);
    }
    this.#version = version;
  }

  /**
   * A 404 means that the resource is not defined, or that a server that has just started does not know its definitions
   * yet. True: not defined; the set is empty now, and this returned when a definition arrived.
   */
  async #undefinedYet(crd: string, signal: AbortSignal): Promise<boolean> {
    const { connection } = await this.#options.link.session(signal);
    const found = await connection.json({ path: `${definitions}/${crd}`, signal }).then(
      () => true,
      (error: unknown) => !(error instanceof KubeStatusError && error.status === 404),
    );
    if (found) return false;
    this.#replace(new Map(), undefined);
    this.#setProblem(undefined);
    const established = new AbortController();
    const seconds = watchSeconds.least;
    const query = new URLSearchParams({
      watch: 'true',
      fieldSelector: `metadata.name=${crd}`,
      timeoutSeconds: String(seconds),
    });
    const lines = new JsonLines((value) => {
      if (isEstablished(asObject(asObject(value)?.['object']))) established.abort();
    });
    const until = AbortSignal.any([signal, established.signal]);
    try {
      const path = `${definitions}?${query}`;
      const deadlineMs = seconds * 1000 + watchGraceMs;
      const request = { path, signal: until, openWithinMs, deadlineMs };
      await connection.stream(request, (chunk) => lines.push(chunk));
    } catch (error) {
      if (!established.signal.aborted) throw error;
    }
    return true;
  }

  #path(query: Readonly<Record<string, string>>): string {
    const { path, fieldSelector, labelSelector } = this.#options.spec;
    const all = new URLSearchParams(query);
    if (fieldSelector) all.set('fieldSelector', fieldSelector);
    if (labelSelector) all.set('labelSelector', labelSelector);
    return `${path}?${all}`;
  }

  #setProblem(problem: string | undefined): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#options.onStatus();
  }
}

function eventError(status: RawObject): Error {
  const message = String(status['message'] ?? 'watch error');
  return status['code'] === 410 || status['reason'] === 'Expired' ? new Gone(message) : new Error(message);
}

function isEstablished(crd: RawObject | undefined): boolean {
  const conditions = asObject(crd?.['status'])?.['conditions'];
  if (!Array.isArray(conditions)) return false;
  return conditions.some((each: unknown) => {
    const condition = asObject(each);
    return condition?.['type'] === 'Established' && condition['status'] === 'True';
  });
}

function keyOf(object: RawObject): string {
  const metadata = asObject(object['metadata']);
  const namespace = metadata?.['namespace'];
  const name = String(metadata?.['name'] ?? '');
  return typeof namespace === 'string' && namespace !== '' ? `${namespace}/${name}` : name;
}
