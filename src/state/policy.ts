import type { CallerClass } from '#api/caller.ts';
import type { OperationName } from '#api/operations.ts';
import type { GateAction } from '#state/gate.ts';

/** Work that excludes other work of the same kind. */
export const lanes = ['cluster', 'power', 'network', 'storage', 'images', 'logs', 'disk'] as const;
export type Lane = (typeof lanes)[number];

export interface Rule {
  /** Exactly who is admitted; root and owner stand here by name too, so that the row says all. */
  readonly who: readonly CallerClass[];
  /** The gate that the node's state has to open; absent: allowed in every state. */
  readonly when?: GateAction;
  /** The lane of the job that the operation makes. */
  readonly lane?: Lane;
  /** Only a signature that is bound to the request will do (contract §4: what cannot be undone). */
  readonly boundForm?: true;
  /** A session token is not enough, although this only reads. */
  readonly noSession?: true;
  /**
   * Is done although the store can remember nothing of it: a full disk must not keep a machine from being restarted, nor that
   * from being called back, nor images from making room. So what the store says of it may be older than what was done, and the
   * next start begins nothing of it.
   */
  readonly withoutStore?: true;
}

const everyone = ['root', 'owner', 'signer', 'workload', 'peer', 'loopback', 'public'] as const;
const owners = ['root', 'owner'] as const;
const ownersOrFirst = ['root', 'owner', 'signer'] as const;
const workloads = ['root', 'owner', 'workload'] as const;

/**
 * Who may do what, and when: one row an operation, sorted by name. HTTP asks this table at the door, a job asks it
 * again when it takes its lane. A route without a row does not compile.
 */
export const policy = {
  'auth.session': { who: ['owner'] },
  'command.changeHost': { who: ownersOrFirst, when: 'changeHost', lane: 'network' },
  'command.install': { who: ownersOrFirst, when: 'install', lane: 'cluster' },
  'command.listNfs': { who: workloads, when: 'mountNetwork' },
  'command.mountNfs': { who: workloads, when: 'mountNetwork', lane: 'storage' },
  'command.mountSamba': { who: workloads, when: 'mountNetwork', lane: 'storage' },
  'command.mountSambaV2': { who: workloads, when: 'mountNetwork', lane: 'storage' },
  'command.reboot': { who: ownersOrFirst, when: 'reboot', lane: 'power', withoutStore: true },
  'command.shutdown': { who: ownersOrFirst, when: 'shutdown', lane: 'power', withoutStore: true },
  'command.umountNfs': { who: workloads, when: 'umountNetwork', lane: 'storage' },
  'command.umountNfsIncluster': { who: workloads, when: 'umountNetwork', lane: 'storage' },
  'command.umountSamba': { who: workloads, when: 'umountNetwork', lane: 'storage' },
  'command.umountSambaIncluster': { who: workloads, when: 'umountNetwork', lane: 'storage' },
  'command.umountUsb': { who: workloads, when: 'umountUsb', lane: 'storage' },
  'command.umountUsbIncluster': { who: workloads, when: 'umountUsb', lane: 'storage' },
  'command.uninstall': { who: owners, when: 'uninstall', lane: 'cluster' },
  'containerd.deleteImage': { who: workloads, when: 'changeImages', withoutStore: true },
  'containerd.deleteMirror': { who: workloads, when: 'changeImages' },
  'containerd.images': { who: workloads },
  'containerd.mirror': { who: workloads },
  'containerd.mirrors': { who: workloads },
  'containerd.prune': { who: workloads, when: 'changeImages', withoutStore: true },
  'containerd.registries': { who: workloads },
  'containerd.setMirror': { who: workloads, when: 'changeImages' },
  'events.stream': { who: everyone },
  'jobs.cancel': { who: ['root', 'owner', 'signer', 'workload'], withoutStore: true },
  'jobs.get': { who: workloads },
  'jobs.list': { who: workloads },
  'jobs.log': { who: owners },
  'owner.release': { who: ['root'] },
  'owner.transfer': { who: owners, boundForm: true },
  'storage.disks': { who: workloads },
  'storage.provision': { who: owners, when: 'provisionDisk', lane: 'disk', boundForm: true },
  'storage.setPolicy': { who: workloads },
  'system.audit': { who: owners, noSession: true },
  'system.checkJws': { who: workloads },
  'system.conditions': { who: everyone },
  'system.docs': { who: everyone },
  'system.hostsFile': { who: workloads },
  'system.interfaces': { who: everyone },
  'system.live': { who: everyone },
  'system.metrics': { who: ['root', 'owner', 'workload', 'loopback'] },
  'system.mountedHdd': { who: workloads },
  'system.mountedHddIncluster': { who: workloads },
  'system.mountedPath': { who: workloads },
  'system.mountedPathIncluster': { who: workloads },
  'system.mountedSmb': { who: workloads },
  'system.mountedSmbIncluster': { who: workloads },
  'system.mountedUsb': { who: workloads },
  'system.mountedUsbIncluster': { who: workloads },
  'system.openapi': { who: everyone },
  'system.ready': { who: everyone },
  'system.resolveName': { who: workloads },
  'system.setHostsFile': { who: workloads, when: 'editHosts' },
  'system.status': { who: everyone },
} as const satisfies Record<OperationName, Rule>;

/** The rule of an operation, widened so that code can ask for optional keys. */
export function ruleOf(operation: OperationName): Rule {
  return policy[operation];
}

/** The lane of an operation that starts a job. Throws for one that has none: its job would run beside any other. */
export function laneOf(operation: OperationName): Lane {
  const { lane } = ruleOf(operation);
  if (lane === undefined)
    throw new Error(`${operation} starts a job, and has no lane in src/state/policy.ts`);
  return lane;
}
