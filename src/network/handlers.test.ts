import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { CallerClass } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Call } from '#api/operation.ts';
import { systemClock } from '#host/clock.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import { Connectivity, type ProbeTarget } from '#network/connectivity.ts';
import { ExternalIp } from '#network/external-ip.ts';
import { type ChangeIpJob, networkHandlers } from '#network/handlers.ts';
import { HostsFile } from '#network/hosts-file.ts';
import { LinkRates } from '#network/rates.ts';
import type { Facts } from '#state/facts.ts';
import {
  clustered,
  docker,
  facts,
  installed,
  link,
  network,
  route,
  seen,
} from '../../tests/support/machines.ts';

function call(callerClass: CallerClass, dryRun = false): Call {
  return {
    caller: { class: callerClass, proof: callerClass === 'public' ? 'none' : 'socket' },
    signal: new AbortController().signal,
    requestId: 'r1',
    dryRun,
  };
}

function handlers(
  some: Facts,
  more: { startChangeIp?: ChangeIpJob; targets?: ProbeTarget[]; trustedHosts?: () => Promise<string[]> } = {},
) {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-network-'));
  const path = join(folder, 'hosts');
  writeFileSync(path, '127.0.0.1 localhost\n10.0.0.9 gate.example.com\n');
  const files = new Files();
  const hostsFile = new HostsFile({
    files,
    clock: systemClock,
    path,
    lockPath: join(folder, 'lock'),
    hostName: () => 'beos',
    protectedNames: ['gate.example.com'],
    onFacts: () => undefined,
  });
  const clock = new FakeClock();
  const all = networkHandlers({
    facts: () => some,
    files,
    hostsFile,
    rates: new LinkRates(files, clock),
    connectivity: new Connectivity({ clock, targets: more.targets ?? [], timeoutMs: 2000 }),
    trustedHosts: more.trustedHosts ?? (async () => []),
    ...(more.startChangeIp ? { startChangeIp: more.startChangeIp } : {}),
  });
  const changeHost = (ip: string, dryRun = false) =>
    all['command.changeHost']({ params: {}, query: {}, body: { ip } }, call('owner', dryRun));
  const interfaces = async (testConnectivity: boolean, callerClass: CallerClass = 'owner') => {
    const reply = await all['system.interfaces'](
      { params: {}, query: { testConnectivity }, body: undefined },
      call(callerClass),
    );
    return reply.data;
  };
  const setHosts = (items: { ip: string; host: string }[], callerClass: CallerClass, dryRun = false) =>
    all['system.setHostsFile']({ params: {}, query: {}, body: { items } }, call(callerClass, dryRun));
  return { path, changeHost, interfaces, setHosts, clock };
}

const mixed = facts({
  hostIp: seen('192.168.1.10'),
  hosts: seen({ ownAddresses: [] }),
  network: seen(
    network(
      [
        link('eth0', 'ethernet', ['192.168.1.10/24', '192.168.2.10/20', 'fd00::2/64', 'fe80::1/64']),
        link('wlan0', 'wifi', [], { carrier: false }),
        link('eth1', 'ethernet', [], { carrier: false }),
        docker,
        link('tailscale0', 'tunnel', ['100.64.0.1/32']),
      ],
      route('eth0'),
      route('eth0', 'fe80::ff'),
    ),
  ),
  wifi: seen({ connected: false, ssid: undefined }),
});

test('interfaces: what leads outward with an address, Wi-Fi in any case, one row for each IPv4 address', async () => {
  const rows = await handlers(mixed).interfaces(false);
  assert.deepEqual(
    rows.map(({ iface, ip, isHostIp, isWifi, ipv4Mask }) => [iface, ip, isHostIp, isWifi, ipv4Mask]),
    [
      ['eth0', '192.168.1.10', true, false, '255.255.255.0'],
      ['eth0', '192.168.2.10', false, false, '255.255.240.0'],
      ['wlan0', '', false, true, undefined],
    ],
  );
  assert.deepEqual(
    [rows[0]?.ipv4Gateway, rows[0]?.ipv6Gateway, rows[0]?.ipv6Address, rows[0]?.method, rows[0]?.hostname],
    ['192.168.1.1', 'fe80::ff', 'fd00::2', 'auto', 'beos'],
  );
});

