import { linkKind, withBridgesTold } from '#network/link-kinds.ts';
import type { DefaultRoute, Link, LinkAddress } from '#state/facts.ts';

type Json = Readonly<Record<string, unknown>>;

/**
 * Links from `ip -j -d addr`. `isWifi` tells a wireless device from /sys, as the kernel's link type does not.
 * Throws SyntaxError on what is no JSON list; single odd entries are left out.
 */
export function parseLinks(text: string, isWifi: (name: string) => boolean): Link[] {
  const links = rows(text).flatMap((row): Link[] => {
    const name = row['ifname'];
    if (typeof name !== 'string') return [];
    const flags = strings(row['flags']);
    const info = asObject(row['linkinfo']);
    return [
      {
        name,
        kind: linkKind({
          name,
          type: String(row['link_type'] ?? ''),
          infoKind: textOf(info?.['info_kind']),
          wifi: isWifi(name),
        }),
        up: flags.includes('UP'),
        carrier: flags.includes('LOWER_UP'),
        mtu: numberOf(row['mtu']) ?? 0,
        mac: textOf(row['address']) ?? '',
        master: textOf(row['master']),
        addresses: objects(row['addr_info']).flatMap(parseAddress),
      },
    ];
  });
  return withBridgesTold(links);
}

function parseAddress(info: Json): LinkAddress[] {
  const family = info['family'] === 'inet' ? 4 : info['family'] === 'inet6' ? 6 : undefined;
  const address = textOf(info['local']);
  // Not in use (yet): duplicate detection still runs, or has found somebody else with it.
  if (
    family === undefined ||
    address === undefined ||
    info['tentative'] === true ||
    info['dadfailed'] === true
  ) {
    return [];
  }
  const scope = info['scope'] === 'link' || info['scope'] === 'host' ? info['scope'] : 'global';
  return [
    { address, prefix: numberOf(info['prefixlen']) ?? 0, family, scope, dynamic: info['dynamic'] === true },
  ];
}

/** Default routes from `ip -j route show default` (or `-6`), best metric first. */
export function parseDefaultRoutes(text: string, family: 4 | 6): DefaultRoute[] {
  return rows(text)
    .filter((row) => row['dst'] === 'default' && isLive(row))
    .flatMap((row) => {
      const metric = numberOf(row['metric']) ?? 0;
      const hops = [row, ...objects(row['nexthops'])];
      return hops.flatMap((hop): DefaultRoute[] => {
        const device = textOf(hop['dev']);
        if (device === undefined || device === 'lo' || !isLive(hop)) return [];
        return [{ family, gateway: gatewayOf(hop), device, metric }];
      });
    })
    .sort((a, b) => a.metric - b.metric);
}

/** `unreachable default`, and routes whose link has no carrier, lead nowhere. */
function isLive(row: Json): boolean {
  const type = row['type'] ?? 'unicast';
  const flags = strings(row['flags']);
  return type === 'unicast' && !flags.includes('dead') && !flags.includes('linkdown');
}

function gatewayOf(hop: Json): string | undefined {
  return textOf(hop['gateway']) ?? textOf(asObject(hop['via'])?.['host']);
}

/**
 * Whether a line of `ip -o monitor link address route` can mean that something we look at has changed. Renewed
 * leases, router advertisements, scans of a Wi-Fi card and routes other than the default one say nothing new.
 */
export function isNews(line: string, links: readonly Link[]): boolean {
  const text = line.trim();
  if (text === '' || text.startsWith('\\')) return false;
  if (text.startsWith('Deleted')) return /^Deleted\s+(\d+:|default\b)/.test(text);
  const address = /^\d+:\s+(\S+)\s+inet6?\s+([0-9a-fA-F:.]+)(?:\/\d+|\s)/.exec(text);
  if (address) return !/\btentative\b/.test(text) && !hasOn(links, address[1], address[2]);
  const link = /^\d+:\s+([^:@\s]+)(?:@[^:\s]+)?:\s+<([^>]*)>\s+mtu\s+(\d+)/.exec(text);
  if (link)
    return !isSameLink(links, link[1], link[2] ?? '', Number(link[3]), /\bmaster\s+(\S+)/.exec(text)?.[1]);
  return /\bdefault\b/.test(text) || /^\d+:/.test(text);
}

function hasOn(links: readonly Link[], name: string | undefined, address: string | undefined): boolean {
  const link = links.find((candidate) => candidate.name === name);
  return link?.addresses.some((own) => own.address === address) ?? false;
}

function isSameLink(
  links: readonly Link[],
  name: string | undefined,
  flagText: string,
  mtu: number,
  master: string | undefined,
): boolean {
  const link = links.find((candidate) => candidate.name === name);
  if (link === undefined) return false;
  const flags = flagText.split(',');
  return (
    link.up === flags.includes('UP') &&
    link.carrier === flags.includes('LOWER_UP') &&
    link.mtu === mtu &&
    link.master === master
  );
}

function rows(text: string): Json[] {
  const parsed: unknown = JSON.parse(text.trim() === '' ? '[]' : text);
  if (!Array.isArray(parsed)) throw new SyntaxError('ip did not print a list');
  return objects(parsed);
}

function asObject(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

function objects(value: unknown): Json[] {
  return Array.isArray(value) ? value.map(asObject).filter((item) => item !== undefined) : [];
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined;
}
