import { isDeepStrictEqual } from 'node:util';
import type { Random } from '#cluster/kube/backoff.ts';
import type { KubeRequest, KubeTimings } from '#cluster/kube/connection.ts';
import { clusterFacts, findThisNode, type Identity, PodTally } from '#cluster/kube/facts.ts';
import { KubeConfigSource } from '#cluster/kube/kubeconfig-source.ts';
import { KubeLink } from '#cluster/kube/link.ts';
import type { KubeNames } from '#cluster/kube/names.ts';
import {
  type CertificateRecord,
  certificatesSpec,
  type LocalPod,
  localPodsSpec,
  type NodeRecord,
  nodesSpec,
  podsSpec,
  systemSpec,
  usersSpec,
} from '#cluster/kube/objects.ts';
import { type ChangeListener, Reflector, type ResourceSpec } from '#cluster/kube/reflector.ts';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import type { ClusterFacts, ClusterLink } from '#state/facts.ts';

/** What the daemon is told: the same shape as the facts of the state. */
export interface ClusterReport {
  readonly cluster: Observed<ClusterFacts>;
  readonly clusterLink: ClusterLink;
}

export interface ClusterOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly files: Files;
  readonly names: KubeNames;
  /** Kubeconfigs in the order in which they are tried. */
  readonly kubeconfigs: readonly string[];
  /** Asked at every look; cheap. */
  readonly identity: () => Identity;
  readonly onReport: (report: ClusterReport) => void;
  readonly timings?: KubeTimings;
}

const source = 'kubernetes';
/**
 * A change is told after `firstMs`, the next not before `leastMs`: a burst is one change. The more changes came since the
 * last telling, the longer the next waits (10 ms for each, `mostMs` at most): whoever hears of a change writes it down,
 * and a cluster in turmoil must not make the node slow.
 */
const pace = { firstMs: 5, leastMs: 25, eachMs: 10, mostMs: 1000 };
/** A kubeconfig that is away for longer is gone, and with it the cluster; for less, it is being rewritten. */
const goneMs = 10_000;

/** A runner and how to stop it. */
interface Local {
  readonly node: string;
  readonly reflector: Reflector<LocalPod>;
  readonly stop: () => void;
}

/**
 * The cluster as this node sees it, followed by watches. Facts change only when the cluster does; when the API server is
 * away the last truth stays, with its age and the reason.
 */
export class ClusterWatch {
  readonly link: KubeLink;
  readonly #options: ClusterOptions;
  readonly #source: KubeConfigSource;
  readonly #tally = new PodTally();
  readonly #podListeners = new Set<(key: string) => void>();
  readonly #certificateListeners = new Set<() => void>();
  readonly #nodeListeners = new Set<() => void>();
  readonly #nodes;
  readonly #pods;
  readonly #users;
  readonly #system;
  readonly #certificates;
  #local: Local | undefined;
  #report: ClusterReport;
  #telling = false;
  #told = false;
  #toldAt = Number.NEGATIVE_INFINITY;
  #changes = 0;
  #pauseMs = pace.leastMs;
  #missingSince: number | undefined;
  #signal: AbortSignal = AbortSignal.abort();