const local = facts({ network: seen(network([link('eth0', 'ethernet', ['127.0.0.1/8'])])) });

test('connectivity is measured once for all who ask at a time, kept for 30 s, and the public only sees what is kept', async (t) => {
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const bound = server.address();
  assert.ok(typeof bound === 'object' && bound !== null);
  const { interfaces, clock } = handlers(local, {
    targets: [{ host: '127.0.0.1', port: bound.port, family: 4 }],
  });
  const connected = async (who: CallerClass) => (await interfaces(true, who))[0]?.internetConnected;
  assert.equal(await connected('public'), undefined);
  assert.deepEqual(await Promise.all([connected('owner'), connected('workload'), connected('root')]), [
    true,
    true,
    true,
  ]);
  assert.equal(await connected('public'), true);
  assert.equal(connections, 1);
  await clock.advance(30_000);
  assert.equal(await connected('public'), undefined);
  server.close();
  assert.equal(await connected('owner'), false);
});

test('without targets, as in the sandbox, nothing is measured', async () => {
  const [row] = await handlers(local).interfaces(true);
  assert.deepEqual([row?.internetConnected, row?.ipv6Connectivity], [undefined, undefined]);
});

test('rates are bytes per second, never negative, and nothing is said after one sample', async () => {
  let bytes = 1000;
  class Counters extends Files {
    override readText(): string {
      return `${bytes}\n`;
    }
  }
  const clock = new FakeClock();
  const rates = new LinkRates(new Counters(), clock);
  assert.deepEqual(rates.of('eth0'), {});
  await clock.advance(2000);
  bytes = 5000;
  assert.deepEqual(rates.of('eth0'), { rxRate: 2000, txRate: 2000 });
  await clock.advance(100);
  assert.deepEqual(rates.of('eth0'), { rxRate: 2000, txRate: 2000 });
  await clock.advance(1000);
  bytes = 10;
  assert.deepEqual(rates.of('eth0'), {});
  await clock.advance(1000);
  assert.deepEqual(rates.of('eth0'), { rxRate: 0, txRate: 0 });
});

test('change-host binds an address of this node, once', async () => {
  const { changeHost, path } = handlers(mixed);
  for (const ip of ['8.8.8.8', '172.17.0.1', '100.64.0.1', '127.0.0.1', '224.0.0.1']) {
    await assert.rejects(async () => changeHost(ip), { code: 'invalid_address' }, ip);
  }
  const before = readFileSync(path, 'utf8');
  const planned = await changeHost('192.168.2.10', true);
  assert.ok('plan' in planned && planned.plan.allowed && planned.plan.steps.length === 1);
  assert.equal(readFileSync(path, 'utf8'), before);
  await changeHost('192.168.2.10');
  assert.equal(readFileSync(path, 'utf8'), `${before}192.168.2.10\tbeos\n`);
  const { changeHost: again } = handlers({ ...mixed, hosts: seen({ ownAddresses: ['192.168.2.10'] }) });
  await assert.rejects(async () => again('192.168.2.10'), { code: 'invalid_address', message: /already/ });
});

test('on an installed node change-host starts the job, which binds the name itself', async () => {
  const started: string[] = [];
  const job: ChangeIpJob = {
    plan: () => ({ allowed: true, preconditions: [], steps: [] }),
    start: (ip) => {
      started.push(ip);
      return 'job-1';
    },
  };
  const installed = clustered({}, { network: mixed.network });
  const { changeHost, path } = handlers(installed, { startChangeIp: job });
  const before = readFileSync(path, 'utf8');
  assert.ok('plan' in (await changeHost('192.168.2.10', true)));
  assert.deepEqual(started, []);
  assert.deepEqual(await changeHost('192.168.2.10'), { data: { jobId: 'job-1' } });
  assert.deepEqual([started, readFileSync(path, 'utf8')], [['192.168.2.10'], before]);
  const { changeHost: without } = handlers(installed);
  await assert.rejects(async () => without('192.168.2.10'), { code: 'installer_unavailable' });
});

