import { isIPv4 } from 'node:net';
import { isLoopback } from '#lib/net.ts';
import type { Observed } from '#lib/observed.ts';
import { hasAddress, usableAddresses } from '#state/addresses.ts';
import { checkingMs, deriveState, failedInstall, lostAddress, notObserved } from '#state/derive.ts';
import type { Facts, JobFacts, ReportedCondition } from '#state/facts.ts';
import { hasFailed, viewOf } from '#state/job-view.ts';

type Severity = ReportedCondition['severity'];

/** Operations that mend things, as `fixedBy` names them; a test compares them with the contract. */
const fixes = {
  changeHost: 'POST /command/change-host',
  reboot: 'POST /command/reboot',
  uninstall: 'POST /command/uninstall',
} as const;

/** Below this much space the store may fail at any moment; on a tiny file system a twentieth of it counts. */
const fullBytes = 64 * 1024 * 1024;

/**
 * What is wrong with the node, in the order of cause before effect. Pure and total. `since` is added by the
 * observatory, which remembers what it has seen.
 */
export function deriveConditions(facts: Facts, jobs: readonly JobFacts[], now: number): ReportedCondition[] {
  return [
    ...storeConditions(facts),
    ...hostConditions(facts),
    ...networkConditions(facts),
    ...addressConditions(facts),
    ...clusterConditions(facts, now),
    ...jobConditions(facts, jobs),
    ...leftoverConditions(facts, jobs, now),
    ...staleConditions(facts, now),
    ...Object.values(facts.reported).flat(),
  ];
}

function condition(
  severity: Severity,
  code: string,
  message: string,
  remedy: string,
  fixedBy: readonly string[] = [],
): ReportedCondition {
  return { code, severity, message, remedy, fixedBy };
}

function storeConditions({ store, dataDir }: Facts): ReportedCondition[] {
  const found: ReportedCondition[] = [];
  if (dataDir.known && dataDir.value.readOnly) {
    found.push(
      condition(
        'error',
        'data_dir_read_only',
        `${dataDir.value.path} is on a file system that is mounted read-only.`,
        'Look for disk errors in the kernel log, then mount it writable again; beosd notices by itself.',
        [fixes.reboot],
      ),
    );
  }
  if (dataDir.known && isFull(dataDir.value.freeBytes, dataDir.value.totalBytes)) {
    found.push(
      condition(
        'error',
        'data_dir_full',
        `${dataDir.value.path} has only ${mebibytes(dataDir.value.freeBytes)} MiB left.`,
        'Free space on that file system; beosd notices by itself.',
      ),
    );
  }
  if (!store.durable) {
    found.push(
      condition(
        'error',
        'store_unavailable',
        `The store cannot be written: ${store.reason ?? 'unknown reason'}. Nothing that needs it is accepted.`,
        'Free space or mend the disk under the data directory; beosd goes back to it by itself.',
      ),
    );
  }
  if (store.setAside !== undefined) {
    const when =
      store.historyLostAt === undefined ? '' : ` at ${new Date(store.historyLostAt).toISOString()}`;
    found.push(
      condition(
        'warning',
        'store_damaged',
        `The store was damaged and set aside${when} as ${store.setAside}; jobs, audit and events before that are only there.`,
        'Check the disk. Keep the file if the history matters, else remove it.',
      ),
    );
  }
  return found;
}

/** Also used to decide when the data directory has recovered. */
export function isFull(freeBytes: number, totalBytes: number): boolean {
  return freeBytes < Math.min(fullBytes, totalBytes / 20);
}

function mebibytes(bytes: number): number {
  return Math.floor(bytes / (1024 * 1024));
}

function hostConditions({ clock, bus }: Facts): ReportedCondition[] {
  const found: ReportedCondition[] = [];
  if (clock.known && !clock.value.synchronised) {
    found.push(
      condition(
        'warning',
        'clock_not_synchronised',
        'The clock is not synchronised with a time server; signatures and certificates may be refused.',
        'Give the node a way to a time server (NTP, UDP port 123), or stop the time service and set the clock by hand.',
      ),
    );
  }
  if (!bus.available) {
    found.push(
      condition(
        'warning',
        'bus_unavailable',
        `The system bus (D-Bus) does not answer${bus.reason === undefined ? '' : `: ${bus.reason}`}.`,
        'Start dbus and systemd-logind; until then the fallbacks of beosd are used where there are any.',
      ),
    );
  }
  return found;
}

