import type { Link, LinkKind } from '#state/facts.ts';

/** What the kernel calls the kinds of virtual links (rtnetlink IFLA_INFO_KIND), as far as a kind says it all. */
const byKernel: Readonly<Record<string, LinkKind>> = {
  bond: 'bond',
  team: 'bond',
  vlan: 'vlan',
  tun: 'tunnel',
  wireguard: 'tunnel',
  ipip: 'tunnel',
  ip6tnl: 'tunnel',
  sit: 'tunnel',
  gre: 'tunnel',
  gretap: 'tunnel',
  ip6gre: 'tunnel',
  ip6gretap: 'tunnel',
  vti: 'tunnel',
  vti6: 'tunnel',
  xfrm: 'tunnel',
  l2tp: 'tunnel',
  amt: 'tunnel',
  // Only within this machine: nobody outside reaches it by them.
  dummy: 'container',
  ifb: 'container',
  nlmon: 'container',
  netkit: 'container',
};

/** Names that container engines, cluster networks and hypervisors give to what they make. */
const containerNames =
  /^(docker|cni|flannel|cali|cilium|lxc|lxd|podman|weave|antrea|ovn|ovs|kube-|nodelocaldns|virbr|vnet|veth|vxlan\.calico|dummy|ifb|incusbr|fwbr|fwpr|fwln|tap\d+i\d+|br-[0-9a-f]{12}$|vb-|ve-)/;
const tunnelNames = /^(tunl|wg|tailscale|zt|nebula|tun|tap|utun|gre|sit|ip6tnl|ipsec|nordlynx|proton)/;

/**
 * What kind of link it is: by what the kernel says first, by name where that leaves a choice (a bridge may be the
 * host's or an engine's; a veth may be the one link of a container that we run in).
 */
export function linkKind(link: {
  readonly name: string;
  /** `loopback`, `ether`, `none`, `ppp` … (ARPHRD). */
  readonly type: string;
  readonly infoKind: string | undefined;
  readonly wifi: boolean;
}): LinkKind {
  const { name, type, infoKind } = link;
  if (type === 'loopback') return 'loopback';
  if (link.wifi) return 'wifi';
  const certain = infoKind === undefined ? undefined : byKernel[infoKind];
  if (certain !== undefined) return certain;
  if (containerNames.test(name)) return 'container';
  if (infoKind === 'bridge') return 'bridge';
  if (infoKind === 'vxlan' || infoKind === 'geneve' || tunnelNames.test(name)) return 'tunnel';
  return type === 'ether' ? 'ethernet' : 'other';
}

const ports: ReadonlySet<LinkKind> = new Set(['ethernet', 'wifi', 'bond', 'vlan']);

/**
 * Tells the host's bridges from those of container engines and hypervisors whatever they are called (`hassio`,
 * `nerdctl0`, one that a person has named): a bridge without any port that leads out of the machine leads only to what
 * runs inside it.
 */
export function withBridgesTold(links: readonly Link[]): Link[] {
  const leadsOut = (bridge: Link) =>
    links.some((link) => link.master === bridge.name && ports.has(link.kind));
  return links.map((link) =>
    link.kind === 'bridge' && !leadsOut(link) ? { ...link, kind: 'container' } : link,
  );
}
