import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Files } from '#host/files.ts';
import { routeTo } from '#host/routes.ts';

const route4 = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
cni0\t00002A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
flannel.1\t00012A0A\t00012A0A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
caliabc\t05002A0A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
cni0\t06002A0A\t00000000\t0000\t0\t0\t0\tFFFFFFFF\t0\t0\t0
`;
const route6 = `fd420000000000000000000000000000 30 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     cni0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
`;

/** A machine with these routing tables. */
class RoutedFiles extends Files {
  override readText(path: string): string | undefined {
    return path === '/proc/net/route' ? route4 : path === '/proc/net/ipv6_route' ? route6 : undefined;
  }
}

const files = new RoutedFiles();

for (const [address, device, isDefault] of [
  ['10.42.0.7', 'cni0', false],
  ['10.42.0.5', 'caliabc', false],
  ['10.42.0.6', 'cni0', false],
  ['10.42.1.7', 'flannel.1', false],
  ['192.168.1.20', 'eth0', false],
  ['100.64.0.1', 'eth0', true],
  ['::ffff:10.42.0.7', 'cni0', false],
  ['fd42::7', 'cni0', false],
  ['2001:db8::1', 'eth0', true],
] as const) {
  test(`packets to ${address} leave through ${device}`, () => {
    assert.deepEqual(routeTo(files, address), { device, isDefault });
  });
}

test('a machine without routes has no way', () => {
  class Empty extends Files {
    override readText(): string | undefined {
      return undefined;
    }
  }
  assert.equal(routeTo(new Empty(), '10.0.0.1'), undefined);
});

test('the tables of this machine can be read', () => {
  assert.doesNotThrow(() => routeTo(new Files(), '192.0.2.1'));
  assert.doesNotThrow(() => routeTo(new Files(), '2001:db8::1'));
});
