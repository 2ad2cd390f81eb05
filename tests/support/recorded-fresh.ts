import { unknown } from '#lib/observed.ts';
import { at, day, docker, facts, link, machine, network, nothingInstalled, route, seen } from './machines.ts';
import type { RecordedMachine } from './recorded-machines.ts';

const unbound = seen({ ownAddresses: ['127.0.1.1'] });
const lan = (ip: string) => seen({ ownAddresses: [ip] });

/** Machines before an installation: networks of all kinds. */
export const freshMachines: readonly RecordedMachine[] = [
  {
    name: 'a Raspberry Pi on Wi-Fi, its Ethernet without a cable',
    facts: facts({
      machine: seen({
        ...machine,
        hostName: 'raspberrypi',
        deviceName: 'Raspberry Pi 5 Model B Rev 1.0',
        osArch: 'arm64',
        cpu: 'ARM Cortex-A76',
      }),
      network: seen(
        network(
          [link('eth0', 'ethernet', [], { carrier: false }), link('wlan0', 'wifi', ['192.168.0.47/24'])],
          route('wlan0', '192.168.0.1', 600),
        ),
      ),
      hosts: unbound,
    }),
    state: 'not-installed',
    conditions: ['host_address_unbound'],
    hostIp: '192.168.0.47',
  },
  {
    name: 'a NUC with Docker and its networks',
    facts: facts({
      network: seen(
        network(
          [
            docker,
            link('br-0123456789ab', 'container', ['172.18.0.1/16']),
            link('vetha1b2c3d', 'container'),
            link('enp3s0', 'ethernet', ['10.0.0.23/24']),
          ],
          route('enp3s0', '10.0.0.1'),
        ),
      ),
      hosts: unbound,
    }),
    state: 'not-installed',
    conditions: ['host_address_unbound'],
    hostIp: '10.0.0.23',
  },
  {
    name: 'a Proxmox host behind its bridge',
    facts: facts({
      network: seen(
        network(
          [
            link('enp1s0', 'ethernet', [], { master: 'vmbr0' }),
            link('vmbr0', 'bridge', ['192.168.10.5/24']),
            link('tap100i0', 'container'),
          ],
          route('vmbr0', '192.168.10.1', 0),
        ),
      ),
      hosts: lan('192.168.10.5'),
    }),
    state: 'not-installed',
    conditions: [],
    hostIp: '192.168.10.5',
  },
  {
    name: 'a server with a bond and a VLAN that leads out',
    facts: facts({
      network: seen(
        network(
          [link('bond0', 'bond', ['10.1.0.4/24']), link('bond0.20', 'vlan', ['10.20.0.4/24'])],
          route('bond0.20', '10.20.0.1', 0),
        ),
      ),
      hosts: unbound,
    }),
    state: 'not-installed',
    conditions: ['host_address_unbound'],
    hostIp: '10.20.0.4',
  },
  {
    name: 'a machine in a tailnet is named by its LAN address',
    facts: facts({
      network: seen(
        network(
          [
            link('tailscale0', 'tunnel', ['100.101.102.103/32']),
            link('eno1', 'ethernet', ['192.168.1.10/24']),
          ],
          route('eno1'),
        ),
      ),
      hosts: seen({ ownAddresses: [] }),
    }),
    state: 'not-installed',
    conditions: ['host_address_unbound'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'two network cards: the better metric leads',
    facts: facts({
      network: seen(
        network(
          [link('enp1s0', 'ethernet', ['10.0.0.2/24']), link('enp2s0', 'ethernet', ['192.168.5.2/24'])],
          route('enp1s0', '10.0.0.1', 200),
          route('enp2s0', '192.168.5.1', 100),
        ),
      ),
      hosts: unbound,
    }),
    state: 'not-installed',
    conditions: ['host_address_unbound'],
    hostIp: '192.168.5.2',
  },
  {
    name: 'two network cards: what the hosts file says outranks the route',
    facts: facts({
      network: seen(
        network(
          [link('enp1s0', 'ethernet', ['10.0.0.2/24']), link('enp2s0', 'ethernet', ['192.168.5.2/24'])],
          route('enp2s0', '192.168.5.1', 100),
        ),
      ),
      hosts: lan('10.0.0.2'),
    }),
    state: 'not-installed',
    conditions: [],
    hostIp: '10.0.0.2',
  },
  {
    name: 'cable and Wi-Fi in one network without a route: the cable is named',
    facts: facts({
      network: seen(
        network([link('wlan0', 'wifi', ['192.168.1.44/24']), link('eth0', 'ethernet', ['192.168.1.43/24'])]),
      ),
      hosts: unbound,
    }),
    state: 'not-installed',
    conditions: ['no_default_route', 'host_address_unbound'],
    hostIp: '192.168.1.43',
  },
  {
    name: 'a LAN without a router works',
    facts: facts({ network: seen(network([link('eth0', 'ethernet', ['192.168.1.10/24'])])) }),
    state: 'not-installed',
    conditions: ['no_default_route'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'only IPv6',
    facts: facts({
      network: seen(
        network([link('eth0', 'ethernet', ['fd00:1::2/64', 'fe80::1/64'])], route('eth0', 'fe80::ff', 1024)),
      ),
      hosts: unbound,
    }),
    state: 'not-installed',
    conditions: ['host_address_unbound'],
    hostIp: 'fd00:1::2',
  },
  {
    name: 'DHCP gave nothing: only an address that the machine made up',
    facts: facts({
      network: seen(network([link('eth0', 'ethernet', ['169.254.7.9/16', 'fe80::1/64'])])),
      hosts: unbound,
    }),
    state: 'network-not-ready',
    conditions: ['network_not_ready', 'host_address_unbound'],
    hostIp: undefined,
  },
  {
    name: 'no cable, and Docker has an address',
    facts: facts({
      network: seen(network([link('eth0', 'ethernet', [], { carrier: false }), docker])),
      hosts: unbound,
    }),
    state: 'network-not-ready',
    conditions: ['network_not_ready', 'host_address_unbound'],
    hostIp: undefined,
  },
  {
    name: 'a VPN alone does not make a network',
    facts: facts({
      network: seen(network([link('wg0', 'tunnel', ['10.8.0.2/24'])], route('wg0', '10.8.0.1'))),
      hosts: unbound,
    }),
    state: 'network-not-ready',
    conditions: ['network_not_ready', 'host_address_unbound'],
    hostIp: undefined,
  },
  {
    name: 'an interface that is switched off does not count',
    facts: facts({ network: seen(network([link('eth0', 'ethernet', ['192.168.1.10/24'], { up: false })])) }),
    state: 'network-not-ready',
    conditions: ['network_not_ready'],
    hostIp: undefined,
  },
  {
    name: 'the hosts file names an address that is gone',
    facts: facts({ hosts: lan('192.168.1.77') }),
    state: 'not-installed',
    conditions: ['host_address_gone'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'a container in which the one link is a veth',
    facts: facts({
      network: seen(network([link('host0', 'ethernet', ['10.0.0.99/24'])], route('host0', '10.0.0.1'))),
      hosts: lan('10.0.0.99'),
      bus: { available: false, reason: 'no such file' },
    }),
    state: 'not-installed',
    conditions: ['bus_unavailable'],
    hostIp: '10.0.0.99',
  },
  {
    name: 'the clock has not been set since the start',
    facts: facts({ clock: seen({ synchronised: false }) }),
    state: 'not-installed',
    conditions: ['clock_not_synchronised'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the disk is full',
    facts: facts({
      dataDir: seen({ path: '/var/lib/beosd', freeBytes: 0, totalBytes: 32e9, readOnly: false }),
      store: { durable: false, reason: 'database or disk is full', historyLostAt: undefined },
    }),
    state: 'not-installed',
    conditions: ['data_dir_full', 'store_unavailable'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the root file system went read-only',
    facts: facts({
      dataDir: seen({ path: '/var/lib/beosd', freeBytes: 1e10, totalBytes: 32e9, readOnly: true }),
      store: { durable: false, reason: 'attempt to write a readonly database', historyLostAt: at },
    }),
    state: 'not-installed',
    conditions: ['data_dir_read_only', 'store_unavailable'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the store was damaged and set aside',
    facts: facts({
      store: {
        durable: true,
        reason: 'file is not a database',
        historyLostAt: at - day,
        setAside: '/var/lib/beosd/beosd.db.damaged-1',
      },
    }),
    state: 'not-installed',
    conditions: ['store_damaged'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'the network cannot be observed: that is not "no network"',
    facts: facts({ network: unknown('links', at - day, 'ip is not installed') }),
    state: 'not-installed',
    conditions: ['facts_stale'],
    hostIp: undefined,
  },
  {
    name: 'the base folder cannot be read',
    facts: facts({ install: unknown('install-files', at - day, 'EIO: i/o error') }),
    state: 'system-error',
    conditions: ['facts_stale'],
    hostIp: '192.168.1.10',
  },
  {
    name: 'just started, nothing looked at yet',
    facts: facts({ network: unknown('links', at - 1000, 'not observed yet') }),
    state: 'checking',
    conditions: [],
    hostIp: undefined,
  },
  {
    name: 'an engine runs although nothing is installed',
    facts: facts({ install: seen({ ...nothingInstalled, engineRunning: true }) }),
    state: 'system-error',
    conditions: ['engine_without_installation'],
    hostIp: '192.168.1.10',
  },
];
