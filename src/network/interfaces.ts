import { isIPv4, isIPv6 } from 'node:net';
import type { Static } from 'typebox';
import type { NetworkInterfaceShape } from '#api/system.ts';
import type { Files } from '#host/files.ts';
import type { ConnectivityResult, LocalAddresses } from '#network/connectivity.ts';
import type { Rate } from '#network/rates.ts';
import { isOutward, isSelfAssigned } from '#state/addresses.ts';
import type { Facts, Link, NetworkFacts } from '#state/facts.ts';

export type InterfaceRow = Static<typeof NetworkInterfaceShape>;

/** Links that the list shows: what leads outward and has an address, and Wi-Fi devices in any case. */
export function shownLinks(network: NetworkFacts): Link[] {
  return network.links.filter(
    (link) => isOutward(link) && (link.kind === 'wifi' || link.addresses.length > 0),
  );
}

/** The addresses to measure from. */
export function localAddresses(link: Link): LocalAddresses {
  return {
    device: link.name,
    ipv4: link.addresses.find(({ family }) => family === 4)?.address,
    ipv6: globalV6(link)?.address,
  };
}

export interface InterfaceContext {
  readonly facts: Facts;
  readonly dns: readonly string[];
  readonly rate: (device: string) => Rate;
  readonly connectivity: (device: string) => ConnectivityResult;
}

/** One row for each IPv4 address of a link, so that every address that can be chosen is there to be chosen. */
export function interfaceRows(context: InterfaceContext): InterfaceRow[] {
  const { facts } = context;
  if (!facts.network.known) return [];
  const network = facts.network.value;
  return shownLinks(network).flatMap((link) => {
    const v4 = link.addresses.filter(({ family }) => family === 4);
    const shared = sharedKeys(link, network, context);
    if (v4.length === 0) return [{ ...shared, ip: '', isHostIp: isHostIp(facts, globalV6(link)?.address) }];
    return v4.map(({ address, prefix, dynamic }) => ({
      ...shared,
      ip: address,
      isHostIp: isHostIp(facts, address),
      ipv4Mask: maskOf(prefix),
      method: dynamic ? 'auto' : 'manual',
    }));
  });
}

function isHostIp(facts: Facts, address: string | undefined): boolean {
  return address !== undefined && facts.hostIp.known && facts.hostIp.value === address;
}

function sharedKeys(link: Link, network: NetworkFacts, context: InterfaceContext): InterfaceRow {
  const { facts, dns } = context;
  const isWifi = link.kind === 'wifi';
  const ssid = isWifi && facts.wifi.known && facts.wifi.value.connected ? facts.wifi.value.ssid : undefined;
  const gateway4 = gatewayOf(network, link, 4);
  const gateway6 = gatewayOf(network, link, 6);
  const dns4 = dns.filter((address) => isIPv4(address)).join(',');
  const dns6 = dns.filter((address) => isIPv6(address)).join(',');
  const v6 = globalV6(link)?.address;
  return {
    iface: link.name,
    ip: '',
    isHostIp: false,
    isWifi,
    ...(ssid === undefined ? {} : { ssid }),
    mtu: link.mtu,
    hostname: facts.machine.known ? facts.machine.value.hostName : '',
    ...(gateway4 === undefined ? {} : { ipv4Gateway: gateway4 }),
    ...(gateway6 === undefined ? {} : { ipv6Gateway: gateway6 }),
    ...(dns4 === '' ? {} : { ipv4DNS: dns4 }),
    ...(dns6 === '' ? {} : { ipv6DNS: dns6 }),
    ...(v6 === undefined ? {} : { ipv6Address: v6 }),
    ...context.rate(link.name),
    ...context.connectivity(link.name),
  };
}

function gatewayOf(network: NetworkFacts, link: Link, family: 4 | 6): string | undefined {
  return network.defaultRoutes.find((route) => route.family === family && route.device === link.name)
    ?.gateway;
}

function globalV6(link: Link) {
  return link.addresses.find(
    ({ family, scope, address }) => family === 6 && scope === 'global' && !isSelfAssigned(address),
  );
}

/** `24` → `255.255.255.0`. */
function maskOf(prefix: number): string {
  return [0, 8, 16, 24].map((start) => 256 - 2 ** (8 - Math.max(0, Math.min(8, prefix - start)))).join('.');
}

/**
 * Name servers that the machine asks (resolv.conf(5)); behind the stub of systemd-resolved those that it asks.
 * Unreadable: none are shown.
 */
export function nameServers(files: Files): string[] {
  const servers = serversIn(files, '/etc/resolv.conf');
  const isStub = servers.length > 0 && servers.every((address) => address.startsWith('127.'));
  if (!isStub) return servers;
  const behind = serversIn(files, '/run/systemd/resolve/resolv.conf');
  return behind.length > 0 ? behind : servers;
}

function serversIn(files: Files, path: string): string[] {
  try {
    const text = files.readText(path) ?? '';
    return [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].flatMap((match) => match[1] ?? []);
  } catch {
    return [];
  }
}
