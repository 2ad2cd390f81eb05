import { isLoopback, plainAddress } from '#lib/net.ts';
import type { Facts, Link } from '#state/facts.ts';

function linksOf(facts: Facts): readonly Link[] {
  return facts.network.known ? facts.network.value.links : [];
}

/** One of this node's own addresses, loopback included. */
export function isOwnAddress(facts: Facts, address: string): boolean {
  const plain = plainAddress(address);
  if (isLoopback(plain)) return true;
  return linksOf(facts).some((link) => link.addresses.some((each) => each.address === plain));
}

/** Names that a Host header may carry, lower case: the host's own, with `.local`, the profile's and the configured ones. */
function ownNames(
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

/** {@link ownNames}, made anew only when the facts that it comes from have changed. */
export function rememberedNames(
  facts: () => Facts,
  mdns: Parameters<typeof ownNames>[1],
  configured: readonly string[],
): () => ReadonlySet<string> {
  let last:
    | { readonly machine: unknown; readonly network: unknown; readonly names: ReadonlySet<string> }
    | undefined;
  return () => {
    const { machine, network } = facts();
    if (last === undefined || last.machine !== machine || last.network !== network) {
      last = { machine, network, names: ownNames(facts(), mdns, configured) };
    }
    return last.names;
  };
}
