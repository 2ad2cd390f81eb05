import { isIPv4 } from 'node:net';
import { isLoopback } from '#lib/net.ts';
import { known, type Observed, unknown } from '#lib/observed.ts';
import { hasAddress, usableAddresses } from '#state/addresses.ts';
import { notObserved } from '#state/derive.ts';
import type { HostsFacts, NetworkFacts } from '#state/facts.ts';

/** An address that the node could be known by, best first. */
export interface HostIpCandidate {
  readonly address: string;
  readonly device: string;
}

export interface HostIpChoice {
  /** undefined: there is no address to choose. */
  readonly address: string | undefined;
  readonly because: 'hosts-file' | 'resolver' | 'kept' | 'default-route' | 'none';
  readonly candidates: readonly HostIpCandidate[];
  /** The address that the hosts file names, when no interface has it. */
  readonly gone: string | undefined;
}

/**
 * Addresses on interfaces that lead to the network around the node, never a container's or a VPN's: the device of the
 * default route (lowest metric) first, cable before Wi-Fi, IPv6 only where there is no IPv4 at all.
 */
export function candidates(network: NetworkFacts): HostIpCandidate[] {
  const usable = usableAddresses(network);
  const family = usable.some(({ address }) => isIPv4(address)) ? 4 : 6;
  const rank = (device: string): number => {
    const metrics = network.defaultRoutes.filter(
      (route) => route.device === device && route.family === family,
    );
    return metrics.length === 0 ? Number.POSITIVE_INFINITY : Math.min(...metrics.map(({ metric }) => metric));
  };
  return usable
    .filter((address) => address.family === family)
    .map(({ address, link }) => ({
      address,
      device: link.name,
      rank: rank(link.name),
      wifi: link.kind === 'wifi',
    }))
    .sort((a, b) => compareRank(a.rank, b.rank) || Number(a.wifi) - Number(b.wifi))
    .map(({ address, device }) => ({ address, device }));
}

function compareRank(a: number, b: number): number {
  return a === b ? 0 : a - b;
}

/**
 * The address that this node is known by. Pure. The hosts file is the truth as long as an interface has what it says;
 * then the address in use, so that a second route does not move the node; then what the resolver says; then the route.
 */
export function chooseHostIp(input: {
  readonly network: NetworkFacts;
  readonly hosts: Observed<HostsFacts>;
  readonly resolved: readonly string[];
  readonly current: string | undefined;
}): HostIpChoice {
  const { network, hosts } = input;
  const list = candidates(network);
  const bound = (hosts.known ? hosts.value.ownAddresses : []).filter((address) => !isLoopback(address));
  const inUse = { ...network, links: network.links.filter(({ up }) => up) };
  const held = bound.find((address) => hasAddress(inUse, address));
  const choice = (address: string | undefined, because: HostIpChoice['because']): HostIpChoice => ({
    address,
    because,
    candidates: list,
    gone: held === undefined ? bound[0] : undefined,
  });
  if (held !== undefined) return choice(held, 'hosts-file');
  const isCandidate = (address: string) => list.some((candidate) => candidate.address === address);
  if (input.current !== undefined && isCandidate(input.current)) return choice(input.current, 'kept');
  const resolved = input.resolved.find(isCandidate);
  if (resolved !== undefined) return choice(resolved, 'resolver');
  const [first] = list;
  return first === undefined ? choice(undefined, 'none') : choice(first.address, 'default-route');
}

/** An address that is away for less than this may come back: a lease that is renewed, a cable that is moved. */
export const goneAfterMs = 30_000;

export interface HostAddressOptions {
  readonly clock: { now(): number; monotonic(): number };
  /** Addresses that the resolver gives to our own name; asked only when the hosts file has none. May be empty. */
  readonly resolve: () => readonly string[];
  /** Writes the hosts file. Called once the bound address is gone for good; absent: the file is never overwritten. */
  readonly rebind?: (ip: string) => void;
  readonly onFact: (fact: Observed<string>) => void;
}

/**
 * Follows the host address over time.
 *
 * INVARIANTS: what the hosts file says is given up only after two observations without the address that lie at least
 * {@link goneAfterMs} apart; an address that comes back in between is as if it had never left; a hosts file that
 * could not be written is tried again no sooner than that.
 */
export class HostAddress {
  readonly #options: HostAddressOptions;
  #current: string | undefined;
  #goneSince: number | undefined;
  #candidates: readonly HostIpCandidate[] = [];

  constructor(options: HostAddressOptions) {
    this.#options = options;
  }

  /** What could be chosen instead, best first. */
  get candidates(): readonly HostIpCandidate[] {
    return this.#candidates;
  }

  /** To be called with every change of network or hosts file, and by the slow resync. */
  observe(network: Observed<NetworkFacts>, hosts: Observed<HostsFacts>): void {
    const { clock, onFact, resolve } = this.#options;
    if (!network.known || (!hosts.known && hosts.reason === notObserved)) return;
    const isBound = hosts.known && hosts.value.ownAddresses.some((address) => !isLoopback(address));
    const choice = chooseHostIp({
      network: network.value,
      hosts,
      resolved: isBound ? [] : resolve(),
      current: this.#current,
    });
    this.#candidates = choice.candidates;
    const address = this.#settle(choice);
    this.#current = address;
    onFact(
      address === undefined
        ? unknown('host-ip', clock.now(), 'no interface has an address')
        : known(address, `host-ip (${choice.because})`, clock.now()),
    );
  }

  #settle(choice: HostIpChoice): string | undefined {
    const { clock, rebind } = this.#options;
    const lost = choice.gone ?? (choice.address === this.#current ? undefined : this.#current);
    if (lost === undefined || choice.because === 'hosts-file') {
      this.#goneSince = undefined;
      return choice.address;
    }
    const first = this.#goneSince === undefined;
    this.#goneSince ??= clock.monotonic();
    if (first || clock.monotonic() - this.#goneSince < goneAfterMs) return this.#current ?? lost;
    if (choice.address === undefined) return undefined;
    if (choice.gone !== undefined && isIPv4(choice.address)) {
      // Writing it makes a new observation, also when it fails: the next try waits as long as the first did.
      this.#goneSince = clock.monotonic();
      rebind?.(choice.address);
    }
    return choice.address;
  }
}
