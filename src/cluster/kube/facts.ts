import {
  type CertificateRecord,
  type NodeRecord,
  notKey,
  type PodHealth,
  type SystemRecord,
  type UserRecord,
} from '#cluster/kube/objects.ts';
import type { ClusterFacts, SickPod } from '#state/facts.ts';

/** Who we are, as far as the machine can tell. */
export interface Identity {
  readonly hostName: string;
  readonly addresses: readonly string[];
}

/** The copies of the cluster that the facts are made of. */
export interface ClusterView {
  readonly nodes: Iterable<NodeRecord>;
  readonly pods: PodTally;
  readonly users: Iterable<UserRecord>;
  readonly system: SystemRecord | undefined;
  readonly certificates: Iterable<CertificateRecord>;
  readonly certificateNamespace: (user: string) => string;
}

/** Nobody reads a list of a thousand pods; the count tells the rest. */
const mostSickPods = 100;

/** Key pods, counted as they change: a burst of events never costs a walk over all pods. */
export class PodTally {
  readonly #sick = new Map<string, PodHealth>();
  #key = 0;

  get keyPodCount(): number {
    return this.#key;
  }

  change(key: string, after: PodHealth | undefined, before: PodHealth | undefined): void {
    this.#key += Number(isKey(after)) - Number(isKey(before));
    if (after === undefined || after === '' || after === notKey) this.#sick.delete(key);
    else this.#sick.set(key, after);
  }

  /** The first hundred, by name. */
  sickPods(): SickPod[] {
    const keys = [...this.#sick.keys()].sort().slice(0, mostSickPods);
    return keys.map((key) => {
      const [namespace = '', name = ''] = key.split('/');
      return { namespace, name, reason: this.#sick.get(key) ?? '' };
    });
  }
}

function isKey(health: PodHealth | undefined): boolean {
  return health !== undefined && health !== notKey;
}

/**
 * Which node object is this machine. Host name or address is enough; both beat one, and the name beats the address (an
 * address moves, and may have been another node's).
 */
export function findThisNode(nodes: readonly NodeRecord[], identity: Identity): NodeRecord | undefined {
  const byName = nodes.filter((node) => isNamed(node, identity.hostName));
  const byAddress = nodes.filter((node) => node.addresses.some((each) => identity.addresses.includes(each)));
  return byName.find((node) => byAddress.includes(node)) ?? byName[0] ?? byAddress[0];
}

function isNamed(node: NodeRecord, hostName: string): boolean {
  const ours = hostName.toLowerCase();
  return ours !== '' && (node.name.toLowerCase() === ours || node.hostName.toLowerCase() === ours);
}

/** What the cluster says about this node. Pure. */
export function clusterFacts(view: ClusterView, identity: Identity): ClusterFacts {
  const nodes = [...view.nodes];
  const mine = findThisNode(nodes, identity);
  const owner = [...view.users].find((user) => user.owner);
  return {
    node: mine && {
      name: mine.name,
      role: mine.role,
      address: mine.addresses.find((each) => identity.addresses.includes(each)) ?? mine.addresses[0] ?? '',
      ready: mine.ready,
      pressures: mine.pressures,
    },
    nodeCount: nodes.length,
    otherNodesNotReady: nodes
      .filter((node) => node !== mine && !node.ready)
      .map((node) => node.name)
      .sort(),
    sickPods: view.pods.sickPods(),
    keyPodCount: view.pods.keyPodCount,
    wizardStatus: owner?.wizardStatus,
    ownerName: owner?.ownerName,
    version: view.system?.version,
    installedAt: view.system?.createdAt,
    initializedAt: initializedAt(view, owner),
  };
}

/** The owner's certificate is made once, in the activation, and only ever updated: no upgrade makes it younger. */
function initializedAt(view: ClusterView, owner: UserRecord | undefined): number | undefined {
  if (owner?.wizardStatus !== 'completed') return undefined;
  const namespace = view.certificateNamespace(owner.name);
  return [...view.certificates].find((each) => each.namespace === namespace)?.createdAt;
}
