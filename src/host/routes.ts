import { BlockList, isIPv4 } from 'node:net';
import type { Files } from '#host/files.ts';
import { plainAddress } from '#lib/net.ts';

interface Route {
  readonly device: string;
  readonly prefix: number;
  readonly metric: number;
}

/**
 * The device through which packets to `address` leave, by the kernel's main routing table (/proc/net/route,
 * /proc/net/ipv6_route: proc_net(5)), and whether only the default route leads there. Undefined: no route. A read of one
 * small file: cheap enough for a request.
 */
export function routeTo(files: Files, address: string): { device: string; isDefault: boolean } | undefined {
  const plain = plainAddress(address);
  const routes = isIPv4(plain)
    ? routes4(files.readText('/proc/net/route') ?? '', plain)
    : routes6(files.readText('/proc/net/ipv6_route') ?? '', plain);
  const [best] = routes.sort((a, b) => b.prefix - a.prefix || a.metric - b.metric);
  return best && { device: best.device, isDefault: best.prefix === 0 };
}

const up = 0x1;
const reject = 0x200;

function routes4(table: string, address: string): Route[] {
  const target = toNumber(address.split('.').map(Number));
  return table.split('\n').flatMap((line) => {
    const [device = '', destination = '', , flags = '', , , metric = '', mask = ''] = line.split('\t');
    if (!/^[0-9A-F]{8}$/.test(destination) || !/^[0-9A-F]{8}$/.test(mask.trim())) return [];
    const bits = Number.parseInt(flags, 16);
    const [net, wide] = [littleEndian(destination), littleEndian(mask.trim())];
    if ((bits & up) === 0 || (bits & reject) !== 0 || (target & wide) >>> 0 !== net) return [];
    return [{ device, prefix: ones(wide), metric: Number(metric) }];
  });
}

/** The kernel prints the bytes of the address as one number of the machine; all machines that we run on are little-endian. */
function littleEndian(hex: string): number {
  return toNumber([...Buffer.from(hex, 'hex')].reverse());
}

function toNumber(bytes: readonly number[]): number {
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

function ones(mask: number): number {
  return mask.toString(2).replaceAll('0', '').length;
}

function routes6(table: string, address: string): Route[] {
  return table.split('\n').flatMap((line) => {
    const parts = line.trim().split(/\s+/);
    const [destination = '', length = '', , , , metric = '', , , flags = '', device = ''] = parts;
    if (!/^[0-9a-f]{32}$/.test(destination)) return [];
    const [prefix, bits] = [Number.parseInt(length, 16), Number.parseInt(flags, 16)];
    const network = (destination.match(/.{4}/g) ?? []).join(':');
    const list = new BlockList();
    list.addSubnet(network, prefix, 'ipv6');
    if ((bits & up) === 0 || (bits & reject) !== 0 || !list.check(address, 'ipv6')) return [];
    return [{ device, prefix, metric: Number.parseInt(metric, 16) }];
  });
}
