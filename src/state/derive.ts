import { isLoopback } from '#lib/net.ts';
import type { Observed } from '#lib/observed.ts';
import { hasAddress, usableAddresses } from '#state/addresses.ts';
import type { ClusterFacts, Derived, Facts, InstallerProcess, JobFacts } from '#state/facts.ts';
import { type JobView, viewOf } from '#state/job-view.ts';

const minute = 60_000;

/** How long an unknown fact may keep the node `checking`; after that the rest decides without it. */
export const checkingMs = 30_000;
/** A machine that came up less than this ago is starting, whatever is not up yet. */
export const startingMs = 10 * minute;
/** Running, but so shortly after the start of the machine that apps are still coming up. */
export const settlingMs = 3 * minute;
/** After the installer has ended its pods have this long to come up. */
export const installTailMs = 5 * minute;
/** How long the last good word of a cluster that went silent still decides the state. */
export const clusterSilenceMs = 10 * minute;
/** A scheduled shutdown that is late by this much is one that logind has forgotten: restarted, it leaves its file behind. */
export const overdueMs = 5 * minute;
/** A reboot that logind has accepted is under way for at most this long. */
export const powerTailMs = 90_000;

/** The reason of a fact that no source has reported on yet; any other reason is a source that failed. */
export const notObserved = 'not observed yet';

interface Context {
  readonly facts: Facts;
  readonly jobs: JobView;
  readonly now: number;
}

type Rule = (context: Context) => Derived | undefined;

/** The order is the contract (§7: ancestor's order, `uninstalling` right after `shutdown`). The first that answers decides. */
const rules: readonly Rule[] = [
  checkingRule,
  networkRule,
  shutdownRule,
  uninstallRule,
  changingIpRule,
  installingRule,
  diskRule,
  changeIpFailedRule,
  installFailedRule,
  notInstalledRule,
  addressRule,
  upgradeRunsRule,
  silentClusterRule,
  upgradeRule,
  podsRule,
];

/**
 * What a person would say the node is, and why. Pure and total: whatever the facts, it answers at once; unknown is
 * never taken for "none".
 */
export function deriveState(facts: Facts, jobs: readonly JobFacts[], now: number): Derived {
  const context: Context = { facts, jobs: viewOf(jobs), now };
  for (const rule of rules) {
    const derived = rule(context);
    if (derived !== undefined) return derived;
  }
  return activation(context);
}

function checkingRule({ facts, now }: Context): Derived | undefined {
  const deciding: readonly [string, Observed<unknown>][] = [
    ['network', facts.network],
    ['pending shutdown', facts.shutdown],
    ['installed files', facts.install],
  ];
  const open = deciding.find(([, fact]) => isAwaited(fact, now));
  return open && { state: 'checking', because: `${open[0]} not observed yet` };
}

function isAwaited(fact: Observed<unknown>, now: number): boolean {
  return !fact.known && fact.reason === notObserved && now - fact.since < checkingMs;
}

function networkRule({ facts }: Context): Derived | undefined {
  if (!facts.network.known || usableAddresses(facts.network.value).length > 0) return undefined;
  return { state: 'network-not-ready', because: 'no interface has an address that the network can reach' };
}

function shutdownRule({ facts, jobs, now }: Context): Derived | undefined {
  const pending = facts.shutdown.known ? facts.shutdown.value : undefined;
  if (pending && now - pending.at < overdueMs)
    return { state: 'shutdown', because: `a ${pending.mode} is scheduled` };
  const power = jobs.power;
  if (power?.state === 'running') return { state: 'shutdown', because: `${power.operation} runs` };
  if (power?.state !== 'succeeded' || power.finishedAt === undefined) return undefined;
  const underWay = !isBehind(power, facts) && isNear(power.finishedAt, now, powerTailMs);
  return underWay ? { state: 'shutdown', because: `${power.operation} was accepted` } : undefined;
}

/**
 * Whether the machine has been started since. A job that is found open after the start ends only then, and a machine
 * without a clock of its own starts in the past: its identity tells better than any time.
 */
function isBehind(power: JobFacts, { machine }: Facts): boolean {
  if (!machine.known) return false;
  if (power.boot !== undefined) return power.boot !== machine.value.bootId;
  return power.finishedAt !== undefined && power.finishedAt <= machine.value.bootedAt;
}

function uninstallRule({ facts, jobs }: Context): Derived | undefined {
  if (jobs.uninstall?.state === 'running')
    return { state: 'uninstalling', because: 'the uninstall job runs' };
  return aliveRule(facts, 'uninstalling', 'uninstalling');
}

function changingIpRule({ facts, jobs }: Context): Derived | undefined {
  if (jobs.changeIp?.state === 'running') return { state: 'ip-changing', because: 'the change-ip job runs' };
  return aliveRule(facts, 'changingIp', 'ip-changing');
}

