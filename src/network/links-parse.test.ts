import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkKind } from '#network/link-kinds.ts';
import { isNews, parseDefaultRoutes, parseLinks } from '#network/links-parse.ts';

/** Shortened from `ip -j -d addr` of a machine with a bridge, a container engine, a VPN and a Wi-Fi card. */
const recorded = JSON.stringify([
  {
    ifindex: 1,
    ifname: 'lo',
    flags: ['LOOPBACK', 'UP', 'LOWER_UP'],
    mtu: 65536,
    link_type: 'loopback',
    address: '00:00:00:00:00:00',
    addr_info: [{ family: 'inet', local: '127.0.0.1', prefixlen: 8, scope: 'host' }],
  },
  {},
  {
    ifindex: 2,
    ifname: 'enp1s0',
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    mtu: 1500,
    master: 'vmbr0',
    link_type: 'ether',
    address: 'aa:bb:cc:00:11:22',
    addr_info: [],
  },
  {
    ifindex: 3,
    ifname: 'wlp2s0',
    flags: ['NO-CARRIER', 'BROADCAST', 'MULTICAST', 'UP'],
    mtu: 1500,
    link_type: 'ether',
    address: 'aa:bb:cc:00:11:23',
    addr_info: [],
  },
  {
    ifindex: 4,
    ifname: 'vmbr0',
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    mtu: 1500,
    link_type: 'ether',
    address: 'aa:bb:cc:00:11:22',
    linkinfo: { info_kind: 'bridge' },
    addr_info: [
      {
        family: 'inet',
        local: '192.168.1.10',
        prefixlen: 24,
        scope: 'global',
        dynamic: true,
        label: 'vmbr0',
      },
      { family: 'inet6', local: '2001:db8::1', prefixlen: 64, scope: 'global', tentative: true },
      { family: 'inet6', local: 'fe80::1', prefixlen: 64, scope: 'link' },
    ],
  },
  {
    ifindex: 5,
    ifname: 'tailscale0',
    flags: ['POINTOPOINT', 'MULTICAST', 'NOARP', 'UP', 'LOWER_UP'],
    mtu: 1280,
    link_type: 'none',
    linkinfo: { info_kind: 'tun' },
    addr_info: [{ family: 'inet', local: '100.64.0.9', prefixlen: 32, scope: 'global' }],
  },
]);

test('links of a recorded machine', () => {
  const links = parseLinks(recorded, (name) => name === 'wlp2s0');
  assert.deepEqual(
    links.map(({ name, kind, up, carrier, master }) => [name, kind, up, carrier, master]),
    [
      ['lo', 'loopback', true, true, undefined],
      ['enp1s0', 'ethernet', true, true, 'vmbr0'],
      ['wlp2s0', 'wifi', true, false, undefined],
      ['vmbr0', 'bridge', true, true, undefined],
      ['tailscale0', 'tunnel', true, true, undefined],
    ],
  );
  assert.deepEqual(links[3]?.addresses, [
    { address: '192.168.1.10', prefix: 24, family: 4, scope: 'global', dynamic: true },
    { address: 'fe80::1', prefix: 64, family: 6, scope: 'link', dynamic: false },
  ]);
});

test('a bridge that only containers or virtual machines are on is theirs, whatever it is called', () => {
  const link = (ifname: string, more: object) => ({ ifname, link_type: 'ether', flags: ['UP'], ...more });
  const bridge = { linkinfo: { info_kind: 'bridge' } };
  const port = (info_kind: string | undefined, master: string) => ({
    master,
    ...(info_kind === undefined ? {} : { linkinfo: { info_kind } }),
  });
  const links = parseLinks(
    JSON.stringify([
      link('hassio', bridge),
      link('veth0aa11bb', port('veth', 'hassio')),
      link('nerdctl0', bridge),
      link('labnet', bridge),
      link('tap0', port('tun', 'labnet')),
      link('br-lan', bridge),
      link('veth9', port('veth', 'br-lan')),
      link('enp1s0', { ...port(undefined, 'br-lan'), flags: [] }),
      link('br20', bridge),
      link('eno1.20', port('vlan', 'br20')),
      link('br-ap', bridge),
      link('wlan0', port(undefined, 'br-ap')),
      link('br-inside', bridge),
      link('eth0', port('veth', 'br-inside')),
    ]),
    (name) => name === 'wlan0',
  );
  const kinds = links.flatMap(({ name, kind }) => (kind === 'bridge' ? [name] : []));
  assert.deepEqual(kinds, ['br-lan', 'br20', 'br-ap', 'br-inside']);
  assert.ok(
    ['hassio', 'nerdctl0', 'labnet'].every(
      (name) => links.find((each) => each.name === name)?.kind === 'container',
    ),
  );
});

