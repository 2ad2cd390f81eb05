import { isIPv4 } from 'node:net';
import type { networkInterfaces } from 'node:os';
import { basename } from 'node:path';
import type { Files } from '#host/files.ts';
import { linkKind, withBridgesTold } from '#network/link-kinds.ts';
import { isSelfAssigned } from '#state/addresses.ts';
import type { DefaultRoute, Link, LinkAddress, NetworkFacts } from '#state/facts.ts';

type Interfaces = ReturnType<typeof networkInterfaces>;

/**
 * Links, addresses and default routes of a machine without iproute2, from /sys, /proc and getifaddrs(3). It lacks
 * what only netlink tells: leases (`dynamic`), addresses of interfaces that are down, kinds that /sys does not name.
 */
export function readWithoutIp(files: Files, interfaces: Interfaces): NetworkFacts {
  const names = files.list('/sys/class/net');
  return {
    links: withBridgesTold(names.flatMap((name) => linkOf(files, name, interfaces) ?? [])),
    defaultRoutes: [...defaultRoutes(files, 4), ...defaultRoutes(files, 6)],
  };
}

/** From the kernel's main table; throws when it cannot be read. */
export function defaultRoutes(files: Files, family: 4 | 6): DefaultRoute[] {
  return family === 4
    ? ipv4Defaults(files.readText('/proc/net/route') ?? '')
    : ipv6Defaults(files.readText('/proc/net/ipv6_route') ?? '');
}

/** ARPHRD_* of if_arp.h, as `ip` names them. */
const linkTypes: Readonly<Record<string, string>> = { '1': 'ether', '772': 'loopback', '512': 'ppp' };
const IFF_UP = 0x1;

function linkOf(files: Files, name: string, interfaces: Interfaces): Link | undefined {
  const at = `/sys/class/net/${name}`;
  const read = (file: string) => quietText(files, `${at}/${file}`);
  const type = read('type');
  if (type === undefined) return undefined; // gone, or bonding_masters, which is a plain file
  const devType = /^DEVTYPE=(.+)$/m.exec(read('uevent') ?? '')?.[1];
  const infoKind = files.exists(`${at}/tun_flags`) ? 'tun' : devType;
  const master = files.realPath(`${at}/master`);
  return {
    name,
    kind: linkKind({ name, type: linkTypes[type] ?? 'none', infoKind, wifi: devType === 'wlan' }),
    up: (Number(read('flags') ?? 0) & IFF_UP) !== 0,
    carrier: read('carrier') === '1',
    mtu: Number(read('mtu') ?? 0),
    mac: read('address') ?? '',
    master: master === undefined ? undefined : basename(master),
    addresses: addressesOf(name, interfaces),
  };
}

function addressesOf(name: string, interfaces: Interfaces): LinkAddress[] {
  // A second IPv4 address may carry a label: `eth0:1`.
  const own = Object.entries(interfaces).filter(([label]) => label.replace(/:.*$/, '') === name);
  return own.flatMap(([, list]) =>
    (list ?? []).map(({ address, cidr, internal }) => ({
      address,
      prefix: Number(cidr?.split('/')[1] ?? 0),
      family: isIPv4(address) ? 4 : 6,
      scope: internal ? 'host' : !isIPv4(address) && isSelfAssigned(address) ? 'link' : 'global',
      dynamic: false,
    })),
  );
}

const RTF_UP = 0x1;
const RTF_REJECT = 0x200;

/** /proc/net/route: addresses as hexadecimal numbers in the byte order of the machine, which is little-endian. */
export function ipv4Defaults(text: string): DefaultRoute[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line): DefaultRoute[] => {
      const [device, destination, gateway = '', flags, , , metric, mask] = line.trim().split(/\s+/);
      if (device === undefined || destination !== '00000000' || mask !== '00000000') return [];
      if (!isLive(flags)) return [];
      const bytes = [6, 4, 2, 0].map((start) => Number.parseInt(gateway.slice(start, start + 2), 16));
      return [{ family: 4, gateway: noGateway(bytes.join('.'), '0.0.0.0'), device, metric: Number(metric) }];
    })
    .sort((a, b) => a.metric - b.metric);
}

/** /proc/net/ipv6_route: all numbers hexadecimal, addresses as 32 digits. */
export function ipv6Defaults(text: string): DefaultRoute[] {
  return text
    .split('\n')
    .flatMap((line): DefaultRoute[] => {
      const [destination, prefix, , , gateway = '', metric = '', , , flags, device] = line
        .trim()
        .split(/\s+/);
      if (device === undefined || device === 'lo' || prefix !== '00' || !/^0+$/.test(destination ?? ''))
        return [];
      if (!isLive(flags)) return [];
      const groups = gateway.match(/.{4}/g)?.map((group) => group.replace(/^0+(?=.)/, '')) ?? [];
      const plain = new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
      return [{ family: 6, gateway: noGateway(plain, '::'), device, metric: Number.parseInt(metric, 16) }];
    })
    .sort((a, b) => a.metric - b.metric);
}

function isLive(flags: string | undefined): boolean {
  const bits = Number.parseInt(flags ?? '0', 16);
  return (bits & RTF_UP) !== 0 && (bits & RTF_REJECT) === 0;
}

function noGateway(gateway: string, none: string): string | undefined {
  return gateway === none ? undefined : gateway;
}

/** Interfaces come and go, and `carrier` of one that is down cannot be read. */
function quietText(files: Files, path: string): string | undefined {
  try {
    return files.readText(path)?.trim();
  } catch {
    return undefined;
  }
}