function installingRule({ facts, jobs }: Context): Derived | undefined {
  if (jobs.install?.state === 'running') return { state: 'installing', because: 'the install job runs' };
  return aliveRule(facts, 'installing', 'installing');
}

/** A process of the ancestor's contract that its pid file names and /proc confirms. */
function aliveRule(
  facts: Facts,
  key: 'installing' | 'uninstalling' | 'changingIp',
  state: Derived['state'],
): Derived | undefined {
  const process = facts.install.known ? facts.install.value[key] : undefined;
  return process?.alive ? { state, because: `process ${process.pid} of the installer runs` } : undefined;
}

function diskRule({ jobs }: Context): Derived | undefined {
  return jobs.provision?.state === 'running'
    ? { state: 'disk-modifing', because: 'a disk is being provisioned' }
    : undefined;
}

function changeIpFailedRule({ facts, jobs }: Context): Derived | undefined {
  if (jobs.changeIpFailed && !isClusterWell(facts)) {
    return { state: 'ip-change-failed', because: 'the change-ip job failed' };
  }
  if (!facts.install.known) return undefined;
  if (facts.install.value.ipChangeFailed) {
    return { state: 'ip-change-failed', because: 'the installer left its mark of a failed address change' };
  }
  return deadRule(facts.install.value.changingIp, jobs.changeIp, 'ip-change-failed');
}

/** A cluster that answers from an address of ours has come through, whatever a job or a hand did before. */
function isClusterWell({ cluster, network }: Facts): boolean {
  if (!cluster.known || cluster.stale !== undefined || cluster.value.sickPods.length > 0) return false;
  const address = cluster.value.node?.address;
  return address !== undefined && network.known && hasAddress(network.value, address);
}

function installFailedRule({ facts, jobs }: Context): Derived | undefined {
  const failed = failedInstall(facts, jobs);
  if (failed) return { state: 'install-failed', because: `the install job ended as ${failed.state}` };
  const install = facts.install.known ? facts.install.value : undefined;
  if (install === undefined || install.installed !== undefined) return undefined;
  return deadRule(install.installing, jobs.install, 'install-failed');
}

/** An installation that failed, unless somebody finished it by hand since: then the marker is newer than our failure. */
export function failedInstall(facts: Facts, { installFailed }: JobView): JobFacts | undefined {
  const installedAt = facts.install.known ? facts.install.value.installed?.at : undefined;
  if (installFailed === undefined || installedAt === undefined) return installFailed;
  return installedAt > (installFailed.finishedAt ?? installFailed.createdAt) ? undefined : installFailed;
}

/** A pid file whose process is gone: it crashed, unless a job of ours knows better. */
function deadRule(
  process: InstallerProcess | undefined,
  job: JobFacts | undefined,
  state: Derived['state'],
): Derived | undefined {
  if (process === undefined || process.alive || job?.state === 'succeeded') return undefined;
  return { state, because: `process ${process.pid} of the installer is gone, its pid file is not` };
}

function notInstalledRule({ facts }: Context): Derived | undefined {
  if (!facts.install.known) {
    return { state: 'system-error', because: `cannot tell what is installed: ${facts.install.reason}` };
  }
  if (facts.install.value.installed !== undefined) return undefined;
  return facts.install.value.engineRunning
    ? { state: 'system-error', because: 'an engine runs although nothing is installed' }
    : { state: 'not-installed', because: 'no mark of an installation' };
}

function addressRule({ facts }: Context): Derived | undefined {
  const lost = lostAddress(facts);
  return lost === undefined
    ? undefined
    : { state: 'invalid-ip-address', because: `the cluster was built for ${lost}, which no interface has` };
}

/** The address that the cluster relies on when it is not one of ours any more; an unknown network proves nothing. */
export function lostAddress(facts: Facts): string | undefined {
  if (!facts.network.known || !facts.install.known || facts.install.value.installed === undefined) {
    return undefined;
  }
  const network = facts.network.value;
  const built = facts.install.value.clusterAddress;
  const told = facts.cluster.known ? facts.cluster.value.node?.address : undefined;
  return [built, told].find(
    (address) => address !== undefined && !isLoopback(address) && !hasAddress(network, address),
  );
}

/** While our own upgrade works on the cluster its silence is part of the work. */
function upgradeRunsRule({ facts, jobs }: Context): Derived | undefined {
  if (jobs.upgrade?.state !== 'running' || !isUpgradeDue(facts)) return undefined;
  return { state: 'upgrading', because: 'the upgrade job runs' };
}

function upgradeRule({ facts }: Context): Derived | undefined {
  if (!isUpgradeDue(facts)) return undefined;
  const version = facts.install.known ? facts.install.value.upgradeTarget?.version : undefined;
  return { state: 'upgrading', because: `version ${version ?? '?'} is downloaded and to be installed` };
}

