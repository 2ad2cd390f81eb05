import type { InstallerCommand, InstallerProfile, LogMark } from '#cluster/installer-profile.ts';
import type { KubeNames } from '#cluster/kube/names.ts';

export const profileNames = ['beos', 'olares'] as const;
export type ProfileName = (typeof profileNames)[number];

/** Names of the files below the base directory by which installer and daemon tell each other where the node is. */
export interface BaseDirFiles {
  readonly installed: string;
  readonly prepared: string;
  readonly upgradeTarget: string;
  readonly previousAddress: string;
  readonly addressChangeFailed: string;
  readonly masterConfig: string;
}

/**
 * Every name of a platform as data, so that the same code drives a beOS node and one that the ancestor installed.
 * A path here is a built-in path (prefixed by `--root`); what the configuration or the environment names goes before.
 */
export interface Profile {
  readonly name: ProfileName;
  /** The platform in messages to people. */
  readonly product: string;
  readonly installer: InstallerProfile;
  /** Default of `BASE_DIR`. */
  readonly baseDir: string;
  readonly files: BaseDirFiles;
  /** A dotenv file that the installer writes, and its keys. */
  readonly release: {
    readonly path: string;
    readonly nameKey: string;
    readonly versionKey: string;
    readonly baseDirKey: string;
  };
  /** Where the maker or the installer puts the name of the box. */
  readonly machineInfoPath: string;
  /** etcd's environment: `ETCD_LISTEN_PEER_URLS` holds the address that the cluster was built for. */
  readonly etcdEnvPath: string;
  /** Words that all stand in the command line of an engine: it runs although nothing is installed. */
  readonly engineWords: readonly string[];
  /** Disks and network shares are mounted below this folder. */
  readonly shareRoot: string;
  /** Names in the share root that are never ours to give or take. */
  readonly protectedShares: readonly string[];
  /** Base URL of the name → DID look-up; `DID_GATE_URL` overrides it. */
  readonly didGateUrl: string;
  /** Answers a plain GET with the caller's address as text. */
  readonly externalIpUrl: string;
  /** Addresses, not names, whose answering means that an interface reaches the internet. */
  readonly probeTargets: readonly { readonly host: string; readonly port: number; readonly family: 4 | 6 }[];
  readonly mdns: {
    readonly service: string;
    /** The host is announced as `<prefix>-<last part of the address>.local`. */
    readonly hostPrefix: string;
    /** Names that a Host header may carry although no interface has them. */
    readonly hostNames: readonly string[];
  };
  readonly hosts: {
    /** Never shown, never changed through the API. `*.` at the start stands for any number of labels. */
    readonly hidden: readonly string[];
    /** Names that we trust: only the owner may bind them. */
    readonly ownerOnly: readonly string[];
  };
  readonly kube: KubeNames & {
    /** Tried in order; `KUBECONFIG` goes before. */
    readonly kubeconfigs: readonly string[];
  };
  /** The user that pods of the platform run as: file systems that know no owners are given to it. */
  readonly podUser: { readonly uid: number; readonly gid: number };
  /** The user of the operating system that the owner logs in as. */
  readonly loginUser: string;
}

const files: BaseDirFiles = {
  installed: '.installed',
  prepared: '.prepared',
  upgradeTarget: 'upgrade.target',
  previousAddress: '.prev_ip',
  addressChangeFailed: '.ip_change_failed',
  masterConfig: 'master.conf',
};

const mark = (text: string, percent: number): LogMark => ({ text, percent });

/** The ancestor's log, and the spans of its steps (ancestor contract §4.2). */
const olaresInstallMarks = [
  mark('time synchronization is normal', 3),
  mark('k8s and kubesphere installation is complete', 10),
  mark('Installing account ...', 15),
  mark('Installing settings ...', 20),
  mark('Installing appservice ...', 25),
  mark('waiting for appservice', 30),
  mark('Installing launcher ...', 35),
  mark('LocalHost: CheckLauncherStatus success', 40),
  mark('Installing built-in apps ...', 45),
  mark('Performing the final configuration ...', 65),
  mark('Installing backup component ...', 70),
  mark('Waiting for Vault ...', 80),
  mark('Starting Olares ...', 90),
  mark('Installation wizard is complete', 95),
  mark('All done', 100),
] as const;

const olaresUninstallMarks = [
  mark('[Module] GetStorage', 5),
  mark('DeleteClusterModule', 15),
  mark('ClearOSModule', 35),
  mark('UninstallAutoRenewCertsModule', 50),
  mark('KillContainerdProcess', 60),
  mark('DeleteUserData', 80),
  mark('DeletePhaseFlag', 95),
  mark('Uninstall Olares execute successfully!!!', 100),
] as const;

/** The same steps in the words of our own installer, which also writes a progress file. */
const renamed = (marks: readonly LogMark[]): LogMark[] =>
  marks.map(({ text, percent }) => mark(text.replace('Olares', 'beOS'), percent));

const installCommand = (marks: readonly LogMark[]): InstallerCommand => ({
  argv: ['install', '--version', '{version}', '--base-dir', '{baseDir}', '--kube', '{kube}'],
  env: {
    TERMINUS_OS_USERNAME: '{username}',
    TERMINUS_OS_EMAIL: '{email}',
    TERMINUS_OS_DOMAINNAME: '{domain}',
    VERSION: '{version}',
    TERMINUS_BOX: '1',
  },
  pidFile: 'installing.pid',
  logFile: 'install.log',
  marks,
});

const uninstallCommand = (marks: readonly LogMark[]): InstallerCommand => ({
  argv: ['uninstall', '--phase', 'install', '--base-dir', '{baseDir}'],
  env: { PREPARED: '1' },
  pidFile: 'uninstalling.pid',
  logFile: 'uninstall.log',
  marks,
});

