import { isIPv4 } from 'node:net';
import { plainAddress } from '#lib/net.ts';
import type { Link, LinkAddress, LinkKind, NetworkFacts } from '#state/facts.ts';

/** Links over which other machines of a person's network reach this one: never containers' or VPNs'. */
const outward: ReadonlySet<LinkKind> = new Set(['ethernet', 'wifi', 'bridge', 'bond', 'vlan', 'other']);

export function isOutward(link: Link): boolean {
  return outward.has(link.kind);
}

/** RFC 3927 and RFC 4291 §2.5.6: what a machine gives itself when nobody has given it anything. */
export function isSelfAssigned(address: string): boolean {
  return isIPv4(address) ? address.startsWith('169.254.') : /^fe[89ab]/i.test(address);
}

export interface UsableAddress extends LinkAddress {
  readonly link: Link;
}

/** Addresses under which the network around the node can reach it, in the order of the kernel's links. */
export function usableAddresses(network: NetworkFacts): UsableAddress[] {
  return network.links
    .filter((link) => link.up && isOutward(link))
    .flatMap((link) => link.addresses.filter(isUsable).map((address) => ({ ...address, link })));
}

function isUsable(address: LinkAddress): boolean {
  return address.scope === 'global' && !isSelfAssigned(address.address);
}

/** Whether any interface has the address, a VPN's or a container bridge's too. */
export function hasAddress(network: NetworkFacts, address: string): boolean {
  const wanted = plainAddress(address);
  return network.links.some((link) => link.addresses.some((own) => plainAddress(own.address) === wanted));
}
