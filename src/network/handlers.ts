import { isIPv4 } from 'node:net';
import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Call, DryRun } from '#api/operation.ts';
import type { Handlers } from '#api/operations.ts';
import type { Files } from '#host/files.ts';
import type { Connectivity } from '#network/connectivity.ts';
import type { HostsFile } from '#network/hosts-file.ts';
import { protectedName } from '#network/hosts-file.ts';
import type { HostsEntry } from '#network/hosts-text.ts';
import { interfaceRows, localAddresses, nameServers, shownLinks } from '#network/interfaces.ts';
import type { LinkRates } from '#network/rates.ts';
import { usableAddresses } from '#state/addresses.ts';
import { lostAddress } from '#state/derive.ts';
import type { Facts } from '#state/facts.ts';

/** The change-ip job of an installed node; it binds the hosts file itself, as one of its phases. */
export interface ChangeIpJob {
  plan(ip: string): Promise<DryRun> | DryRun;
  /** Returns the id of the job. */
  start(ip: string, caller: Caller): Promise<string> | string;
}

export interface NetworkHandlerOptions {
  readonly facts: () => Facts;
  readonly files: Files;
  readonly hostsFile: HostsFile;
  readonly rates: LinkRates;
  readonly connectivity: Connectivity;
  /** Names that the node has come to trust while it runs: who changes where they lead changes what it pulls. */
  readonly trustedHosts: () => Promise<readonly string[]>;
  readonly startChangeIp?: ChangeIpJob;
}

type NetworkHandlers = Pick<
  Handlers,
  'system.interfaces' | 'system.hostsFile' | 'system.setHostsFile' | 'command.changeHost'
>;

/** Operations on interfaces and the hosts file. */
export function networkHandlers(options: NetworkHandlerOptions): NetworkHandlers {
  return {
    'system.interfaces': async ({ query }, call) => ({
      data: await interfaces(options, query.testConnectivity === true, call.caller),
    }),
    'system.hostsFile': () => ({ data: options.hostsFile.entries() }),
    'system.setHostsFile': async ({ body }, call) => {
      const trusted = mayChangeProtected(call) ? undefined : await options.trustedHosts();
      if (call.dryRun) return { plan: hostsPlan(options.hostsFile, body.items, trusted) };
      return { data: await options.hostsFile.replace(body.items, trusted) };
    },
    'command.changeHost': ({ body }, call) => changeHost(options, body.ip, call),
  };
}

async function interfaces(options: NetworkHandlerOptions, measure: boolean, caller: Caller) {
  const { connectivity, rates } = options;
  const facts = options.facts();
  const links = facts.network.known ? shownLinks(facts.network.value) : [];
  // Anybody can ask; only who has proved something makes the node talk to the outside.
  if (measure && caller.class !== 'public' && caller.class !== 'loopback') {
    await Promise.all(links.map((link) => connectivity.measure(localAddresses(link))));
  }
  rates.keep(links.map(({ name }) => name));
  return interfaceRows({
    facts,
    dns: nameServers(options.files),
    rate: (device) => rates.of(device),
    connectivity: (device) => (measure ? connectivity.cached(device) : {}),
  });
}

function mayChangeProtected({ caller }: Call): boolean {
  return caller.class === 'owner' || caller.class === 'root';
}

function hostsPlan(
  hostsFile: HostsFile,
  items: readonly HostsEntry[],
  names: readonly string[] | undefined,
): DryRun {
  const { added, removed } = hostsFile.plan(items);
  const [trusted] = names === undefined ? [] : hostsFile.protectedOf([...added, ...removed], names);
  const step = (name: string, does: string) => ({ name, does, reversible: true });
  return {
    allowed: trusted === undefined,
    preconditions: [
      {
        name: 'trusted names',
        ok: trusted === undefined,
        reason: trusted === undefined ? 'none changes, or the owner asks' : protectedName(trusted).message,
      },
    ],
    steps: [
      ...removed.map(({ ip, host }) => step('remove', `remove ${host} (${ip}) from the hosts file`)),
      ...added.map(({ ip, host }) => step('add', `add ${host} (${ip}) to the hosts file`)),
    ],
  };
}

async function changeHost(options: NetworkHandlerOptions, ip: string, call: Call) {
  const facts = options.facts();
  const problem = addressProblem(facts, ip);
  const isInstalled = facts.install.known && facts.install.value.installed !== undefined;
  if (problem !== undefined) {
    if (call.dryRun) return { plan: refusedPlan(problem) };
    throw fault('invalid_address', problem, { field: 'ip' });
  }
  if (isInstalled) return changeInstalled(options.startChangeIp, ip, call);
  if (call.dryRun) return { plan: bindPlan(facts, ip) };
  await options.hostsFile.bind(ip);
  return { data: {} };
}

async function changeInstalled(job: ChangeIpJob | undefined, ip: string, call: Call) {
  if (job === undefined) {
    throw fault(
      'installer_unavailable',
      'This node is installed, and no installer is there to move its cluster.',
    );
  }
  if (call.dryRun) return { plan: await job.plan(ip) };
  return { data: { jobId: await job.start(ip, call.caller) } };
}

/** Why the address cannot be taken; undefined: it can. */
function addressProblem(facts: Facts, ip: string): string | undefined {
  if (!facts.network.known) return `The addresses of this node are not known: ${facts.network.reason}.`;
  const own = usableAddresses(facts.network.value)
    .map(({ address }) => address)
    .filter((address) => isIPv4(address));
  if (!own.includes(ip)) {
    return `${ip} is not an IPv4 address of this node; it has ${own.join(', ') || 'none'}.`;
  }
  const [bound] = facts.hosts.known ? facts.hosts.value.ownAddresses : [];
  return bound === ip && !isClusterBehind(facts) ? `${ip} is the host address already.` : undefined;
}

/** The name of the node is bound, by a change that failed half-way or by hand, but the cluster has not followed. */
function isClusterBehind(facts: Facts): boolean {
  const failed = facts.install.known && facts.install.value.ipChangeFailed;
  return failed || lostAddress(facts) !== undefined;
}

function refusedPlan(reason: string): DryRun {
  return { allowed: false, preconditions: [{ name: 'address', ok: false, reason }], steps: [] };
}

function bindPlan(facts: Facts, ip: string): DryRun {
  const name = facts.machine.known ? facts.machine.value.hostName : 'the name of this node';
  const before = facts.hosts.known ? facts.hosts.value.ownAddresses.join(', ') : '';
  return {
    allowed: true,
    preconditions: [{ name: 'address', ok: true, reason: `${ip} is an address of this node` }],
    steps: [
      {
        name: 'bind',
        does: `bind ${name} to ${ip} in the hosts file${before === '' ? '' : ` in place of ${before}`}`,
        reversible: true,
      },
    ],
  };
}
