import { failed, unknown } from '#lib/observed.ts';
import {
  at,
  clustered,
  cni,
  docker,
  healthyNode,
  installed,
  job,
  link,
  machine,
  minute,
  network,
  route,
  running,
  seen,
  wired,
} from './machines.ts';
import type { RecordedMachine } from './recorded-machines.ts';

const young = seen({ ...machine, bootedAt: at - 2 * minute });
const starting = seen({ ...machine, bootedAt: at - 6 * minute });
const silent = unknown('cluster', at - 7 * minute, 'connect ECONNREFUSED 127.0.0.1:6443');
const sick = [{ namespace: 'os-framework', name: 'app-service-0', reason: 'CrashLoopBackOff' }];

/** Installed machines: what their cluster makes of them. */
export const clusterMachines: readonly RecordedMachine[] = [
  {
    name: 'a k3s node that runs',
    facts: clustered(
      {},
      {
        network: seen(
          network([link('eth0', 'ethernet', ['192.168.1.10/24']), ...cni, docker], route('eth0')),
        ),
      },
    ),
    state: 'terminus-running',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'it runs, but the machine started two minutes ago',
    facts: clustered({}, { machine: young }),
    state: 'restarting',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the owner has not begun',
    facts: clustered({ wizardStatus: undefined, ownerName: undefined, initializedAt: undefined }),
    state: 'uninitialized',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the owner is half-way',
    facts: clustered({ wizardStatus: 'wait_activate_system' }),
    state: 'initializing',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the activation failed',
    facts: clustered({ wizardStatus: 'system-activate-failed' }),
    state: 'initialize-failed',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'a key pod crashes again and again',
    facts: clustered({ sickPods: sick }),
    state: 'system-error',
    conditions: ['pod_unhealthy'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'pods still come up after a start',
    facts: clustered({ sickPods: sick }, { machine: starting }),
    state: 'restarting',
    conditions: ['pod_unhealthy'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the API does not answer, the machine has been up for days',
    facts: clustered({}, { cluster: silent, clusterLink: 'unreachable' }),
    state: 'system-error',
    conditions: ['cluster_unreachable'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the API does not answer yet, six minutes after the start',
    facts: clustered({}, { cluster: silent, clusterLink: 'unreachable', machine: starting }),
    state: 'restarting',
    conditions: ['cluster_unreachable'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the API went away two minutes ago: what it last said counts',
    facts: clustered(
      {},
      {
        cluster: failed(seen(running), 'cluster', at - 2 * minute, 'socket hang up'),
        clusterLink: 'unreachable',
      },
    ),
    state: 'terminus-running',
    conditions: ['cluster_unreachable'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the API has been away for half an hour',
    facts: clustered(
      {},
      {
        cluster: failed(seen(running), 'cluster', at - 30 * minute, 'socket hang up'),
        clusterLink: 'unreachable',
      },
    ),
    state: 'system-error',
    conditions: ['cluster_unreachable'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the router gave another address',
    facts: clustered(
      {},
      { network: seen(network([link('eth0', 'ethernet', ['192.168.1.88/24'])], route('eth0'))) },
    ),
    state: 'invalid-ip-address',
    conditions: ['address_changed', 'host_address_gone'],
    hostIp: '192.168.1.88',
  },
  {
    name: 'the network cannot be observed: the address has not changed',
    facts: clustered({}, { network: failed(seen(wired), 'links', at - minute, 'ip ended by timeout') }),
    state: 'terminus-running',
    conditions: ['facts_stale'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'a worker, whose cluster was built elsewhere',
    facts: clustered(
      { node: { ...healthyNode, name: 'worker-1', role: 'worker' }, nodeCount: 2 },
      { install: seen({ ...installed, clusterAddress: undefined }) },
    ),
    state: 'terminus-running',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the other node of the cluster is down',
    facts: clustered({ nodeCount: 2, otherNodesNotReady: ['worker-1'] }),
    state: 'terminus-running',
    conditions: ['node_not_ready'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the cluster says that the disk is short',
    facts: clustered({
      node: { ...healthyNode, pressures: [{ type: 'DiskPressure', message: 'kubelet has disk pressure' }] },
    }),
    state: 'terminus-running',
    conditions: ['disk_pressure'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'an upgrade is downloaded and wanted',
    facts: clustered(
      {},
      {
        install: seen({
          ...installed,
          upgradeTarget: { version: '1.12.1', downloaded: true, downloadOnly: false },
        }),
      },
    ),
    state: 'upgrading',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'an upgrade waits for a yes',
    facts: clustered(
      {},
      {
        install: seen({
          ...installed,
          upgradeTarget: { version: '1.12.1', downloaded: true, downloadOnly: true },
        }),
      },
    ),
    state: 'terminus-running',
    conditions: [],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the cluster is silent because our upgrade works on it',
    facts: clustered(
      {},
      {
        cluster: silent,
        clusterLink: 'unreachable',
        install: seen({
          ...installed,
          upgradeTarget: { version: '1.12.1', downloaded: true, downloadOnly: false },
        }),
      },
    ),
    jobs: [job('command.upgrade', 'running')],
    state: 'upgrading',
    conditions: ['cluster_unreachable'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the cluster does not know this machine',
    facts: clustered({ node: undefined }),
    state: 'system-error',
    conditions: ['node_not_in_cluster'],
    hostIp: '192.168.1.10',
  },
];