const changeIpCommand = (product: string): InstallerCommand => ({
  argv: ['change-ip', '--version', '{version}', '--base-dir', '{baseDir}'],
  env: { QUIET: '1' },
  pidFile: 'changingip.pid',
  logFile: 'changeip.log',
  marks: [mark(`${product} OS components execute successfully!`, 100)],
});

const gib = 1024 ** 3;
const disk = { baseDirBytes: 8 * gib, rootBytes: 2 * gib };

/** Cluster names of the platform's workloads: the same charts run on both. */
const kube: Profile['kube'] = {
  kubeconfigs: ['/etc/rancher/k3s/k3s.yaml', '/etc/kubernetes/admin.conf', '/root/.kube/config'],
  trustedNamespaces: ['os-*', 'user-system-*', 'user-space-*'],
  keyNamespaces: ['user-space*', 'user-system*', 'os-framework', 'os-network', 'os-platform', 'os-gpu'],
  foreignNamespaces: ['default', 'kube-public', 'kube-node-lease', 'kube-system'],
  users: {
    group: 'iam.kubesphere.io',
    version: 'v1alpha2',
    plural: 'users',
    ownerRoleAnnotation: 'bytetrade.io/owner-role',
    wizardStatusAnnotation: 'bytetrade.io/wizard-status',
    nameAnnotation: 'bytetrade.io/terminus-name',
  },
  system: { group: 'sys.bytetrade.io', version: 'v1alpha1', plural: 'terminus', name: 'terminus' },
  certificates: {
    configMap: 'zone-ssl-config',
    namespacePrefix: 'user-space-',
    expiryKey: 'expired_at',
    renewal: {
      name: 'download-user-cert',
      image: 'docker.io/library/busybox:1.28',
      command: [
        ...['wget', '--header', 'X-FROM-CRONJOB: true', '-q', '-S', '-O', '-'],
        'http://bfl/bfl/backend/v1/re-download-cert',
      ],
    },
  },
  nodeLabelPrefix: 'beosd.beos.io',
};

const hiddenHosts = ['localhost', '*.cluster.local', 'lb.kubesphere.local', 'dockerhub.kubekey.local'];
const registries = [
  'docker.io',
  '*.docker.io',
  '*.docker.com',
  'ghcr.io',
  'quay.io',
  'gcr.io',
  'registry.k8s.io',
];

const beos: Profile = {
  name: 'beos',
  product: 'beOS',
  installer: {
    program: '/usr/local/bin/beos-cli',
    progressEnv: 'BEOS_PROGRESS_FILE',
    password: { way: 'file', variable: 'TERMINUS_OS_PASSWORD_FILE' },
    disk,
    install: installCommand(renamed(olaresInstallMarks)),
    uninstall: uninstallCommand(renamed(olaresUninstallMarks)),
    changeIp: changeIpCommand('beOS'),
  },
  baseDir: '/var/lib/beos',
  files,
  release: {
    path: '/etc/beos/release',
    nameKey: 'BEOS_NAME',
    versionKey: 'BEOS_VERSION',
    baseDirKey: 'BEOS_BASE_DIR',
  },
  machineInfoPath: '/etc/machine.info',
  etcdEnvPath: '/etc/etcd.env',
  engineWords: ['k3s', 'server'],
  shareRoot: '/beos/share',
  protectedShares: ['ai'],
  didGateUrl: 'https://did-gate-v3.bttcdn.com',
  externalIpUrl: 'https://checkip.amazonaws.com',
  probeTargets: [
    { host: '1.1.1.1', port: 443, family: 4 },
    { host: '8.8.8.8', port: 443, family: 4 },
    { host: '2606:4700:4700::1111', port: 443, family: 6 },
    { host: '2001:4860:4860::8888', port: 443, family: 6 },
  ],
  mdns: { service: '_terminus._tcp', hostPrefix: 'beos', hostNames: ['beos.local'] },
  hosts: { hidden: hiddenHosts, ownerOnly: ['did-gate-v3.bttcdn.com', '*.beos.local', ...registries] },
  kube,
  podUser: { uid: 1000, gid: 1000 },
  loginUser: 'beos',
};

const olares: Profile = {
  ...beos,
  name: 'olares',
  product: 'Olares',
  installer: {
    program: '/usr/local/bin/olares-cli',
    progressEnv: 'BEOS_PROGRESS_FILE',
    password: { way: 'environment', variable: 'TERMINUS_OS_PASSWORD', exactLength: 32 },
    disk,
    install: installCommand(olaresInstallMarks),
    uninstall: uninstallCommand(olaresUninstallMarks),
    changeIp: changeIpCommand('Olares'),
  },
  baseDir: '/root/.olares',
  release: {
    path: '/etc/olares/release',
    nameKey: 'OLARES_NAME',
    versionKey: 'OLARES_VERSION',
    baseDirKey: 'OLARES_BASE_DIR',
  },
  shareRoot: '/olares/share',
  mdns: { service: '_terminus._tcp', hostPrefix: 'olares', hostNames: ['olares.local'] },
  hosts: {
    hidden: hiddenHosts,
    ownerOnly: ['did-gate-v3.bttcdn.com', '*.bttcdn.com', '*.olares.com', ...registries],
  },
  loginUser: 'olares',
};

/** Files in the base directory by which a failure outlives its process. */
export function failureMarks(profile: Pick<Profile, 'files' | 'installer'>): string[] {
  const { install, changeIp } = profile.installer;
  return [profile.files.addressChangeFailed, install.pidFile, changeIp.pidFile];
}

/** All profiles, by name. */
export const profiles: Readonly<Record<ProfileName, Profile>> = { beos, olares };
