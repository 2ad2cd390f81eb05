import type { NodeState } from '#api/states.ts';
import type { Observed } from '#lib/observed.ts';

/** What the machine is; read once at start, again when the kernel says that it changed. */
export interface MachineFacts {
  readonly hostName: string;
  /** Name that the maker or the installer gave the box (/etc/machine.info, DMI product), for the phone app. */
  readonly deviceName: string;
  readonly osType: string;
  readonly osArch: string;
  readonly osInfo: string;
  readonly osVersion: string;
  readonly kernel: string;
  readonly cpu: string;
  readonly gpu: string | undefined;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** Identity of this boot (host/boot.ts): changes with every start of the machine, in a container too. */
  readonly bootId: string;
  /** When this boot began, ms since the epoch. */
  readonly bootedAt: number;
}

export type LinkKind =
  | 'ethernet'
  | 'wifi'
  | 'bridge'
  | 'bond'
  | 'vlan'
  | 'container'
  | 'tunnel'
  | 'loopback'
  | 'other';

export interface LinkAddress {
  readonly address: string;
  readonly prefix: number;
  readonly family: 4 | 6;
  readonly scope: 'global' | 'link' | 'host';
  /** DHCP or another lease (the kernel's `dynamic` flag). */
  readonly dynamic: boolean;
}

export interface Link {
  readonly name: string;
  readonly kind: LinkKind;
  readonly up: boolean;
  readonly carrier: boolean;
  readonly mtu: number;
  readonly mac: string;
  /** The bridge, bond or VRF that it belongs to. */
  readonly master: string | undefined;
  readonly addresses: readonly LinkAddress[];
}

export interface DefaultRoute {
  readonly family: 4 | 6;
  readonly gateway: string | undefined;
  readonly device: string;
  readonly metric: number;
}

export interface NetworkFacts {
  readonly links: readonly Link[];
  readonly defaultRoutes: readonly DefaultRoute[];
}

/** The hosts file and what it binds our own name to. */
export interface HostsFacts {
  /** IPv4 addresses that the file gives to this host's name, in file order. */
  readonly ownAddresses: readonly string[];
}

export interface WifiFacts {
  readonly connected: boolean;
  readonly ssid: string | undefined;
}

/** A shutdown that systemd has been told of (/run/systemd/shutdown/scheduled), or that logind is carrying out. */
export interface PendingShutdown {
  readonly mode: 'reboot' | 'poweroff' | 'other';
  /** ms since the epoch. */
  readonly at: number;
}

/** A process of the ancestor's contract: its pid file says that it runs, /proc says whether that is true. */
export interface InstallerProcess {
  readonly pid: number;
  readonly alive: boolean;
}

export interface UpgradeTarget {
  readonly version: string;
  readonly downloadOnly: boolean;
  readonly downloaded: boolean;
}

/** The files by which installer and daemon tell each other where the node is (ancestor contract §4.3). */
export interface InstallFacts {
  /** Content of `.installed`. */
  readonly installed: { readonly version: string; readonly at: number } | undefined;
  readonly prepared: boolean;
  readonly installing: InstallerProcess | undefined;
  readonly uninstalling: InstallerProcess | undefined;
  readonly changingIp: InstallerProcess | undefined;
  readonly ipChangeFailed: boolean;
  readonly upgradeTarget: UpgradeTarget | undefined;
  /** An engine (k3s server) runs although nothing is installed. */
  readonly engineRunning: boolean;
  /** Address that the installed cluster was built for (etcd's environment), if it can be told without the API. */
  readonly clusterAddress: string | undefined;
}

export interface ReleaseFacts {
  readonly name: string | undefined;
  readonly version: string | undefined;
  readonly baseDir: string | undefined;
}

/** A key pod that is not as it should be. */
export interface SickPod {
  readonly namespace: string;
  readonly name: string;
  readonly reason: string;
}

/** What the cluster says about this node. Unknown until the API has answered once. */
export interface ClusterFacts {
  /** This node as the cluster knows it; undefined: no node object matches by host name or address. */
  readonly node:
    | {
        readonly name: string;
        readonly role: 'master' | 'worker';
        readonly address: string;
        readonly ready: boolean;
        readonly pressures: readonly { readonly type: string; readonly message: string }[];
      }
    | undefined;
  readonly nodeCount: number;
  readonly otherNodesNotReady: readonly string[];
  /** Key pods that are not running; empty: all is well. */
  readonly sickPods: readonly SickPod[];
  readonly keyPodCount: number;
  /** The owner's activation (`wizard-status`); undefined: nobody has begun. */
  readonly wizardStatus: string | undefined;
  readonly ownerName: string | undefined;
  readonly version: string | undefined;
  /** ms since the epoch. */
  readonly installedAt: number | undefined;
  readonly initializedAt: number | undefined;
}

/** Why the cluster is silent, when it is. */
export type ClusterLink = 'connected' | 'no-kubeconfig' | 'connecting' | 'unreachable';

export interface ClockFacts {
  readonly synchronised: boolean;
}

export interface PathUsage {
  readonly path: string;
  readonly freeBytes: number;
  readonly totalBytes: number;
  readonly readOnly: boolean;
}

/** Everything that the state is derived from: one immutable value, replaced as a whole. */
export interface Facts {
  readonly machine: Observed<MachineFacts>;
  readonly network: Observed<NetworkFacts>;
  readonly hosts: Observed<HostsFacts>;
  readonly hostIp: Observed<string>;
  readonly wifi: Observed<WifiFacts>;
  readonly externalIp: Observed<string>;
  readonly shutdown: Observed<PendingShutdown | undefined>;
  readonly install: Observed<InstallFacts>;
  readonly release: Observed<ReleaseFacts>;
  readonly cluster: Observed<ClusterFacts>;
  readonly clusterLink: ClusterLink;
  readonly clock: Observed<ClockFacts>;
  readonly dataDir: Observed<PathUsage>;
  readonly store: {
    readonly durable: boolean;
    readonly reason: string | undefined;
    readonly historyLostAt: number | undefined;
    /** Where a damaged store was set aside. */
    readonly setAside?: string | undefined;
  };
  readonly bus: { readonly available: boolean; readonly reason: string | undefined };
  /** Problems that capabilities report themselves (mounts, images …), keyed by who reports. */
  readonly reported: Readonly<Record<string, readonly ReportedCondition[]>>;
  /** Every disk and share that was wanted at start has been tried. */
  readonly mountsTried: boolean;
}

export interface ReportedCondition {
  readonly code: string;
  readonly severity: 'info' | 'warning' | 'error';
  readonly message: string;
  readonly remedy: string;
  readonly fixedBy: readonly string[];
}

/** What the derivation needs to know of jobs: the newest of each operation that has run or runs. */
export interface JobFacts {
  readonly operation: string;
  readonly state: 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled' | 'interrupted';
  readonly phase: string | null;
  readonly percent: number | null;
  readonly error: string | undefined;
  readonly createdAt: number;
  readonly finishedAt: number | undefined;
  /** Identity of the start of the machine in which it acted, as {@link MachineFacts.bootId}; absent: it kept none. */
  readonly boot?: string;
  /** Its place in the journal: tells which of two jobs is newer, whatever the clock said then. Absent: the clock does. */
  readonly order?: number;
}

/** What a person would say about the node, and why. */
export interface Derived {
  readonly state: NodeState;
  /** The fact that decided, in words, for the log and for `beosctl status`. */
  readonly because: string;
}
