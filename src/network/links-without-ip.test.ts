import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { test } from 'node:test';
import { Files } from '#host/files.ts';
import { parseDefaultRoutes, parseLinks } from '#network/links-parse.ts';
import { ipv4Defaults, ipv6Defaults, readWithoutIp } from '#network/links-without-ip.ts';
import { usableAddresses } from '#state/addresses.ts';

test('default routes from /proc, best metric first, rejecting ones left out', () => {
  const v4 = [
    'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT',
    'eth1\t00000000\t0101A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0',
    'eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0',
    'ppp0\t00000000\t00000000\t0001\t0\t0\t300\t00000000\t0\t0\t0',
    'eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0',
  ].join('\n');
  assert.deepEqual(
    ipv4Defaults(v4).map(({ gateway, device, metric }) => [gateway, device, metric]),
    [
      ['192.0.2.1', 'eth0', 100],
      ['192.168.1.1', 'eth1', 200],
      [undefined, 'ppp0', 300],
    ],
  );
  const zero = '0'.repeat(32);
  const v6 = [
    `${zero} 00 ${zero} 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0`,
    `${zero} 00 ${zero} 00 ${zero} ffffffff 00000001 00000000 00200200       lo`,
    `fd000000000000000000000000000000 40 ${zero} 00 ${zero} 00000100 00000001 00000000 00000001     eth0`,
  ].join('\n');
  assert.deepEqual(ipv6Defaults(v6), [{ family: 6, gateway: 'fd00::1', device: 'eth0', metric: 1024 }]);
});

test('this machine read without `ip` is the machine that `ip` describes', {
  skip: spawnSync('ip', ['-V']).status === 0 ? false : 'needs iproute2 to compare with',
}, () => {
  const ip = (...args: string[]) => execFileSync('ip', ['-j', ...args], { encoding: 'utf8' });
  const mine = readWithoutIp(new Files(), networkInterfaces());
  const links = parseLinks(ip('-d', 'addr'), () => false);
  const theirs = { links, defaultRoutes: parseDefaultRoutes(ip('route', 'show', 'default'), 4) };
  const names = ({ links: all }: typeof mine) =>
    all
      .filter(({ up }) => up)
      .map(({ name, kind, mtu }) => [name, kind, mtu])
      .sort();
  const addresses = (facts: typeof mine) =>
    usableAddresses(facts)
      .map(({ address, prefix }) => `${address}/${prefix}`)
      .sort();
  assert.deepEqual(names(mine), names(theirs));
  assert.deepEqual(addresses(mine), addresses(theirs));
  assert.deepEqual(
    mine.defaultRoutes.filter(({ family }) => family === 4),
    theirs.defaultRoutes,
  );
});
