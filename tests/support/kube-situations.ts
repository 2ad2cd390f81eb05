import type { NodeState } from '#api/states.ts';
import type { ClusterReport } from '#cluster/kube/cluster-watch.ts';
import type { Identity } from '#cluster/kube/facts.ts';
import { known } from '#lib/observed.ts';
import { deriveConditions } from '#state/conditions.ts';
import { deriveState } from '#state/derive.ts';
import type { ClusterFacts, Facts } from '#state/facts.ts';
import { initialFacts } from '#state/observatory.ts';
import { type KubeWorld, testNames as names } from './kube-world.ts';

const hour = 3_600_000;

/** A cluster in a certain condition: what is written into the API server, and what the node must say of it. */
export interface Situation {
  readonly name: string;
  /** Written before the clock runs. */
  readonly before?: (world: KubeWorld) => Promise<void>;
  /** The last change: from here the time is taken. */
  readonly change: (world: KubeWorld) => Promise<void>;
  readonly identity?: Identity;
  readonly state: NodeState;
  /** Codes of the conditions that come from the cluster, and no others. */
  readonly conditions?: readonly string[];
  /** What a condition must name. */
  readonly names?: RegExp;
  /** That the change has arrived. */
  readonly facts: (facts: ClusterFacts) => boolean;
}

const sick = (reason: string) => (facts: ClusterFacts) =>
  facts.sickPods.some((pod) => pod.name === 'suspect' && pod.reason === reason);
const healthy = (count: number) => (facts: ClusterFacts) =>
  facts.sickPods.length === 0 && facts.keyPodCount === count;

/** All runs: two key pods of a node whose owner is activated. */
export async function arrangeRunning(world: KubeWorld): Promise<void> {
  await world.node('node-1');
  await world.pod('os-framework', 'app-service', { ip: '10.42.0.10' });
  await world.pod('user-space-alice', 'bfl', { ip: '10.42.0.11' });
  await world.user(names, 'alice', { wizard: 'completed' });
  await world.system(names, '1.12.0');
}

const suspect = (options: Parameters<KubeWorld['pod']>[2]) => (world: KubeWorld) =>
  world.pod('os-framework', 'suspect', options);