function isUpgradeDue(facts: Facts): boolean {
  const target = facts.install.known ? facts.install.value.upgradeTarget : undefined;
  return target?.downloaded === true && !target.downloadOnly;
}

function silentClusterRule(context: Context): Derived | undefined {
  const { facts, now } = context;
  const { cluster } = facts;
  if (!cluster.known) {
    // Whatever the reason that it gives: a connection that is being made is no answer yet.
    if (facts.clusterLink === 'connecting' && now - cluster.since < checkingMs) {
      return { state: 'checking', because: 'the cluster has not answered yet' };
    }
    // Nothing to wait for: an installed node has had its kubeconfig since before it was installed.
    if (facts.clusterLink === 'no-kubeconfig') {
      return { state: 'system-error', because: 'a cluster is installed, but there is no kubeconfig' };
    }
    return unwell(context, `the cluster is silent (${facts.clusterLink}): ${cluster.reason}`);
  }
  if (cluster.stale === undefined || now - cluster.stale.since < clusterSilenceMs) return undefined;
  return unwell(context, `the cluster has been silent for too long: ${cluster.stale.reason}`);
}

function podsRule(context: Context): Derived | undefined {
  const { cluster } = context.facts;
  if (!cluster.known) return undefined;
  if (cluster.value.node === undefined)
    return unwell(context, 'the cluster has no node object for this machine');
  const [first] = cluster.value.sickPods;
  if (first === undefined) return undefined;
  return unwell(context, `${first.namespace}/${first.name} is not running: ${first.reason}`);
}

/** Something is not up: right after an install or a start that is to be expected, else it is an error. */
function unwell({ facts, jobs, now }: Context, because: string): Derived {
  const installEnded = installEndedAt(facts, jobs);
  if (installEnded !== undefined && isNear(installEnded, now, installTailMs)) {
    return { state: 'installing', because: `installed just now; ${because}` };
  }
  if (uptime(facts, now) < startingMs)
    return { state: 'restarting', because: `started just now; ${because}` };
  return { state: 'system-error', because };
}

/** A time ahead of us is of a clock that has been put right since: it lies back, nobody knows how far. */
function isNear(then: number, now: number, ms: number): boolean {
  return Math.abs(now - then) < ms;
}

function installEndedAt(facts: Facts, jobs: JobView): number | undefined {
  const byJob = jobs.install?.state === 'succeeded' ? jobs.install.finishedAt : undefined;
  return byJob ?? (facts.install.known ? facts.install.value.installed?.at : undefined);
}

function uptime(facts: Facts, now: number): number {
  return facts.machine.known ? now - facts.machine.value.bootedAt : Number.POSITIVE_INFINITY;
}

/** All runs: how far is the owner with the first steps? */
function activation({ facts, now }: Context): Derived {
  const cluster: ClusterFacts | undefined = facts.cluster.known ? facts.cluster.value : undefined;
  const wizard = cluster?.wizardStatus ?? '';
  if (wizard === '') return { state: 'uninitialized', because: 'the owner has not begun the activation' };
  if (wizard.endsWith('activate-failed') || wizard.endsWith('activate_failed')) {
    return { state: 'initialize-failed', because: `the activation ended as ${wizard}` };
  }
  if (wizard !== 'completed') return { state: 'initializing', because: `the activation is at ${wizard}` };
  return uptime(facts, now) < settlingMs
    ? { state: 'restarting', because: 'all runs, the machine started less than 3 minutes ago' }
    : { state: 'terminus-running', because: 'all key pods run and the owner is activated' };
}

/**
 * The next moment at which time alone may change the state; undefined: it stays until a fact changes. Pure; names every
 * limit of the rules above, a test holds them together.
 */
export function nextTurn(facts: Facts, jobs: readonly JobFacts[], now: number): number | undefined {
  const { machine, cluster } = facts;
  const view = viewOf(jobs);
  const bootedAt = machine.known ? machine.value.bootedAt : undefined;
  const awaited = [facts.network, facts.shutdown, facts.install, cluster].map((fact) =>
    fact.known ? undefined : fact.since,
  );
  const limits: readonly (readonly [number | undefined, number])[] = [
    [bootedAt, settlingMs],
    [bootedAt, startingMs],
    [installEndedAt(facts, view), installTailMs],
    [view.power?.finishedAt, powerTailMs],
    [facts.shutdown.known ? facts.shutdown.value?.at : undefined, overdueMs],
    [cluster.known ? cluster.stale?.since : undefined, clusterSilenceMs],
    ...awaited.map((since) => [since, checkingMs] as const),
  ];
  // What counts while it is near counts from before a time that lies ahead.
  const turns = limits.flatMap(([from, ms]) => (from === undefined ? [] : [from - ms + 1, from + ms]));
  return turns.filter((at) => at > now).sort((a, b) => a - b)[0];
}
