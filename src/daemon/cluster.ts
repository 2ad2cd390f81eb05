import { CertificateRenewal } from '#cluster/kube/certificates.ts';
import { ClusterWatch } from '#cluster/kube/cluster-watch.ts';
import type { Identity } from '#cluster/kube/facts.ts';
import { type KubeNames, matchesAny } from '#cluster/kube/names.ts';
import { NodeLabels, type NodeMarks } from '#cluster/kube/node-labels.ts';
import { Workloads } from '#cluster/kube/workloads.ts';
import type { Config } from '#daemon/config.ts';
import { version } from '#daemon/identity.ts';
import type { Log } from '#daemon/log.ts';
import type { Profile } from '#daemon/profiles.ts';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { routeTo } from '#host/routes.ts';
import { causeChain } from '#lib/fault.ts';
import { plainAddress } from '#lib/net.ts';
import type { Facts } from '#state/facts.ts';
import type { Observatory } from '#state/observatory.ts';

export interface ClusterParts {
  readonly config: Config;
  readonly profile: Profile;
  readonly clock: Clock;
  readonly files: Files;
  readonly observatory: Observatory;
  readonly log: Log;
}

/** The cluster as the daemon uses it. */
export interface Cluster {
  readonly watch: ClusterWatch;
  readonly workloads: Workloads;
  /** Follows the cluster until aborted. */
  readonly start: (signal: AbortSignal) => void;
}

/** Ties the Kubernetes capability to the state: facts go in, identity and interfaces come from there. */
export function openCluster(parts: ClusterParts): Cluster {
  const { config, profile, clock, files, observatory, log } = parts;
  const names = namesOf(config, profile);
  const watch = new ClusterWatch({
    clock,
    random: Math.random,
    files,
    names,
    kubeconfigs: kubeconfigsOf(config, profile, files),
    identity: () => identityIn(observatory.current.facts),
    onReport: (report) => observatory.update(report),
  });
  const workloads = new Workloads({
    clock,
    source: watch,
    trustedNamespaces: names.trustedNamespaces,
    comesFromLan: (address) => comesFromLan(files, observatory.current.facts, address),
    addressProof: config.file.access?.podAddress !== 'off',
  });
  const labels = new NodeLabels({
    clock,
    prefix: names.nodeLabelPrefix,
    request: (request) => watch.request(request),
    seen: () => {
      const node = watch.report.clusterLink === 'connected' ? watch.thisNode : undefined;
      return node && { node: node.name, labels: node.labels, annotations: node.annotations };
    },
    wanted: () => marksIn(observatory.current.facts),
    onError: (message) => log.warn({}, message),
  });
  const renewal = new CertificateRenewal({
    clock,
    names: names.certificates,
    source: watch,
    onConditions: (certificates) =>
      observatory.update({ reported: { ...observatory.current.facts.reported, certificates } }),
  });
  watch.onNodes(() => labels.stir());
  observatory.onChange(({ facts }, { facts: before }) => {
    if (facts.network !== before.network || facts.machine !== before.machine) watch.identityChanged();
    const told = ['clusterLink', 'reported', 'mountsTried'] as const;
    if (told.some((key) => facts[key] !== before[key])) labels.stir();
  });
  return {
    watch,
    workloads,
    start: (signal) => {
      // In the sandbox the cluster is looked at, never written to.
      const writers = config.sandbox ? [] : [labels.run(signal), renewal.run(signal)];
      Promise.all([watch.run(signal), ...writers]).catch((error: unknown) =>
        log.error({ cause: causeChain(error) }, 'the cluster is not followed any more'),
      );
    },
  };
}

/** What the node object shall say: nothing of the mounts before all of them have been tried. */
export function marksIn({ reported, mountsTried }: Pick<Facts, 'reported' | 'mountsTried'>): NodeMarks {
  const problems = reported['storage'];
  if (problems === undefined || !mountsTried) {
    return { version, mountsReady: undefined, mounts: undefined };
  }
  const bad = problems.filter(({ code }) => code === 'mount_dead' || code === 'mount_failed');
  const mounts = bad.map(({ message }) => message).join(' ');
  return {
    version,
    mountsReady: bad.length === 0,
    mounts: mounts === '' ? undefined : mounts.slice(0, 1000),
  };
}

/** `namespace/name` of a pod of this node; undefined: the cluster has not told of it. */
export function podNameOf({ localPods }: Pick<ClusterWatch, 'localPods'>, uid: string): string | undefined {
  for (const pod of localPods.values()) if (pod.uid === uid) return `${pod.namespace}/${pod.name}`;
  return undefined;
}

/** The profile's names, with the configured namespaces in place of its trusted ones. */
function namesOf(config: Config, profile: Profile): KubeNames {
  const trustedNamespaces = config.file.access?.trustedNamespaces ?? profile.kube.trustedNamespaces;
  const foreignNamespaces = profile.kube.foreignNamespaces.filter(
    (each) => !matchesAny(each, trustedNamespaces),
  );
  return { ...profile.kube, trustedNamespaces, foreignNamespaces };
}

/** What is named explicitly goes before the profile's; the sandbox knows no other (contract §10). */
function kubeconfigsOf(config: Config, profile: Profile, files: Files): string[] {
  const explicit = (config.kubeconfig ?? '').split(':').filter((path) => path !== '');
  if (explicit.length > 0 || config.sandbox) return explicit;
  return profile.kube.kubeconfigs.map((path) => files.systemPath(path));
}

function identityIn({ machine, network }: Facts): Identity {
  const links = network.known ? network.value.links : [];
  return {
    hostName: machine.known ? machine.value.hostName : '',
    addresses: links.flatMap((link) =>
      link.kind === 'loopback' ? [] : link.addresses.map(({ address }) => plainAddress(address)),
    ),
  };
}

/**
 * A pod's packets come from its own interface, so the way back to its address leads to one. The default route, a LAN
 * interface, a tunnel or an interface that we do not know: not a pod.
 */
export function comesFromLan(files: Files, { network }: Facts, address: string): boolean {
  const route = routeTo(files, address);
  if (route === undefined || route.isDefault || !network.known) return true;
  return network.value.links.find((link) => link.name === route.device)?.kind !== 'container';
}