function networkConditions({ network }: Facts): ReportedCondition[] {
  if (!network.known) return [];
  if (usableAddresses(network.value).length === 0) {
    const names = network.value.links.filter(({ kind }) => kind !== 'loopback').map(({ name }) => name);
    return [
      condition(
        'error',
        'network_not_ready',
        `No interface has an address that the network can reach (${listed(names) || 'no interface at all'}).`,
        'Plug in a network cable or connect to Wi-Fi, and check that the router gives out addresses (DHCP).',
      ),
    ];
  }
  if (network.value.defaultRoutes.length > 0) return [];
  return [
    condition(
      'warning',
      'no_default_route',
      'There is no default route: the local network works, the internet cannot be reached.',
      'Check the gateway in the network settings or on the DHCP server.',
    ),
  ];
}

function addressConditions(facts: Facts): ReportedCondition[] {
  const found: ReportedCondition[] = [];
  const lost = lostAddress(facts);
  if (lost !== undefined) {
    found.push(
      condition(
        'error',
        'address_changed',
        `The cluster was built for ${lost}, which no interface of this node has any more.`,
        `Give the node ${lost} again (a fixed lease on the router), or let it take its new address.`,
        [fixes.changeHost],
      ),
    );
  }
  const binding = bindingProblem(facts);
  if (binding !== undefined) found.push(binding);
  return found;
}

function bindingProblem({ hosts, network, machine }: Facts): ReportedCondition | undefined {
  if (!hosts.known || !network.known) return undefined;
  const bound = hosts.value.ownAddresses.filter((address) => isIPv4(address) && !isLoopback(address));
  const name = machine.known ? machine.value.hostName : "this host's name";
  if (bound.length === 0) {
    return condition(
      'info',
      'host_address_unbound',
      `The hosts file binds ${name} to no address of the network.`,
      'Bind it to the address that the node shall keep; until then the default route decides.',
      [fixes.changeHost],
    );
  }
  if (bound.some((address) => hasAddress(network.value, address))) return undefined;
  return condition(
    'error',
    'host_address_gone',
    `The hosts file binds ${name} to ${listed(bound)}, which no interface has.`,
    'Give the node that address again, or bind its name to one that it has.',
    [fixes.changeHost],
  );
}

function clusterConditions(facts: Facts, now: number): ReportedCondition[] {
  const found: ReportedCondition[] = [];
  const { cluster } = facts;
  const silent = silentCluster(facts, now);
  if (silent !== undefined) found.push(silent);
  if (!cluster.known) return found;
  const { node, sickPods, otherNodesNotReady } = cluster.value;
  if (sickPods.length > 0) {
    const pods = sickPods.map((pod) => `${pod.namespace}/${pod.name} (${pod.reason})`);
    found.push(
      condition('error', 'pod_unhealthy', `Not running: ${listed(pods)}.`, 'Look at the log of the pod.', [
        fixes.reboot,
      ]),
    );
  }
  const notReady = [...(node && !node.ready ? [node.name] : []), ...otherNodesNotReady];
  if (notReady.length > 0) {
    found.push(
      condition(
        'error',
        'node_not_ready',
        `The cluster says that ${listed(notReady)} is not ready.`,
        'Check power and network of that machine, and the log of its engine.',
        [fixes.reboot],
      ),
    );
  }
  for (const pressure of node?.pressures ?? []) {
    found.push(
      condition(
        'warning',
        pressureCode(pressure.type),
        `${pressure.type} on ${node?.name ?? 'this node'}: ${pressure.message}`,
        'Free what is short, or stop apps that use much of it.',
      ),
    );
  }
  return found;
}

/** `DiskPressure` → `disk_pressure`, `PIDPressure` → `pid_pressure`. */
function pressureCode(type: string): string {
  return type
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/([A-Z]+)([A-Z][a-z])/g, '$1_$2')
    .toLowerCase();
}

function silentCluster({ cluster, clusterLink, install }: Facts, now: number): ReportedCondition | undefined {
  const installed = install.known && install.value.installed !== undefined;
  if (!installed) return undefined;
  const [since, reason] = cluster.known
    ? [cluster.stale?.since, cluster.stale?.reason]
    : [cluster.since, cluster.reason];
  if (since === undefined) return undefined;
  const lost = cluster.known || clusterLink !== 'connecting' || now - since >= checkingMs;
  if (!lost) return undefined;
  return condition(
    'error',
    'cluster_unreachable',
    `The cluster does not answer (${clusterLink}, ${age(now - since)}): ${reason ?? 'unknown reason'}.`,
    'See the log of the engine (journalctl -u k3s); a restart of the node starts it anew.',
    [fixes.reboot],
  );
}