test('a change that failed after the name was bound, and a cluster that was left behind, can be tried again', async () => {
  const started: string[] = [];
  const startChangeIp: ChangeIpJob = {
    plan: () => ({ allowed: true, preconditions: [], steps: [] }),
    start: (ip) => String(started.push(ip)),
  };
  const bound = (ip: string, more: Partial<Facts>) =>
    handlers(clustered({}, { hosts: seen({ ownAddresses: [ip] }), ...more }), { startChangeIp }).changeHost(
      ip,
    );
  const moved = seen(network([link('eth0', 'ethernet', ['192.168.1.88/24'])], route('eth0')));
  await bound('192.168.1.88', { network: moved });
  await bound('192.168.1.10', { install: seen({ ...installed, ipChangeFailed: true }) });
  assert.deepEqual(started, ['192.168.1.88', '192.168.1.10']);
  await assert.rejects(async () => bound('192.168.1.10', {}), {
    code: 'invalid_address',
    message: /already/,
  });
});

test('hosts file: the dry run says what would change and who may, and changes nothing', async () => {
  const { setHosts, path } = handlers(facts());
  const before = readFileSync(path, 'utf8');
  const items = [{ ip: '10.0.0.8', host: 'nas' }];
  const asWorkload = await setHosts(items, 'workload', true);
  const asOwner = await setHosts(items, 'owner', true);
  assert.ok('plan' in asWorkload && 'plan' in asOwner);
  assert.deepEqual([asWorkload.plan.allowed, asOwner.plan.allowed], [false, true]);
  assert.deepEqual(
    asOwner.plan.steps.map(({ name }) => name),
    ['remove', 'add'],
  );
  assert.equal(readFileSync(path, 'utf8'), before);
  await assert.rejects(async () => setHosts(items, 'workload'), { code: 'forbidden' });
  assert.deepEqual(await setHosts(items, 'owner'), { data: items });
});

test('hosts file: where a mirror of images leads is for the owner to say, and nobody else while that is not known', async () => {
  let mirrors: () => Promise<string[]> = async () => ['mirror.lan'];
  const { setHosts, path } = handlers(facts(), { trustedHosts: () => mirrors() });
  const gate = { ip: '10.0.0.9', host: 'gate.example.com' };
  const items = [gate, { ip: '10.6.6.6', host: 'mirror.lan' }];
  const before = readFileSync(path, 'utf8');
  const planned = await setHosts(items, 'workload', true);
  assert.ok('plan' in planned && !planned.plan.allowed);
  await assert.rejects(async () => setHosts(items, 'workload'), { code: 'forbidden' });
  mirrors = () => Promise.reject(fault('runtime_config_damaged', 'The configuration cannot be read.'));
  const nas = [gate, { ip: '10.0.0.8', host: 'nas' }];
  await assert.rejects(async () => setHosts(nas, 'workload'), { code: 'runtime_config_damaged' });
  assert.equal(readFileSync(path, 'utf8'), before);
  assert.deepEqual(await setHosts(items, 'owner'), { data: items });
  mirrors = async () => [];
  assert.deepEqual(await setHosts(nas, 'workload'), { data: nas });
});

test('the external address is asked for at most hourly, only where a route leads out, and must be one', async () => {
  const clock = new FakeClock();
  let route4 = false;
  let answer = '203.0.113.7\n';
  const asked: string[] = [];
  const said: (string | undefined)[] = [];
  const source = new ExternalIp({
    clock,
    url: 'https://ip.example.com',
    hasDefaultRoute: () => route4,
    fetchText: async (url) => {
      asked.push(url);
      return answer;
    },
    onFacts: (fact) => said.push(fact.known ? (fact.stale?.reason ?? fact.value) : fact.reason),
  });
  source.start();
  assert.equal(asked.length, 0);
  route4 = true;
  source.resync();
  await clock.advance(59 * 60_000);
  source.resync();
  assert.deepEqual([asked.length, said], [1, ['203.0.113.7']]);
  await clock.advance(60_000);
  answer = '<html>';
  source.resync();
  await clock.advance(0);
  assert.deepEqual([asked.length, said.at(-1)], [2, 'the answer is no address']);
  source.stop();
});
