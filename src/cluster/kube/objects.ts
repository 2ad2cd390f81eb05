import { type KubeNames, matchesAny } from '#cluster/kube/names.ts';
import { asObject, listOf, type RawObject, textOf } from '#cluster/kube/raw.ts';
import type { ResourceSpec } from '#cluster/kube/reflector.ts';
import { plainAddress } from '#lib/net.ts';

/** What is kept of each kind of object: the fields that are used, nothing else (10,000 pods are 10,000 short strings). */

export interface NodeRecord {
  readonly name: string;
  readonly hostName: string;
  readonly role: 'master' | 'worker';
  readonly addresses: readonly string[];
  readonly ready: boolean;
  readonly pressures: readonly { readonly type: string; readonly message: string }[];
  /** Only those of ours. */
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** A pod of this node, as a possible caller. */
export interface LocalPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  readonly addresses: readonly string[];
  readonly hostNetwork: boolean;
  readonly running: boolean;
  readonly terminating: boolean;
  /** References of the images that it needs. */
  readonly images: readonly string[];
}

/**
 * A pod of the cluster in one short string: '' a key pod that is well, `-` a pod that may call but is not key (or that
 * is over), anything else what ails a key pod.
 */
export type PodHealth = string;
export const notKey: PodHealth = '-';

/** A pod of the cluster that is key or may call. */
export interface PodRecord {
  readonly uid: string;
  readonly health: PodHealth;
}

export interface UserRecord {
  readonly name: string;
  readonly owner: boolean;
  readonly ownerName: string | undefined;
  readonly wizardStatus: string | undefined;
}

export interface SystemRecord {
  readonly version: string | undefined;
  readonly createdAt: number | undefined;
}

export interface CertificateRecord {
  readonly namespace: string;
  /** ms since the epoch; undefined: the config map does not say, or not as a time. */
  readonly expiresAt: number | undefined;
  readonly createdAt: number | undefined;
  readonly resourceVersion: string;
}

export function nodesSpec({ nodeLabelPrefix }: KubeNames): ResourceSpec<NodeRecord> {
  return { name: 'nodes', path: '/api/v1/nodes', keep: (node) => nodeRecord(node, `${nodeLabelPrefix}/`) };
}

/** All pods that are key or may call, on any node; those that have succeeded are not even sent. */
export function podsSpec(names: KubeNames): ResourceSpec<PodRecord> {
  const selectors = [
    'status.phase!=Succeeded',
    ...names.foreignNamespaces.map((each) => `metadata.namespace!=${each}`),
  ];
  return {
    name: 'pods',
    path: '/api/v1/pods',
    fieldSelector: selectors.join(','),
    keep: (pod) => {
      const health = podHealth(pod, names);
      return health === undefined ? undefined : { uid: textOf(asObject(pod['metadata'])?.['uid']), health };
    },
  };
}

export function localPodsSpec(node: string): ResourceSpec<LocalPod> {
  return {
    name: 'pods of this node',
    path: '/api/v1/pods',
    fieldSelector: `spec.nodeName=${node}`,
    keep: localPod,
  };
}

export function usersSpec({ users }: KubeNames): ResourceSpec<UserRecord> {
  return {
    name: users.plural,
    path: `/apis/${users.group}/${users.version}/${users.plural}`,
    crd: `${users.plural}.${users.group}`,
    keep: (user) => userRecord(user, users),
  };
}

export function systemSpec({ system }: KubeNames): ResourceSpec<SystemRecord> {
  return {
    name: system.plural,
    path: `/apis/${system.group}/${system.version}/${system.plural}`,
    crd: `${system.plural}.${system.group}`,
    fieldSelector: `metadata.name=${system.name}`,
    keep: systemRecord,
  };
}

export function certificatesSpec({ certificates }: KubeNames): ResourceSpec<CertificateRecord> {
  return {
    name: 'certificate config maps',
    path: '/api/v1/configmaps',
    fieldSelector: `metadata.name=${certificates.configMap}`,
    keep: (map) => certificateRecord(map, certificates),
  };
}

function nodeRecord(node: RawObject, prefix: string): NodeRecord {
  const { name, labels, annotations } = metadataOf(node);
  const status = asObject(node['status']);
  const addresses = listOf(status?.['addresses']);
  const conditions = listOf(status?.['conditions']);
  const on = (type: string) => conditions.some((each) => each['type'] === type && each['status'] === 'True');
  return {
    name,
    hostName:
      addresses.map((each) => (each['type'] === 'Hostname' ? textOf(each['address']) : '')).find(Boolean) ??
      name,
    role: isMaster(labels) ? 'master' : 'worker',
    addresses: addresses
      .filter((each) => each['type'] === 'InternalIP' || each['type'] === 'ExternalIP')
      .map((each) => plainAddress(textOf(each['address']))),
    ready: on('Ready'),
    pressures: conditions
      .filter((each) => textOf(each['type']).endsWith('Pressure') && each['status'] === 'True')
      .map((each) => ({ type: textOf(each['type']), message: textOf(each['message']) })),
    labels: withPrefix(labels, prefix),
    annotations: withPrefix(annotations, prefix),
  };
}

function withPrefix(all: RawObject, prefix: string): Record<string, string> {
  const ours = Object.entries(all).filter(([key]) => key.startsWith(prefix));
  return Object.fromEntries(ours.map(([key, value]) => [key, textOf(value)]));
}

function isMaster(labels: RawObject): boolean {
  return ['node-role.kubernetes.io/control-plane', 'node-role.kubernetes.io/master'].some(
    (label) => labels[label] !== undefined && labels[label] !== 'false',
  );
}

