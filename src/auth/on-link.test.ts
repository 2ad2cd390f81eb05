import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOnLink } from '#auth/on-link.ts';
import type { Link, LinkKind, NetworkFacts } from '#state/facts.ts';

function link(name: string, kind: LinkKind, ...addresses: string[]): Link {
  return {
    name,
    kind,
    up: true,
    carrier: true,
    mtu: 1500,
    mac: '',
    master: undefined,
    addresses: addresses.map((each) => {
      const [address = '', prefix = ''] = each.split('/');
      const family = address.includes(':') ? 6 : 4;
      return { address, prefix: Number(prefix), family, scope: 'global', dynamic: false };
    }),
  };
}

const network: NetworkFacts = {
  links: [
    link('lo', 'loopback', '127.0.0.1/8', '::1/128'),
    link('eth0', 'ethernet', '192.168.1.10/24', 'fd00:1::10/64', 'fe80::1/64'),
    link('wlan0', 'wifi', '10.0.0.5/8'),
    link('tailscale0', 'tunnel', '100.64.0.3/32', '10.8.0.1/24'),
    link('docker0', 'container', '172.17.0.1/16'),
    { ...link('eth1', 'ethernet', '192.168.2.10/24'), up: false },
  ],
  defaultRoutes: [],
};

test('a neighbour is in the subnet of a link that is up and no tunnel', () => {
  for (const address of ['192.168.1.77', '::ffff:192.168.1.77', '10.9.0.1', 'fd00:1::77', 'fe80::77%eth0']) {
    assert.ok(isOnLink(network, address, false), address);
  }
  for (const address of [
    '192.168.2.77',
    '8.8.8.8',
    '100.64.0.9',
    '10.8.0.2',
    '172.17.0.2',
    'fd00:2::1',
    '',
    'x',
  ]) {
    assert.ok(!isOnLink(network, address, false), address);
  }
});

test('our own addresses are no neighbours, and loopback only in a sandbox', () => {
  for (const address of ['192.168.1.10', '::ffff:192.168.1.10', '100.64.0.3', '127.0.0.1', '::1']) {
    assert.ok(!isOnLink(network, address, false), address);
  }
  assert.ok(isOnLink(network, '127.0.0.1', true));
  assert.ok(isOnLink(network, '::1', true));
  assert.ok(!isOnLink(network, '8.8.8.8', true));
});

test('a link-local address is undecided where a tunnel has link-local addresses too', () => {
  const tunnelled = { ...network, links: [...network.links, link('tun0', 'tunnel', 'fe80::9/64')] };
  assert.ok(!isOnLink(tunnelled, 'fe80::77', false));
});