  constructor(options: ClusterOptions) {
    this.#options = options;
    const now = options.clock.now();
    this.#report = { cluster: unknown(source, now, 'not asked yet'), clusterLink: 'connecting' };
    const onChange = () => this.#stir();
    this.#source = new KubeConfigSource({
      ...options,
      paths: options.kubeconfigs,
      onChange: () => this.link.reload(),
    });
    this.link = new KubeLink({ ...options, load: this.#source.load, onChange });
    const { names } = options;
    this.#nodes = this.#reflect(nodesSpec(names), () => {
      for (const listener of this.#nodeListeners) listener();
      this.#stir();
    });
    this.#pods = this.#reflect(podsSpec(names), (key, after, before) => {
      this.#tally.change(key, after?.health, before?.health);
      if (before !== undefined && after?.uid !== before.uid) this.#podGone(key);
      this.#stir();
    });
    this.#users = this.#reflect(usersSpec(names), onChange);
    this.#system = this.#reflect(systemSpec(names), onChange);
    this.#certificates = this.#reflect(certificatesSpec(names), () => {
      for (const listener of this.#certificateListeners) listener();
      this.#stir();
    });
  }

  /** What was told last. */
  get report(): ClusterReport {
    return this.#report;
  }

  /** Pods of this node; empty while the node is not known. */
  get localPods(): ReadonlyMap<string, LocalPod> {
    return this.#local?.reflector.items ?? new Map();
  }

  /** UID of a pod (`namespace/name`) of any node that may call; undefined: there is none. */
  podUid(key: string): string | undefined {
    return this.#pods.items.get(key)?.uid;
  }

  /** Whether {@link podUid} can be asked: the pods have been read. */
  get podsKnown(): boolean {
    return this.#pods.synced;
  }

  /** ms since {@link localPods} was last known to be what the server says; 0 while it follows. */
  get localPodsAge(): number {
    return this.#local?.reflector.age ?? Number.POSITIVE_INFINITY;
  }

  get certificates(): Iterable<CertificateRecord> {
    return this.#certificates.items.values();
  }

  /** Every collection follows the server just now: none is being read again, none waits to be. */
  get following(): boolean {
    return [...this.#deciding(), this.#local?.reflector].every((each) => each?.age === 0);
  }

  /** Full lists made so far, all resources. */
  get lists(): number {
    return this.#deciding().reduce((sum, each) => sum + each.lists, this.#local?.reflector.lists ?? 0);
  }

  /** A pod (`namespace/name`) is no longer there. Returns how to stop listening. */
  onPodGone(listener: (key: string) => void): () => void {
    this.#podListeners.add(listener);
    return () => this.#podListeners.delete(listener);
  }

  /** The node object of this machine; undefined: none matches, or none is known. */
  get thisNode(): NodeRecord | undefined {
    return findThisNode([...this.#nodes.items.values()], this.#options.identity());
  }

  onNodes(listener: () => void): () => void {
    this.#nodeListeners.add(listener);
    return () => this.#nodeListeners.delete(listener);
  }

  onCertificates(listener: () => void): () => void {
    this.#certificateListeners.add(listener);
    return () => this.#certificateListeners.delete(listener);
  }

  /** One request to the API server; 503 `cluster_unavailable` when it is away. */
  request(request: KubeRequest): Promise<unknown> {
    return this.link.request(request);
  }

  /** Host name or addresses have changed: which node we are is looked up again. */
  identityChanged(): void {
    this.#stir();
  }

  /** Follows the cluster until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    this.#stir();
    await Promise.all([
      this.#source.run(signal),
      this.link.run(signal),
      ...[this.#nodes, this.#pods, this.#users, this.#system, this.#certificates].map((each) =>
        each.run(signal),
      ),
    ]);
    this.#local?.stop();
  }

  #reflect<T>(spec: ResourceSpec<T>, onChange: ChangeListener<T>): Reflector<T> {
    const { clock, random } = this.#options;
    return new Reflector({ clock, random, link: this.link, spec, onChange, onStatus: () => this.#stir() });
  }

  /** What the facts are made of. The pods of this node are not among it: they only prove callers. */
  #deciding(): Pick<Reflector<unknown>, 'age' | 'synced' | 'problem' | 'lists' | 'run'>[] {
    return [this.#nodes, this.#pods, this.#users, this.#system, this.#certificates];
  }

  #podGone(key: string): void {
    for (const listener of this.#podListeners) listener(key);
  }

  /** Something may be new: it is told soon, once for all that comes until then. */
  #stir(): void {
    this.#changes++;
    if (this.#telling || this.#signal.aborted) return;
    this.#telling = true;
    const { clock } = this.#options;
    const wait = Math.max(pace.firstMs, this.#toldAt + this.#pauseMs - clock.monotonic());
    clock.sleep(wait, this.#signal).then(
      () => this.#tell(),
      () => undefined,
    );
  }

  #tell(): void {
    this.#telling = false;
    this.#toldAt = this.#options.clock.monotonic();
    this.#pauseMs = Math.min(pace.mostMs, Math.max(pace.leastMs, this.#changes * pace.eachMs));
    this.#changes = 0;
    this.#followLocalPods();
    const report = this.#makeReport();
    if (this.#told && saysTheSame(report, this.#report)) return;
    this.#told = true;
    this.#report = report;
    this.#options.onReport(report);
  }

  /** The pods of this node are asked for by its name, as soon as that is known. */
  #followLocalPods(): void {
    const node = this.thisNode?.name;
    if (node === this.#local?.node || !this.#nodes.synced) return;
    this.#local?.stop();
    this.#local = undefined;
    if (node === undefined) return;
    const stop = new AbortController();
    const reflector = this.#reflect(localPodsSpec(node), (key, after) => {
      if (after === undefined || !after.running) this.#podGone(key);
    });
    this.#local = { node, reflector, stop: () => stop.abort() };
    void reflector.run(AbortSignal.any([this.#signal, stop.signal]));
  }

  #makeReport(): ClusterReport {
    const { clock } = this.#options;
    const [clusterLink, reason] = this.#state();
    const before = this.#report.cluster;
    if (clusterLink === 'connected') {
      return { clusterLink, cluster: known(this.#facts(), source, clock.now()) };
    }
    if (clusterLink === 'no-kubeconfig') {
      if (this.#isGone())
        return { clusterLink, cluster: unknown(source, this.#missingSince ?? clock.now(), reason) };
    } else {
      this.#missingSince = undefined;
    }
    // What the watches bring while another of them is broken is still the truth, and is told.
    const last = before.known
      ? { ...before, value: this.#facts(), at: this.#heardAt() ?? before.at }
      : before;
    return { clusterLink, cluster: failed(last, source, clock.now(), reason) };
  }

  #facts(): ClusterFacts {
    const { names, identity } = this.#options;
    return clusterFacts(
      {
        nodes: this.#nodes.items.values(),
        pods: this.#tally,
        users: this.#users.items.values(),
        system: this.#system.items.get(names.system.name),
        certificates: this.#certificates.items.values(),
        certificateNamespace: (user) => `${names.certificates.namespacePrefix}${user}`,
      },
      identity(),
    );
  }

  /** How it stands with the server, and why not better. */
  #state(): readonly [ClusterLink, string] {
    if (this.link.status !== 'connected') return [this.link.status, this.link.reason];
    const problem = this.#deciding().find((each) => each.problem !== undefined)?.problem;
    if (problem !== undefined) return ['unreachable', problem];
    return this.#deciding().every((each) => each.synced)
      ? ['connected', '']
      : ['connecting', 'reading the cluster'];
  }

  /** Wall-clock ms when the server was last heard. */
  #heardAt(): number | undefined {
    const { clock } = this.#options;
    const heard = this.link.heardAt;
    return heard === undefined ? undefined : Math.round(clock.now() - (clock.monotonic() - heard));
  }

  #isGone(): boolean {
    const { clock } = this.#options;
    if (!this.#report.cluster.known) return true;
    if (this.#missingSince === undefined) {
      this.#missingSince = clock.now();
      clock.sleep(goneMs, this.#signal).then(
        () => this.#stir(),
        () => undefined,
      );
    }
    return clock.now() - this.#missingSince >= goneMs;
  }
}

/** Age alone is no news. */
function saysTheSame(one: ClusterReport, other: ClusterReport): boolean {
  if (one.clusterLink !== other.clusterLink || one.cluster.known !== other.cluster.known) return false;
  if (!one.cluster.known || !other.cluster.known) {
    return !one.cluster.known && !other.cluster.known && one.cluster.reason === other.cluster.reason;
  }
  return (
    one.cluster.stale?.reason === other.cluster.stale?.reason &&
    isDeepStrictEqual(one.cluster.value, other.cluster.value)
  );
}
