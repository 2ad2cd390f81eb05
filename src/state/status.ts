import type { Processing } from '#api/states.ts';
import type { Status } from '#api/status.ts';
import { isLoopback } from '#lib/net.ts';
import { type Observed, valueOr } from '#lib/observed.ts';
import { usableAddresses } from '#state/addresses.ts';
import type { Derived, Facts, JobFacts } from '#state/facts.ts';
import { isNewer, type JobView, viewOf } from '#state/job-view.ts';

/** What the snapshot tells that is configuration, not observation. */
export interface ProfileFacts {
  /** Never null on the wire: the phone app calls string methods on it. */
  readonly defaultFrpServer: string;
  readonly frpEnable: string;
  /** Present only in a container. */
  readonly containerMode?: string | undefined;
}

/** Who the daemon is and whose the node is. */
export interface Identity {
  readonly version: string;
  readonly nodeId: string;
  readonly owned: boolean;
  readonly ownerName: string | undefined;
}

export interface StatusInput {
  readonly facts: Facts;
  readonly jobs: readonly JobFacts[];
  readonly derived: Derived;
  readonly conditionCodes: readonly string[];
  readonly identity: Identity;
  readonly profile: ProfileFacts;
  readonly now: number;
}

/** The snapshot of contract §7: every key that is not optional is always there. Pure. */
export function buildStatus(input: StatusInput): Status {
  const { facts, derived, identity, now } = input;
  const view = viewOf(input.jobs);
  return {
    terminusdState: derived.state === 'checking' ? 'initialize' : 'running',
    terminusState: derived.state,
    ...clusterKeys(facts, identity),
    olaresdVersion: identity.version,
    beosdVersion: identity.version,
    ...machineKeys(facts),
    ...networkKeys(facts),
    ...installKeys(view, derived),
    ...upgradeKeys(facts, view),
    collectingLogsState: processing(view.collectLogs),
    collectingLogsError: errorOf(view.collectLogs),
    defaultFrpServer: input.profile.defaultFrpServer,
    frpEnable: input.profile.frpEnable,
    ...defined({ containerMode: input.profile.containerMode }),
    pressures: facts.cluster.known ? [...(facts.cluster.value.node?.pressures ?? [])] : [],
    conditions: [...new Set(input.conditionCodes)],
    observedAt: new Date(now).toISOString(),
    nodeId: identity.nodeId,
    owned: identity.owned,
  };
}

