import { inSubnet, isLoopback, plainAddress } from '#lib/net.ts';
import type { Facts, Link } from '#state/facts.ts';

const localKinds: readonly Link['kind'][] = ['ethernet', 'wifi', 'bridge', 'bond', 'vlan'];

function linksOf(facts: Facts): readonly Link[] {
  return facts.network.known ? facts.network.value.links : [];
}

/** One of this node's own addresses, loopback included. */
export function isOwnAddress(facts: Facts, address: string): boolean {
  const plain = plainAddress(address);
  if (isLoopback(plain)) return true;
  return linksOf(facts).some((link) => link.addresses.some((each) => each.address === plain));
}

/** In a network that this node is part of without a router or a tunnel between. Loopback is not: proxies come from there. */
export function isOnLink(facts: Facts, address: string): boolean {
  const plain = plainAddress(address);
  if (isLoopback(plain)) return false;
  return linksOf(facts)
    .filter((link) => link.up && localKinds.includes(link.kind))
    .some((link) => link.addresses.some((each) => inSubnet(plain, each.address, each.prefix)));
}

/** Names that a Host header may carry, lower case: the host's own, with `.local`, the profile's and the configured ones. */
export function ownNames(
  facts: Facts,
  mdns: { readonly hostPrefix: string; readonly hostNames: readonly string[] },
  configured: readonly string[],
): ReadonlySet<string> {
  const names = new Set([...mdns.hostNames, ...configured]);
  if (facts.machine.known) {
    const [short] = facts.machine.value.hostName.split('.');
    for (const name of [facts.machine.value.hostName, short ?? '']) {
      if (name !== '') names.add(name).add(`${name}.local`);
    }
    for (const last of linksOf(facts).flatMap((link) =>
      link.addresses.map((each) => each.address.split('.')[3]),
    )) {
      if (last !== undefined) names.add(`${mdns.hostPrefix}-${last}.local`).add(`${short}-${last}.local`);
    }
  }
  return new Set([...names].map((name) => name.toLowerCase()));
}
