import { BlockList, isIP, isIPv4 } from 'node:net';

/** `::ffff:10.0.0.1` is 10.0.0.1: sockets that listen on `::` report IPv4 peers in mapped form (RFC 4291 §2.5.5.2). */
export function plainAddress(address: string): string {
  const bare = address.replace(/%.*$/, '').toLowerCase();
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(bare);
  return mapped?.[1] && isIPv4(mapped[1]) ? mapped[1] : bare;
}

export function isLoopback(address: string): boolean {
  const plain = plainAddress(address);
  return plain === '::1' || (isIPv4(plain) && plain.startsWith('127.'));
}

/**
 * What a limit for each caller counts by: the IPv4 address, or the /64 of an IPv6 one, of which a single machine can have any
 * address that it likes (RFC 4291 §2.5.4).
 */
export function placeOf(address: string): string {
  const plain = plainAddress(address);
  if (isIP(plain) !== 6) return plain;
  const [before = '', after = ''] = plain.split('::').map((half) => half.replace(/\d+\.[\d.]+$/, '0:0'));
  const left = before.split(':').filter((group) => group !== '');
  const right = after.split(':').filter((group) => group !== '');
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0');
  return `${[...left, ...zeros, ...right].slice(0, 4).join(':')}::/64`;
}

/** True when `address` lies in `network/prefix`; false for anything that is no address. */
export function inSubnet(address: string, network: string, prefix: number): boolean {
  const plain = plainAddress(address);
  const family = isIP(plain);
  if (family === 0 || isIP(network) !== family) return false;
  const list = new BlockList();
  const type = family === 4 ? 'ipv4' : 'ipv6';
  list.addSubnet(network, prefix, type);
  return list.check(plain, type);
}

/** RFC 1123 host name: labels of letters, digits and hyphens, at most 253 characters. */
export function isHostName(name: string): boolean {
  if (name.length === 0 || name.length > 253) return false;
  return name.split('.').every((label) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(label));
}
