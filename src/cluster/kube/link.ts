import { fault } from '#api/errors.ts';
import { Backoff, type Random } from '#cluster/kube/backoff.ts';
import {
  KubeConnection,
  type KubeRequest,
  KubeStatusError,
  type KubeTimings,
} from '#cluster/kube/connection.ts';
import type { KubeConfig } from '#cluster/kube/kubeconfig.ts';
import { asObject } from '#cluster/kube/raw.ts';
import type { Clock } from '#host/clock.ts';
import { messageOf } from '#lib/fault.ts';
import type { ClusterLink } from '#state/facts.ts';

/** A connection that has proved itself, and how far the server's history goes. */
export interface Session {
  readonly connection: KubeConnection;
  /** Revision of the store when we connected; undefined when it did not say. */
  readonly revision: bigint | undefined;
  /** Identity of the cluster (UID of its namespace kube-system); undefined when it did not say. */
  readonly cluster: string | undefined;
}

export interface LinkOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** The kubeconfig as it is now; undefined: there is none. Throws when it cannot be used. */
  readonly load: () => Promise<KubeConfig | undefined>;
  readonly timings?: KubeTimings;
  readonly onChange: () => void;
}

/**
 * Keeps one connection to the API server, for as long as there is a kubeconfig: opens it, notices when it ends or falls
 * silent, opens it again. Lists, watches and requests share it.
 */
export class KubeLink {
  readonly #options: LinkOptions;
  #status: ClusterLink = 'connecting';
  #reason = 'not connected yet';
  #session: Session | undefined;
  #waiting = Promise.withResolvers<Session>();
  #reload = new AbortController();
  #closedRequests = 0;
  #lastHeard: number | undefined;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  get status(): ClusterLink {
    return this.#status;
  }

  /** Why there is no connection. */
  get reason(): string {
    return this.#reason;
  }

  /** Requests made so far, on this and all former connections. */
  get requests(): number {
    return this.#closedRequests + (this.#session?.connection.requests ?? 0);
  }

  /** Monotonic ms when the server was last heard; undefined: never. */
  get heardAt(): number | undefined {
    return this.#session?.connection.heardAt ?? this.#lastHeard;
  }

  /** The kubeconfig has changed: the connection is closed, a new one opened with what it says now. */
  reload(): void {
    this.#reload.abort(new Error('the kubeconfig has changed'));
    this.#reload = new AbortController();
  }

  /** The connection, as soon as there is one. */
  async session(signal: AbortSignal): Promise<Session> {
    signal.throwIfAborted();
    if (this.#session !== undefined && !this.#session.connection.ended.aborted) return this.#session;
    const aborted = Promise.withResolvers<never>();
    const onAbort = () => aborted.reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([this.#waiting.promise, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** One request, now or not at all: 503 `cluster_unavailable` without a connection. */
  async request(request: KubeRequest): Promise<unknown> {
    const connection = this.#session?.connection;
    if (connection === undefined || connection.ended.aborted) {
      throw fault('cluster_unavailable', `The Kubernetes API cannot be reached: ${this.#reason}.`);
    }
    try {
      return await connection.json(request);
    } catch (cause) {
      if (cause instanceof KubeStatusError || request.signal?.aborted) throw cause;
      throw fault('cluster_unavailable', `The Kubernetes API did not answer: ${messageOf(cause)}.`, {
        cause,
      });
    }
  }

  /** Runs until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(this.#options.clock, this.#options.random);
    while (!signal.aborted) {
      const reload = this.#reload.signal;
      const both = AbortSignal.any([signal, reload]);
      try {
        const config = await this.#options.load();
        if (config === undefined) await this.#idle(both);
        else await this.#live(config, both, () => backoff.reset());
      } catch (error) {
        if (signal.aborted) break;
        if (!reload.aborted) this.#set('unreachable', messageOf(error));
      }
      if (reload.aborted) backoff.reset();
      else await backoff.wait(both).catch(() => undefined);
    }
  }

  /** Nothing to connect to: until the kubeconfig appears. */
  async #idle(until: AbortSignal): Promise<void> {
    this.#set('no-kubeconfig', 'there is no kubeconfig');
    await ended(until);
  }

  async #live(config: KubeConfig, until: AbortSignal, onProved: () => void): Promise<void> {
    const { clock, timings } = this.#options;
    const connection = await KubeConnection.open(config, clock, until, timings);
    try {
      const identity = await probe(connection, until);
      onProved();
      this.#session = { connection, ...identity };
      this.#set('connected', '');
      this.#waiting.resolve(this.#session);
      await ended(AbortSignal.any([until, connection.ended]));
      throw connection.ended.aborted ? connection.ended.reason : until.reason;
    } finally {
      connection.close(new Error('closed'));
      this.#closedRequests += connection.requests;
      this.#lastHeard = connection.heardAt;
      // Who waits already goes on waiting for the next one: a promise that nobody has kept must not be forgotten.
      if (this.#session?.connection === connection) {
        this.#session = undefined;
        this.#waiting = Promise.withResolvers();
      }
    }
  }

  #set(status: ClusterLink, reason: string): void {
    const changed = status !== this.#status || reason !== this.#reason;
    this.#status = status;
    this.#reason = reason;
    if (changed) this.#options.onChange();
  }
}

/**
 * Asks for one object: proves that the server takes our word and serves, and tells which cluster it is and how far its
 * history goes. All core resources share one history, so a revision below ours means that the store was put back (etcd
 * restored from a snapshot).
 */
async function probe(
  connection: KubeConnection,
  signal: AbortSignal,
): Promise<Pick<Session, 'revision' | 'cluster'>> {
  const path = '/api/v1/namespaces?fieldSelector=metadata.name%3Dkube-system';
  try {
    const list = asObject(await connection.json({ path, signal, deadlineMs: 5000 }));
    const items: unknown = list?.['items'];
    const first = asObject(Array.isArray(items) ? items[0] : undefined);
    const uid = asObject(first?.['metadata'])?.['uid'];
    const version = asObject(list?.['metadata'])?.['resourceVersion'];
    return {
      revision: typeof version === 'string' ? parseRevision(version) : undefined,
      cluster: typeof uid === 'string' ? uid : undefined,
    };
  } catch (error) {
    // A right that is missing is told by the watches that need it.
    if (error instanceof KubeStatusError && error.status === 403)
      return { revision: undefined, cluster: undefined };
    throw error;
  }
}

/** Resource versions are numbers of one counter (KEP-5504 makes that a promise); anything else compares with nothing. */
export function parseRevision(text: string): bigint | undefined {
  return /^\d+$/.test(text) ? BigInt(text) : undefined;
}

function ended(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