test('default routes come best first; dead and unreachable ones lead nowhere', () => {
  const routes = parseDefaultRoutes(
    JSON.stringify([
      { dst: 'default', gateway: '10.0.0.1', dev: 'eth1', metric: 200, flags: [] },
      { dst: 'default', gateway: '192.168.1.1', dev: 'eth0', protocol: 'dhcp', metric: 100, flags: [] },
      { dst: 'default', gateway: '10.5.0.1', dev: 'eth2', flags: ['linkdown'] },
      { type: 'unreachable', dst: 'default', dev: 'lo', metric: 4294967295, flags: [] },
      {
        dst: 'default',
        metric: 300,
        flags: [],
        nexthops: [
          { gateway: '10.6.0.1', dev: 'a', weight: 1, flags: [] },
          { via: { family: 'inet6', host: 'fe80::1' }, dev: 'b', weight: 1, flags: [] },
        ],
      },
      { dst: '10.0.0.0/24', dev: 'eth1', flags: [] },
    ]),
    4,
  );
  assert.deepEqual(
    routes.map(({ gateway, device, metric }) => [gateway, device, metric]),
    [
      ['192.168.1.1', 'eth0', 100],
      ['10.0.0.1', 'eth1', 200],
      ['10.6.0.1', 'a', 300],
      ['fe80::1', 'b', 300],
    ],
  );
  assert.deepEqual(parseDefaultRoutes('', 6), []);
});

test('what is no list is refused, not taken for "no links"', () => {
  assert.throws(() => parseLinks('{"a":1}', () => false), SyntaxError);
  assert.throws(() => parseLinks('Cannot open netlink socket', () => false), SyntaxError);
});

const kinds: readonly (readonly [string, string | undefined, string])[] = [
  ['eth0', undefined, 'ethernet'],
  ['enp3s0', undefined, 'ethernet'],
  ['usb0', undefined, 'ethernet'],
  ['eth0', 'veth', 'ethernet'],
  ['host0', 'veth', 'ethernet'],
  ['bond0', 'bond', 'bond'],
  ['eno1.20', 'vlan', 'vlan'],
  ['br0', 'bridge', 'bridge'],
  ['vmbr0', 'bridge', 'bridge'],
  ['br-lan', 'bridge', 'bridge'],
  ['br-0123456789ab', 'bridge', 'container'],
  ['docker0', 'bridge', 'container'],
  ['docker_gwbridge', 'bridge', 'container'],
  ['cni0', 'bridge', 'container'],
  ['virbr0', 'bridge', 'container'],
  ['flannel.1', 'vxlan', 'container'],
  ['cali123abc', 'veth', 'container'],
  ['veth12ab34', 'veth', 'container'],
  ['kube-ipvs0', 'dummy', 'container'],
  ['nodelocaldns', 'dummy', 'container'],
  ['tunl0', 'ipip', 'tunnel'],
  ['wg0', 'wireguard', 'tunnel'],
  ['wg-home', undefined, 'tunnel'],
  ['tailscale0', 'tun', 'tunnel'],
  ['tun0', 'tun', 'tunnel'],
  ['tap0', 'tun', 'tunnel'],
  ['vxlan5', 'vxlan', 'tunnel'],
];

for (const [name, infoKind, expected] of kinds) {
  test(`${name} (${infoKind ?? 'no kind'}) is ${expected}`, () => {
    assert.equal(linkKind({ name, type: 'ether', infoKind, wifi: false }), expected);
  });
}

test('only lines that can change what we know are news', () => {
  const links = parseLinks(recorded, (name) => name === 'wlp2s0');
  const news = [
    '9: eth9: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN group default \\    link/ether 02:00:00:00:00:09',
    '3: wlp2s0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default \\',
    '4: vmbr0    inet 192.168.1.99/24 scope global vmbr0\\       valid_lft forever preferred_lft forever',
    'Deleted 4: vmbr0    inet 192.168.1.10/24 scope global vmbr0\\',
    'Deleted 2: enp1s0: <BROADCAST> mtu 1500',
    'default via 192.168.1.1 dev vmbr0 proto dhcp metric 100 ',
    'Deleted default via 192.168.1.1 dev vmbr0 ',
  ];
  const old = [
    '',
    '2: enp1s0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq state UP master vmbr0 group default \\',
    '3: wlp2s0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc noop state DORMANT group default \\',
    '4: vmbr0    inet 192.168.1.10/24 brd 192.168.1.255 scope global dynamic vmbr0\\       valid_lft 3600sec',
    '4: vmbr0    inet6 2001:db8::1/64 scope global tentative \\       valid_lft forever',
    '192.168.1.0/24 dev vmbr0 proto kernel scope link src 192.168.1.10 ',
    'Deleted broadcast 10.9.0.255 dev va table local proto kernel scope link src 10.9.0.1 ',
    'multicast ff00::/8 dev vb table local proto kernel metric 256 pref medium',
  ];
  assert.deepEqual(
    news.filter((line) => !isNews(line, links)),
    [],
  );
  assert.deepEqual(
    old.filter((line) => isNews(line, links)),
    [],
  );
});