/** Leaves out what is undefined: optional keys of the wire are absent, never null. */
function defined<T extends object>(keys: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

function optional<T>(fact: Observed<T>): T | undefined {
  return fact.known ? fact.value : undefined;
}

function clusterKeys(facts: Facts, identity: Identity): Partial<Status> {
  const installed = optional(facts.install)?.installed;
  const cluster = optional(facts.cluster);
  const release = installed === undefined ? undefined : optional(facts.release);
  const seen = installed === undefined ? undefined : cluster;
  return defined({
    terminusName: identity.ownerName ?? seen?.ownerName ?? release?.name,
    terminusVersion: seen?.version ?? installed?.version,
    installedTime: seconds(seen?.installedAt ?? installed?.at),
    initializedTime: seconds(seen?.initializedAt),
  });
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.floor(ms / 1000);
}

type MachineKeys = Pick<
  Status,
  'os_type' | 'os_arch' | 'os_info' | 'os_version' | 'cpu_info' | 'memory' | 'disk'
> &
  Partial<Pick<Status, 'device_name' | 'host_name' | 'gpu_info'>>;

function machineKeys(facts: Facts): MachineKeys {
  const machine = optional(facts.machine);
  return {
    ...defined({ device_name: machine?.deviceName, host_name: machine?.hostName, gpu_info: machine?.gpu }),
    os_type: machine?.osType ?? '',
    os_arch: machine?.osArch ?? '',
    os_info: machine?.osInfo ?? '',
    os_version: machine?.osVersion ?? '',
    cpu_info: machine?.cpu ?? '',
    memory: gibibytes(machine?.memoryBytes),
    disk: gibibytes(machine?.diskBytes),
  };
}

function gibibytes(bytes: number | undefined): string {
  return bytes === undefined ? '' : `${Math.round(bytes / 2 ** 30)} G`;
}

type NetworkKeys = Pick<Status, 'wifiConnected' | 'wiredConnected' | 'hostIp' | 'externalIp'> &
  Partial<Pick<Status, 'wifiSSID'>>;

function networkKeys(facts: Facts): NetworkKeys {
  const usable = facts.network.known ? usableAddresses(facts.network.value) : [];
  const carried = usable.filter(({ link, address }) => link.carrier && !isLoopback(address));
  const wifi = optional(facts.wifi);
  return {
    // Without a word from NetworkManager the kernel's view is good enough for a yes.
    wifiConnected: wifi?.connected ?? carried.some(({ link }) => link.kind === 'wifi'),
    ...defined({ wifiSSID: wifi?.connected ? wifi.ssid : undefined }),
    wiredConnected: carried.some(({ link }) => link.kind !== 'wifi'),
    hostIp: valueOr(facts.hostIp, ''),
    externalIp: valueOr(facts.externalIp, ''),
  };
}

type InstallKeys = Pick<
  Status,
  'installingState' | 'installingProgress' | 'uninstallingState' | 'uninstallingProgress'
>;

/** Clients may install only while `installingProgress` is empty: what an uninstall has undone is not shown any more. */
function installKeys({ install, uninstall }: JobView, { state }: Derived): InstallKeys {
  const running = state === 'installing' ? 'in-progress' : state === 'install-failed' ? 'failed' : '';
  const shownInstall = state === 'not-installed' || isOlder(install, uninstall) ? undefined : install;
  const shownUninstall = isOlder(uninstall, install) ? undefined : uninstall;
  return {
    installingState: processing(shownInstall) || running,
    installingProgress: percent(shownInstall),
    uninstallingState: processing(shownUninstall) || (state === 'uninstalling' ? 'in-progress' : ''),
    uninstallingProgress: percent(shownUninstall),
  };
}

function isOlder(job: JobFacts | undefined, other: JobFacts | undefined): boolean {
  return (
    job !== undefined &&
    other !== undefined &&
    isNewer(other, job) &&
    (other.state === 'succeeded' || other.state === 'running')
  );
}

type UpgradeKeys = Pick<
  Status,
  | 'upgradingTarget'
  | 'upgradingRetryNum'
  | 'upgradingState'
  | 'upgradingStep'
  | 'upgradingProgress'
  | 'upgradingError'
  | 'upgradingDownloadState'
  | 'upgradingDownloadStep'
  | 'upgradingDownloadProgress'
  | 'upgradingDownloadError'
>;

function upgradeKeys(facts: Facts, { upgrade }: JobView): UpgradeKeys {
  const target = optional(facts.install)?.upgradeTarget;
  const download = upgrade?.phase?.startsWith('download') ? upgrade : undefined;
  const install = download === undefined ? upgrade : undefined;
  const waits = target?.downloaded === true && target.downloadOnly;
  return {
    upgradingTarget: target?.version ?? '',
    upgradingRetryNum: 0,
    upgradingState: waits ? 'WaitingForUserConfirm' : processing(install),
    upgradingStep: install?.phase ?? '',
    upgradingProgress: percent(install),
    upgradingError: errorOf(install),
    upgradingDownloadState: target?.downloaded ? 'completed' : processing(download),
    upgradingDownloadStep: download?.phase ?? '',
    upgradingDownloadProgress: percent(download),
    upgradingDownloadError: errorOf(download),
  };
}

function processing(job: JobFacts | undefined): Processing {
  switch (job?.state) {
    case undefined:
      return '';
    case 'queued':
    case 'running':
      return 'in-progress';
    case 'succeeded':
      return 'completed';
    case 'failed':
    case 'cancelled':
    case 'interrupted':
      return 'failed';
  }
}

function percent(job: JobFacts | undefined): string {
  if (job === undefined || job.percent === null) return '';
  return `${Math.floor(job.percent)}%`;
}

function errorOf(job: JobFacts | undefined): string {
  return job?.state === 'failed' || job?.state === 'interrupted' ? (job.error ?? job.state) : '';
}