function jobConditions(facts: Facts, jobs: readonly JobFacts[]): ReportedCondition[] {
  const view = viewOf(jobs);
  const found: ReportedCondition[] = [];
  const install = failedInstall(facts, view);
  if (install) {
    found.push(
      failure('install_failed', 'install', install, 'Uninstall, then install again.', [fixes.uninstall]),
    );
  }
  if (view.uninstallFailed) {
    found.push(
      failure('uninstall_failed', 'uninstall', view.uninstallFailed, 'Uninstall again.', [fixes.uninstall]),
    );
  }
  if (view.changeIpFailed) {
    found.push(
      failure('ip_change_failed', 'change of the address', view.changeIpFailed, 'Try the change again.', [
        fixes.changeHost,
      ]),
    );
  }
  if (view.upgrade && hasFailed(view.upgrade) && view.upgrade.state !== 'cancelled') {
    found.push(
      failure('upgrade_failed', 'upgrade', view.upgrade, 'Read the log of the job, then try again.', []),
    );
  }
  return found;
}

/** States that are bad by themselves, where no job of ours tells why. */
function leftoverConditions(facts: Facts, jobs: readonly JobFacts[], now: number): ReportedCondition[] {
  const { state, because } = deriveState(facts, jobs, now);
  const view = viewOf(jobs);
  const install = facts.install.known ? facts.install.value : undefined;
  if (state === 'install-failed' && view.installFailed === undefined) {
    return [
      condition(
        'error',
        'install_failed',
        `The installation did not come to its end: ${because}.`,
        'Uninstall, then install again.',
        [fixes.uninstall],
      ),
    ];
  }
  if (state === 'ip-change-failed' && view.changeIpFailed === undefined) {
    return [
      condition(
        'error',
        'ip_change_failed',
        `The change of the address did not come to its end: ${because}.`,
        'Try the change again.',
        [fixes.changeHost],
      ),
    ];
  }
  if (install?.engineRunning === true && install.installed === undefined && state === 'system-error') {
    return [
      condition(
        'error',
        'engine_without_installation',
        'An engine (k3s) runs although nothing is installed here.',
        'Uninstall what is left of it.',
        [fixes.uninstall],
      ),
    ];
  }
  if (state === 'system-error' && facts.cluster.known && facts.cluster.value.node === undefined) {
    return [
      condition(
        'error',
        'node_not_in_cluster',
        'The cluster has no node with the name or an address of this machine.',
        'Give the machine its old name and address again, or uninstall and install anew.',
        [fixes.uninstall],
      ),
    ];
  }
  return [];
}

function failure(
  code: string,
  what: string,
  job: JobFacts,
  remedy: string,
  fixedBy: readonly string[],
): ReportedCondition {
  const where = job.phase === null ? '' : ` in ${job.phase}`;
  const why = job.error === undefined ? '' : `: ${job.error}`;
  return condition('error', code, `The ${what} ended as ${job.state}${where}${why}.`, remedy, fixedBy);
}

/** A source that is down is a problem of its own: what is shown may no longer be true. */
function staleConditions(facts: Facts, now: number): ReportedCondition[] {
  const watched: readonly [string, Observed<unknown>][] = [
    ['machine', facts.machine],
    ['network', facts.network],
    ['hosts file', facts.hosts],
    ['Wi-Fi', facts.wifi],
    ['pending shutdown', facts.shutdown],
    ['installed files', facts.install],
    ['release file', facts.release],
    ['data directory', facts.dataDir],
  ];
  const down = watched.flatMap(([name, fact]) => {
    if (fact.known) {
      return fact.stale ? [`${name} (for ${age(now - fact.stale.since)}): ${fact.stale.reason}`] : [];
    }
    return fact.reason === notObserved ? [] : [`${name} (unknown): ${fact.reason}`];
  });
  if (down.length === 0) return [];
  return [
    condition(
      'warning',
      'facts_stale',
      `Cannot be observed now: ${listed(down, '; ')}.`,
      'What is shown is the last known value. The log of beosd tells more.',
    ),
  ];
}

/** A duration in words, coarse so that a message does not change with every look: `2 min`, `3 h`. */
function age(ms: number): string {
  if (ms < 60_000) return 'less than a minute';
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

function listed(names: readonly string[], separator = ', '): string {
  const shown = names.slice(0, 8).join(separator);
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown;
}
