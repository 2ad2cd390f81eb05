import { inSubnet, isLoopback, plainAddress } from '#lib/net.ts';
import type { Link, LinkAddress, LinkKind, NetworkFacts } from '#state/facts.ts';

/** Links by which a neighbour is reached; a tunnel leads elsewhere, and a container is not a person at the machine. */
const neighbourly: readonly LinkKind[] = ['ethernet', 'wifi', 'bridge', 'bond', 'vlan'];

/**
 * Whether an address is a neighbour's: in the subnet of a link of ours that is no tunnel, and in no narrower one of a link that is.
 * Our own addresses are not: user-space VPNs and proxies speak from there (contract §5).
 *
 * @param sandbox nobody but this machine reaches a sandbox, so there loopback is the link (contract §8)
 */
export function isOnLink(network: NetworkFacts, address: string, sandbox: boolean): boolean {
  const plain = plainAddress(address);
  if (isLoopback(plain)) return sandbox;
  const links = network.links.filter((link) => link.up);
  if (links.some((link) => link.addresses.some((own) => plainAddress(own.address) === plain))) return false;
  const near = longestPrefix(links, plain, (link) => neighbourly.includes(link.kind));
  const far = longestPrefix(links, plain, (link) => !neighbourly.includes(link.kind));
  return near > 0 && near > far;
}

/** Prefix length of the narrowest subnet that the address lies in; 0: none. A host route of its own makes no neighbour. */
function longestPrefix(links: readonly Link[], address: string, counts: (link: Link) => boolean): number {
  const holds = (own: LinkAddress) =>
    own.prefix > 0 && inSubnet(address, plainAddress(own.address), own.prefix);
  const prefixes = links
    .filter(counts)
    .flatMap((link) => link.addresses.filter(holds).map((own) => own.prefix));
  return Math.max(0, ...prefixes);
}