/**
 * What ails a pod. Pods of jobs come and go and say nothing about the system; a pod that was evicted or whose node went
 * away is a leftover that its controller has replaced; one that is being deleted is on its way out.
 */
function podHealth(pod: RawObject, names: KubeNames): PodHealth | undefined {
  const { namespace, owners, deleted } = metadataOf(pod);
  const key = matchesAny(namespace, names.keyNamespaces);
  if (!key && !matchesAny(namespace, names.trustedNamespaces)) return undefined;
  if (!key || deleted || owners.includes('Job')) return notKey;
  const status = asObject(pod['status']) ?? {};
  switch (status['phase']) {
    case 'Running':
      return waitingReason(status) ?? (hasCondition(status, 'Ready', 'False') ? 'NotReady' : '');
    case 'Succeeded':
      return notKey;
    case 'Failed':
      return isLeftover(status) ? notKey : textOf(status['reason']) || 'Failed';
    case 'Pending':
      return (
        waitingReason(status) ?? (hasCondition(status, 'PodScheduled', 'False') ? 'Unschedulable' : 'Pending')
      );
    default:
      return textOf(status['phase']) || 'Pending';
  }
}

/** Reasons with which a kubelet or the node controller ends a pod that its controller then replaces. */
const leftoverReasons = new Set([
  'Evicted',
  'NodeLost',
  'NodeShutdown',
  'NodeAffinity',
  'Shutdown',
  'Terminated',
  'Preempting',
  'Preempted',
  'UnexpectedAdmissionError',
  'OutOfcpu',
  'OutOfmemory',
  'OutOfpods',
  'OutOfephemeral-storage',
]);

function isLeftover(status: RawObject): boolean {
  return leftoverReasons.has(textOf(status['reason'])) || hasCondition(status, 'DisruptionTarget', 'True');
}

function hasCondition(status: RawObject, type: string, value: string): boolean {
  return listOf(status['conditions']).some((each) => each['type'] === type && each['status'] === value);
}

/** The first reason for which a container waits, other than that it is being made. */
function waitingReason(status: RawObject): string | undefined {
  const containers = [...listOf(status['initContainerStatuses']), ...listOf(status['containerStatuses'])];
  for (const each of containers) {
    const reason = textOf(asObject(asObject(each['state'])?.['waiting'])?.['reason']);
    if (reason !== '' && reason !== 'ContainerCreating' && reason !== 'PodInitializing') return reason;
  }
  return undefined;
}

function localPod(pod: RawObject): LocalPod {
  const { name, namespace, uid, deleted } = metadataOf(pod);
  const spec = asObject(pod['spec']) ?? {};
  const status = asObject(pod['status']) ?? {};
  const addresses = new Set(
    [status['podIP'], ...listOf(status['podIPs']).map((each) => each['ip'])].map(textOf),
  );
  addresses.delete('');
  // One that is over keeps its address in the API, while the network has given it to another.
  if (status['phase'] === 'Succeeded' || status['phase'] === 'Failed') addresses.clear();
  const containers = ['initContainers', 'containers', 'ephemeralContainers'].flatMap((key) =>
    listOf(spec[key]),
  );
  const volumes = listOf(spec['volumes']).map((each) => asObject(each['image'])?.['reference']);
  const images = [...containers.map((each) => each['image']), ...volumes].map(textOf);
  return {
    uid,
    namespace,
    name,
    serviceAccount: textOf(spec['serviceAccountName']) || 'default',
    addresses: [...addresses].map(plainAddress),
    hostNetwork: spec['hostNetwork'] === true,
    running: status['phase'] === 'Running',
    terminating: deleted,
    images: [...new Set(images.filter(Boolean))],
  };
}

function userRecord(user: RawObject, names: KubeNames['users']): UserRecord {
  const { name, annotations } = metadataOf(user);
  return {
    name,
    owner: annotations[names.ownerRoleAnnotation] === 'owner',
    ownerName: textOf(annotations[names.nameAnnotation]) || undefined,
    wizardStatus: textOf(annotations[names.wizardStatusAnnotation]) || undefined,
  };
}

function systemRecord(object: RawObject): SystemRecord {
  return {
    version: textOf(asObject(object['spec'])?.['version']) || undefined,
    createdAt: metadataOf(object).createdAt,
  };
}

function certificateRecord(map: RawObject, names: KubeNames['certificates']): CertificateRecord | undefined {
  const { namespace, createdAt, resourceVersion } = metadataOf(map);
  if (!namespace.startsWith(names.namespacePrefix)) return undefined;
  const expiresAt = timeOf(asObject(map['data'])?.[names.expiryKey]);
  return { namespace, expiresAt, createdAt, resourceVersion };
}

function metadataOf(object: RawObject) {
  const metadata = asObject(object['metadata']) ?? {};
  return {
    name: textOf(metadata['name']),
    namespace: textOf(metadata['namespace']),
    uid: textOf(metadata['uid']),
    resourceVersion: textOf(metadata['resourceVersion']),
    labels: asObject(metadata['labels']) ?? {},
    annotations: asObject(metadata['annotations']) ?? {},
    owners: listOf(metadata['ownerReferences']).map((each) => textOf(each['kind'])),
    deleted: metadata['deletionTimestamp'] !== undefined,
    createdAt: timeOf(metadata['creationTimestamp']),
  };
}

function timeOf(value: unknown): number | undefined {
  const ms = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}
