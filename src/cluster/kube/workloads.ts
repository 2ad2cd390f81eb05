import { createHash } from 'node:crypto';
import { fault } from '#api/errors.ts';
import { type OperationName, specOf } from '#api/operations.ts';
import { type KubeRequest, KubeStatusError } from '#cluster/kube/connection.ts';
import { matchesAny } from '#cluster/kube/names.ts';
import type { LocalPod } from '#cluster/kube/objects.ts';
import { asObject, type RawObject, textOf } from '#cluster/kube/raw.ts';
import type { Clock } from '#host/clock.ts';
import { SingleFlight } from '#lib/mutex.ts';
import { plainAddress } from '#lib/net.ts';

/** A pod of this cluster, in a namespace that is trusted. */
export interface ProvedWorkload {
  readonly namespace: string;
  readonly serviceAccount?: string;
  readonly pod?: string;
}

/** What the proofs are made of; ClusterWatch is one. */
export interface WorkloadSource {
  request(request: KubeRequest): Promise<unknown>;
  readonly localPods: ReadonlyMap<string, LocalPod>;
  /** ms since {@link localPods} was last known to be what the server says; 0 while it follows. */
  readonly localPodsAge: number;
  /** UID of a pod (`namespace/name`) of any node; undefined: there is none. Asked only when {@link podsKnown}. */
  podUid(key: string): string | undefined;
  readonly podsKnown: boolean;
  onPodGone(listener: (key: string) => void): () => void;
}

export interface WorkloadOptions {
  readonly clock: Clock;
  readonly source: WorkloadSource;
  readonly trustedNamespaces: readonly string[];
  /** Whether a packet from this address comes over the LAN (or a tunnel) rather than from a pod's own interface. */
  readonly comesFromLan: (address: string) => boolean;
  /** `access.podAddress`; false: tokens everywhere. */
  readonly addressProof: boolean;
}

/** The audience that a token must be made for (contract §5). */
export const audience = 'beosd';
const longestToken = 8192;
const keptMs = 60_000;
/** A token that was refused is not asked about again for so long: a client in a loop is no load on the API server. */
const refusedMs = 5000;
const mostKept = 512;
const mostReviews = 8;
const reviewDeadlineMs = 5000;

interface Kept {
  readonly workload: ProvedWorkload;
  /** Monotonic ms. */
  readonly until: number;
  /** `namespace/name` of the pod that the token is bound to. */
  readonly pod: string | undefined;
}

/**
 * Tells pods from everyone else: by a ServiceAccount token, which the API server checks, or by the source address of a
 * pod of this node (contract §5).
 *
 * INVARIANTS: no answer outlives its pod or its token, and none 60 s; while the API server is away nothing new is
 * proved by token, and the last pod list counts for 60 s.
 */
export class Workloads {
  readonly #options: WorkloadOptions;
  readonly #kept = new Map<string, Kept>();
  /** Token → monotonic ms until which it is not asked about again. Apart, for forged ones cost nothing to make. */
  readonly #refused = new Map<string, number>();
  readonly #flights = new SingleFlight<ProvedWorkload | undefined>();
  /** For each review under way: the pods that went meanwhile. */
  readonly #reviews = new Set<Set<string>>();

