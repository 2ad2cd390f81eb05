import { known, type Observed, unknown } from '#lib/observed.ts';
import type {
  ClusterFacts,
  DefaultRoute,
  Facts,
  InstallFacts,
  JobFacts,
  Link,
  LinkAddress,
  LinkKind,
  MachineFacts,
  NetworkFacts,
} from '#state/facts.ts';
import { initialFacts } from '#state/observatory.ts';

/** The moment at which all recorded machines are looked at. */
export const at = Date.parse('2026-11-23T06:00:00Z');
export const minute = 60_000;
export const day = 24 * 60 * minute;

export function seen<T>(value: T): Observed<T> {
  return known(value, 'recorded', at);
}

/** `10.0.0.2/24`, `fd00::2/64`. */
export function address(text: string, dynamic = true): LinkAddress {
  const [ip = '', prefix = '0'] = text.split('/');
  const family = ip.includes(':') ? 6 : 4;
  const isLink = ip.startsWith('fe80:') || ip.startsWith('169.254.');
  const isHost = ip.startsWith('127.') || ip === '::1';
  return {
    address: ip,
    prefix: Number(prefix),
    family,
    scope: isHost ? 'host' : isLink ? 'link' : 'global',
    dynamic,
  };
}

export function link(name: string, kind: LinkKind, addresses: string[] = [], more: Partial<Link> = {}): Link {
  return {
    name,
    kind,
    up: true,
    carrier: true,
    mtu: 1500,
    mac: '02:00:00:00:00:01',
    master: undefined,
    addresses: addresses.map((text) => address(text)),
    ...more,
  };
}

export const loopback = link('lo', 'loopback', ['127.0.0.1/8', '::1/128']);
export const docker = link('docker0', 'container', ['172.17.0.1/16'], { carrier: false });
export const cni = [
  link('cni0', 'container', ['10.42.0.1/24']),
  link('flannel.1', 'container', ['10.42.0.0/32']),
];

export function route(device: string, gateway = '192.168.1.1', metric = 100): DefaultRoute {
  return { family: gateway.includes(':') ? 6 : 4, gateway, device, metric };
}

export function network(links: readonly Link[], ...defaultRoutes: DefaultRoute[]): NetworkFacts {
  return { links: [loopback, ...links], defaultRoutes };
}

/** One cable, one address, one way out. */
export const wired = network([link('eth0', 'ethernet', ['192.168.1.10/24', 'fe80::1/64'])], route('eth0'));

export const machine: MachineFacts = {
  hostName: 'beos',
  deviceName: 'Selfhosted',
  osType: 'linux',
  osArch: 'amd64',
  osInfo: 'Debian GNU/Linux 12 (bookworm)',
  osVersion: '12',
  kernel: '6.1.0-28-amd64',
  cpu: 'Intel(R) N100',
  gpu: undefined,
  memoryBytes: 16 * 2 ** 30,
  diskBytes: 500e9,
  bootId: 'b0-1',
  bootedAt: at - 3 * day,
};

export const nothingInstalled: InstallFacts = {
  installed: undefined,
  prepared: false,
  installing: undefined,
  uninstalling: undefined,
  changingIp: undefined,
  ipChangeFailed: false,
  upgradeTarget: undefined,
  engineRunning: false,
  clusterAddress: undefined,
};

export const installed: InstallFacts = {
  ...nothingInstalled,
  installed: { version: '1.12.0', at: at - 2 * day },
  prepared: true,
  clusterAddress: '192.168.1.10',
};

export const healthyNode = {
  name: 'beos',
  role: 'master',
  address: '192.168.1.10',
  ready: true,
  pressures: [],
} as const;

export const running: ClusterFacts = {
  node: healthyNode,
  nodeCount: 1,
  otherNodesNotReady: [],
  sickPods: [],
  keyPodCount: 42,
  wizardStatus: 'completed',
  ownerName: 'alice@example.com',
  version: '1.12.0',
  installedAt: at - 2 * day,
  initializedAt: at - 2 * day + 10 * minute,
};

/** A machine that all sources have looked at: wired, bound, nothing installed. */
export function facts(more: Partial<Facts> = {}): Facts {
  return {
    ...initialFacts(at - day),
    machine: seen(machine),
    network: seen(wired),
    hosts: seen({ ownAddresses: ['192.168.1.10'] }),
    shutdown: seen(undefined),
    install: seen(nothingInstalled),
    release: seen({ name: undefined, version: undefined, baseDir: undefined }),
    clock: seen({ synchronised: true }),
    dataDir: seen({ path: '/var/lib/beosd', freeBytes: 1e11, totalBytes: 5e11, readOnly: false }),
    wifi: unknown('network-manager', at - day, 'not observed yet'),
    ...more,
  };
}

/** An installed machine whose cluster answers. */
export function clustered(cluster: Partial<ClusterFacts> = {}, more: Partial<Facts> = {}): Facts {
  return facts({
    install: seen(installed),
    cluster: seen({ ...running, ...cluster }),
    clusterLink: 'connected',
    ...more,
  });
}

export function job(operation: string, state: JobFacts['state'], more: Partial<JobFacts> = {}): JobFacts {
  const isOpen = state === 'queued' || state === 'running';
  return {
    operation,
    state,
    phase: state === 'queued' ? null : 'run',
    percent: isOpen ? 40 : 100,
    error: state === 'failed' ? 'the installer ended with 1' : undefined,
    createdAt: at - 20 * minute,
    finishedAt: isOpen ? undefined : at - 10 * minute,
    ...more,
  };
}