/** Each starts from {@link arrangeRunning}. */
export const situations: readonly Situation[] = [
  {
    name: 'fresh install: nobody has begun',
    change: (world) => world.remove('/apis/iam.example.com/v1alpha2/users', 'alice'),
    state: 'uninitialized',
    facts: (facts) => facts.ownerName === undefined,
  },
  {
    name: 'an owner without a wizard status',
    change: (world) => world.user(names, 'alice'),
    state: 'uninitialized',
    facts: (facts) => facts.ownerName === 'alice@example.com' && facts.wizardStatus === undefined,
  },
  {
    name: 'owner in activation',
    change: (world) => world.user(names, 'alice', { wizard: 'wait_activate_system' }),
    state: 'initializing',
    facts: (facts) => facts.wizardStatus === 'wait_activate_system',
  },
  {
    name: 'activation failed',
    change: (world) => world.user(names, 'alice', { wizard: 'system_activate_failed' }),
    state: 'initialize-failed',
    facts: (facts) => facts.wizardStatus === 'system_activate_failed',
  },
  {
    name: 'activation of the network failed',
    change: (world) => world.user(names, 'alice', { wizard: 'network_activate_failed' }),
    state: 'initialize-failed',
    facts: (facts) => facts.wizardStatus === 'network_activate_failed',
  },
  {
    name: 'running',
    before: (world) => world.user(names, 'alice', { wizard: 'wait_reset_password' }),
    change: (world) => world.user(names, 'alice', { wizard: 'completed' }),
    state: 'terminus-running',
    facts: (facts) => facts.wizardStatus === 'completed',
  },
  {
    name: 'another user is not the owner',
    change: (world) => world.user(names, 'aaron', { owner: false, wizard: 'wait_activate_system' }),
    state: 'terminus-running',
    facts: (facts) => facts.ownerName === 'alice@example.com',
  },
  {
    name: 'the time of the activation is told',
    change: (world) => world.certificate(names, 'alice', '2099-01-01T00:00:00Z'),
    state: 'terminus-running',
    facts: (facts) => facts.initializedAt !== undefined,
  },
  {
    name: 'one key pod pending',
    change: suspect({ phase: 'Pending' }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    names: /os-framework\/suspect \(Pending\)/,
    facts: sick('Pending'),
  },
  {
    name: 'one key pod cannot be scheduled',
    change: suspect({ phase: 'Pending', scheduled: false }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    names: /suspect \(Unschedulable\)/,
    facts: sick('Unschedulable'),
  },
  {
    name: 'one key pod crash-looping',
    change: suspect({ waiting: 'CrashLoopBackOff' }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    names: /suspect \(CrashLoopBackOff\)/,
    facts: sick('CrashLoopBackOff'),
  },
  {
    name: 'an image cannot be pulled',
    change: suspect({ phase: 'Pending', waiting: 'ImagePullBackOff' }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    names: /ImagePullBackOff/,
    facts: sick('ImagePullBackOff'),
  },
  {
    name: 'one key pod runs but is not ready',
    change: suspect({ ready: false }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    names: /NotReady/,
    facts: sick('NotReady'),
  },
  {
    name: 'one key pod failed for good',
    change: suspect({ phase: 'Failed' }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    names: /suspect \(Failed\)/,
    facts: sick('Failed'),
  },
  {
    name: 'the state of a key pod is unknown',
    change: suspect({ phase: 'Unknown' }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    facts: sick('Unknown'),
  },
  {
    name: 'a sick pod recovers',
    before: suspect({ waiting: 'CrashLoopBackOff' }),
    change: suspect({}),
    state: 'terminus-running',
    facts: healthy(3),
  },
  {
    name: 'a sick pod is removed',
    before: suspect({ phase: 'Pending' }),
    change: (world) => world.removePod('os-framework', 'suspect'),
    state: 'terminus-running',
    facts: healthy(2),
  },
  {
    name: 'evicted leftovers',
    before: suspect({ phase: 'Pending' }),
    change: suspect({ phase: 'Failed', reason: 'Evicted' }),
    state: 'terminus-running',
    facts: healthy(2),
  },
  {
    name: 'the pod of a node that was shut down',
    before: suspect({ phase: 'Pending' }),
    change: suspect({ phase: 'Failed', reason: 'NodeShutdown' }),
    state: 'terminus-running',
    facts: healthy(2),
  },
  {
    name: 'a pod that has succeeded',
    before: suspect({ phase: 'Pending' }),
    change: suspect({ phase: 'Succeeded' }),
    state: 'terminus-running',
    facts: healthy(2),
  },
  {
    name: 'the failed pod of a job',
    change: (world) => world.pod('os-platform', 'job', { phase: 'Failed', owner: 'Job' }),
    state: 'terminus-running',
    facts: healthy(2),
  },
  {
    name: 'the starting pod of a cron job',
    change: (world) => world.pod('os-platform', 'job', { phase: 'Pending', owner: 'Job' }),
    state: 'terminus-running',
    facts: healthy(2),
  },
  {
    name: 'a pending pod of an app that is not key',
    change: (world) => world.pod('os-protected', 'app', { phase: 'Pending' }),
    state: 'terminus-running',
    facts: healthy(2),
  },
  {
    name: 'node not ready',
    change: (world) => world.node('node-1', { ready: false }),
    state: 'terminus-running',
    conditions: ['node_not_ready'],
    names: /node-1/,
    facts: (facts) => facts.node?.ready === false,
  },
  {
    name: 'node ready again',
    before: (world) => world.node('node-1', { ready: false }),
    change: (world) => world.node('node-1'),
    state: 'terminus-running',
    facts: (facts) => facts.node?.ready === true,
  },
  {
    name: 'disk pressure',
    change: (world) => world.node('node-1', { pressures: ['DiskPressure'] }),
    state: 'terminus-running',
    conditions: ['disk_pressure'],
    names: /kubelet has DiskPressure/,
    facts: (facts) => facts.node?.pressures.length === 1,
  },
  {
    name: 'pressure on memory and processes',
    change: (world) => world.node('node-1', { pressures: ['MemoryPressure', 'PIDPressure'] }),
    state: 'terminus-running',
    conditions: ['memory_pressure', 'pid_pressure'],
    facts: (facts) => facts.node?.pressures.length === 2,
  },
  {
    name: 'a worker node',
    before: async (world) => {
      await world.node('master', { address: '192.168.1.9' });
      await world.remove('/api/v1/nodes', 'node-1');
    },
    change: (world) => world.node('node-1', { master: false }),
    state: 'terminus-running',
    facts: (facts) => facts.node?.role === 'worker' && facts.nodeCount === 2,
  },
  {
    name: 'two nodes',
    change: (world) => world.node('node-2', { address: '192.168.1.11', master: false }),
    state: 'terminus-running',
    facts: (facts) => facts.nodeCount === 2 && facts.otherNodesNotReady.length === 0,
  },
  {
    name: 'two nodes, the other not ready',
    change: (world) => world.node('node-2', { address: '192.168.1.11', master: false, ready: false }),
    state: 'terminus-running',
    conditions: ['node_not_ready'],
    names: /node-2/,
    facts: (facts) => facts.otherNodesNotReady[0] === 'node-2',
  },
  {
    name: 'upgrade recorded',
    change: (world) => world.system(names, '1.12.1'),
    state: 'terminus-running',
    facts: (facts) => facts.version === '1.12.1' && facts.installedAt !== undefined,
  },
  {
    name: 'address changed: the node has another than the machine',
    change: (world) => world.node('node-1', { address: '192.168.1.77' }),
    state: 'invalid-ip-address',
    conditions: ['address_changed'],
    names: /192\.168\.1\.77/,
    facts: (facts) => facts.node?.address === '192.168.1.77',
  },
  {
    name: 'the machine has another name than the node: its address is enough',
    identity: { hostName: 'renamed', addresses: ['192.168.1.10'] },
    change: (world) => world.system(names, '1.12.2'),
    state: 'terminus-running',
    facts: (facts) => facts.node?.name === 'node-1' && facts.version === '1.12.2',
  },
  {
    name: 'the name on one node and the address on another: the name counts',
    before: (world) => world.node('node-1', { address: '192.168.1.77' }),
    change: (world) => world.node('other', { address: '192.168.1.10', master: false }),
    state: 'invalid-ip-address',
    conditions: ['address_changed'],
    facts: (facts) => facts.node?.name === 'node-1' && facts.nodeCount === 2,
  },
  {
    name: 'no node object is this machine',
    identity: { hostName: 'stranger', addresses: ['192.168.1.99'] },
    change: (world) => world.system(names, '1.12.3'),
    state: 'system-error',
    conditions: ['node_not_in_cluster'],
    facts: (facts) => facts.node === undefined && facts.version === '1.12.3',
  },
];

/** The facts around the cluster: an installed node with one address, up for an hour. */
export function factsWith(report: ClusterReport, now: number): Facts {
  const at = now;
  const address = { address: '192.168.1.10', prefix: 24, family: 4, scope: 'global', dynamic: true } as const;
  const base = {
    name: 'eth0',
    kind: 'ethernet',
    up: true,
    carrier: true,
    mtu: 1500,
    mac: '',
    master: undefined,
  } as const;
  const machine = {
    hostName: 'node-1',
    deviceName: 'test',
    osType: 'linux',
    osArch: 'amd64',
    osInfo: 'test',
    osVersion: '1',
    kernel: '6',
    cpu: 'cpu',
    gpu: undefined,
    memoryBytes: 2 ** 30,
    diskBytes: 2 ** 34,
    bootId: 'boot',
    bootedAt: now - hour,
  };
  return {
    ...initialFacts(now),
    machine: known(machine, 'test', at),
    network: known(
      {
        links: [{ ...base, addresses: [address] }],
        defaultRoutes: [{ family: 4, gateway: '192.168.1.1', device: 'eth0', metric: 1 }],
      },
      'test',
      at,
    ),
    hosts: known({ ownAddresses: ['192.168.1.10'] }, 'test', at),
    hostIp: known('192.168.1.10', 'test', at),
    shutdown: known(undefined, 'test', at),
    install: known(
      {
        installed: { version: '1.12.0', at: now - hour },
        prepared: true,
        installing: undefined,
        uninstalling: undefined,
        changingIp: undefined,
        ipChangeFailed: false,
        upgradeTarget: undefined,
        engineRunning: true,
        clusterAddress: undefined,
      },
      'test',
      at,
    ),
    clock: known({ synchronised: true }, 'test', at),
    ...report,
  };
}

/** What the node says with this report of its cluster. */
export function verdictOn(report: ClusterReport): {
  readonly state: NodeState;
  readonly codes: readonly string[];
  readonly text: string;
} {
  const now = Date.now();
  const facts = factsWith(report, now);
  const conditions = deriveConditions(facts, [], now);
  return {
    state: deriveState(facts, [], now).state,
    codes: conditions.map(({ code }) => code),
    text: conditions.map(({ message, remedy }) => `${message} ${remedy}`).join('\n'),
  };
}