  constructor(options: WorkloadOptions) {
    this.#options = options;
    options.source.onPodGone((key) => this.#drop(key));
  }

  /** Answers that are kept now. */
  get size(): number {
    return this.#kept.size + this.#refused.size;
  }

  /**
   * The pod that a token was made for; undefined: it proves nothing. Throws the Fault `cluster_unavailable` when the API
   * server cannot be asked, `too_many_requests` when it is asked too much.
   */
  async byToken(token: string, _signal: AbortSignal): Promise<ProvedWorkload | undefined> {
    const claims = this.#claims(token);
    if (claims === undefined) return undefined;
    const id = createHash('sha256').update(token).digest('base64');
    const kept = this.#kept.get(id);
    const now = this.#options.clock.monotonic();
    if (kept !== undefined && kept.until > now) return kept.workload;
    if ((this.#refused.get(id) ?? now) > now) return undefined;
    this.#kept.delete(id);
    this.#refused.delete(id);
    // Not tied to one request: others may wait for the same answer, and the deadline bounds it.
    return this.#flights.run(id, () => this.#review(id, token, claims));
  }

  /** The pod of this node that has this address, for an operation that today's pods call without a token. */
  byAddress(
    address: string,
    operation: OperationName,
    _signal: AbortSignal,
  ): Promise<ProvedWorkload | undefined> {
    return Promise.resolve(this.#byAddress(plainAddress(address), operation));
  }

  #byAddress(address: string, operation: OperationName): ProvedWorkload | undefined {
    const { source, addressProof, trustedNamespaces, comesFromLan } = this.#options;
    if (!addressProof || specOf(operation).origin !== 'specified' || source.localPodsAge > keptMs)
      return undefined;
    const holders = [...source.localPods.values()].filter(
      (pod) => !pod.hostNetwork && pod.addresses.includes(address),
    );
    // An address is given on before the API forgets who had it: then the pod that stays is meant, and one whose init
    // containers are still at work holds it already.
    const staying = holders.filter((pod) => !pod.terminating);
    const [pod, second] = staying.length > 0 ? staying : holders;
    if (pod === undefined || second !== undefined || !pod.running) return undefined;
    if (!matchesAny(pod.namespace, trustedNamespaces) || comesFromLan(address)) return undefined;
    return { namespace: pod.namespace, serviceAccount: pod.serviceAccount, pod: pod.name };
  }

  /**
   * What the token says of itself, before anybody is asked. Nothing of it is proof; it only saves the API server from
   * tokens that cannot pass.
   */
  #claims(token: string): Claims | undefined {
    if (token.length > longestToken) return undefined;
    const claims = decode(token);
    if (claims === undefined || claims.expiresAt <= this.#options.clock.now()) return undefined;
    return matchesAny(claims.namespace, this.#options.trustedNamespaces) ? claims : undefined;
  }

  async #review(id: string, token: string, claims: Claims): Promise<ProvedWorkload | undefined> {
    if (this.#reviews.size >= mostReviews) {
      throw fault('too_many_requests', 'Too many tokens are being checked.', { retryAfter: 1 });
    }
    const gone = new Set<string>();
    this.#reviews.add(gone);
    try {
      const answer = await this.#options.source.request({
        method: 'POST',
        path: '/apis/authentication.k8s.io/v1/tokenreviews',
        body: {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenReview',
          spec: { token, audiences: [audience] },
        },
        deadlineMs: reviewDeadlineMs,
      });
      const found = verdict(asObject(asObject(answer)?.['status']) ?? {}, claims);
      const proved = found !== undefined && this.#isThere(found, gone) ? found : undefined;
      this.#keep(id, proved, claims);
      return proved?.workload;
    } catch (error) {
      if (!(error instanceof KubeStatusError)) throw error;
      throw fault('cluster_unavailable', `The token cannot be checked: ${error.message}.`, { cause: error });
    } finally {
      this.#reviews.delete(gone);
    }
  }

  /** The API server itself remembers tokens for 10 s after their pod has gone; the watch knows at once. */
  #isThere({ podKey, podUid }: Proved, gone: ReadonlySet<string>): boolean {
    if (podKey === undefined) return true;
    if (gone.has(podKey)) return false;
    const { source } = this.#options;
    return !source.podsKnown || source.podUid(podKey) === podUid;
  }

  #keep(id: string, proved: Proved | undefined, claims: Claims): void {
    const { clock } = this.#options;
    const left = claims.expiresAt - clock.now();
    const until = (ms: number) => clock.monotonic() + Math.min(ms, left);
    if (proved === undefined) addBounded(this.#refused, id, until(refusedMs));
    else addBounded(this.#kept, id, { workload: proved.workload, until: until(keptMs), pod: proved.podKey });
  }

  #drop(pod: string): void {
    for (const gone of this.#reviews) gone.add(pod);
    for (const [id, kept] of this.#kept) if (kept.pod === pod) this.#kept.delete(id);
  }
}

interface Claims {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** ms since the epoch. */
  readonly expiresAt: number;
}

interface Proved {
  readonly workload: ProvedWorkload;
  readonly podKey: string | undefined;
  readonly podUid: string | undefined;
}

/** Adds an entry; beyond {@link mostKept} the oldest goes. */
function addBounded<T>(map: Map<string, T>, key: string, value: T): void {
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > mostKept && oldest !== undefined) map.delete(oldest);
}

function decode(token: string): Claims | undefined {
  const parts = token.split('.');
  if (parts.length !== 3) return undefined;
  let payload: RawObject | undefined;
  try {
    payload = asObject(JSON.parse(Buffer.from(parts[1] ?? '', 'base64url').toString('utf8')));
  } catch {
    return undefined;
  }
  const audiences: unknown = payload?.['aud'];
  if (Array.isArray(audiences) ? !audiences.includes(audience) : audiences !== audience) return undefined;
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(textOf(payload?.['sub']));
  const seconds = payload?.['exp'];
  if (account === null || typeof seconds !== 'number') return undefined;
  return { namespace: account[1] ?? '', serviceAccount: account[2] ?? '', expiresAt: seconds * 1000 };
}

/** What the API server said: authenticated, for our audience, as the account that the token names. */
function verdict(status: RawObject, { namespace, serviceAccount }: Claims): Proved | undefined {
  const audiences: unknown = status['audiences'];
  const user = asObject(status['user']);
  if (status['authenticated'] !== true || !Array.isArray(audiences) || !audiences.includes(audience)) {
    return undefined;
  }
  if (user?.['username'] !== `system:serviceaccount:${namespace}:${serviceAccount}`) return undefined;
  const extra = asObject(user['extra']) ?? {};
  const [pod, podUid] = ['name', 'uid'].map((each) =>
    firstOf(extra[`authentication.kubernetes.io/pod-${each}`]),
  );
  if (pod === undefined) return { workload: { namespace, serviceAccount }, podKey: undefined, podUid };
  return { workload: { namespace, serviceAccount, pod }, podKey: `${namespace}/${pod}`, podUid };
}

function firstOf(values: unknown): string | undefined {
  return Array.isArray(values) ? textOf(values[0]) || undefined : undefined;
}
