import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { systemClock } from '#host/clock.ts';
import { type Exec, ExecError, type LineChild, SystemExec } from '#host/exec.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import type { Observed } from '#lib/observed.ts';
import { LinkWatcher } from '#network/links.ts';
import type { NetworkFacts } from '#state/facts.ts';

/** An `ip` whose answers the test gives. */
class FakeIp implements Exec {
  started = 0;
  links: unknown = [];
  broken: Error | undefined;
  onLine: (line: string) => void = () => undefined;
  endMonitor: () => void = () => undefined;
  monitors = 0;
  pid: number | undefined = 1;
  #reads = 0;

  get reads(): number {
    return this.#reads;
  }

  async run(_file: string, args: readonly string[]) {
    this.started++;
    if (args.includes('addr')) this.#reads++;
    if (this.broken) throw this.broken;
    await new Promise((resolve) => setImmediate(resolve));
    return { exitCode: 0, stdout: args.includes('addr') ? JSON.stringify(this.links) : '[]', stderr: '' };
  }

  lines(_file: string, _args: readonly string[], onLine: (line: string) => void): LineChild {
    this.monitors++;
    this.onLine = onLine;
    const ended = new Promise<void>((resolve) => {
      this.endMonitor = resolve;
    });
    if (this.pid === undefined) this.endMonitor();
    return { pid: this.pid, ended, stop: () => this.endMonitor() };
  }
}

const eth0 = (address: string) => ({
  ifname: 'eth0',
  flags: ['UP', 'LOWER_UP'],
  mtu: 1500,
  link_type: 'ether',
  addr_info: [{ family: 'inet', local: address, prefixlen: 24, scope: 'global' }],
});

function watched() {
  const exec = new FakeIp();
  exec.links = [eth0('10.0.0.1')];
  const clock = new FakeClock();
  const seen: Observed<NetworkFacts>[] = [];
  const watcher = new LinkWatcher({ exec, clock, files: new Files(), onFacts: (facts) => seen.push(facts) });
  const addresses = () =>
    seen.map((facts) =>
      facts.known ? facts.value.links.flatMap((link) => link.addresses[0]?.address ?? []).join() : 'unknown',
    );
  return { exec, clock, seen, watcher, addresses };
}

test('a burst of events leads to at most two reads, the last of them after the last event', async (t) => {
  const { exec, watcher, addresses } = watched();
  t.after(() => watcher.stop());
  await watcher.start();
  assert.equal(exec.reads, 1);
  exec.onLine('default via 10.0.0.254 dev eth0');
  exec.links = [eth0('10.0.0.2')];
  for (let burst = 0; burst < 100; burst++) exec.onLine('default via 10.0.0.254 dev eth0');
  await watcher.refresh();
  assert.ok(exec.reads <= 3, `${exec.reads} reads`);
  assert.equal(addresses().at(-1), '10.0.0.2');
});

test('a read that fails keeps the last value with its age, and the next one mends it', async (t) => {
  const { exec, watcher, seen } = watched();
  t.after(() => watcher.stop());
  await watcher.start();
  exec.broken = new Error('ip is broken');
  await watcher.refresh();
  const stale = seen.at(-1);
  assert.ok(stale?.known && stale.stale?.reason === 'ip is broken');
  exec.broken = undefined;
  watcher.resync();
  await watcher.refresh();
  const again = seen.at(-1);
  assert.ok(again?.known && again.stale === undefined);
});

test('a listener that ends is started again, later each time, and what was missed is read', async (t) => {
  const { exec, clock, watcher } = watched();
  t.after(() => watcher.stop());
  await watcher.start();
  exec.endMonitor();
  await clock.advance(0);
  assert.equal(exec.monitors, 1);
  await clock.advance(2000);
  assert.deepEqual([exec.monitors, exec.reads], [2, 2]);
  exec.endMonitor();
  await clock.advance(0);
  await clock.advance(2000);
  assert.equal(exec.monitors, 2);
  await clock.advance(2000);
  assert.equal(exec.monitors, 3);
});

test('a machine without iproute2 is still known, and nothing is started for it again and again', async (t) => {
  const exec = new SystemExec();
  const seen: Observed<NetworkFacts>[] = [];
  const watcher = new LinkWatcher({
    exec,
    clock: systemClock,
    files: new Files(),
    ip: '/nonexistent/ip',
    onFacts: (facts) => seen.push(facts),
  });
  t.after(() => watcher.stop());
  await watcher.start();
  const [facts] = seen;
  assert.ok(facts?.known && facts.value.links.some(({ kind }) => kind === 'loopback'));
  const { started } = exec;
  watcher.resync();
  assert.equal(exec.started, started);
});

const unstarted = (code: string) =>
  new ExecError({
    ...{ file: 'ip', args: [], reason: 'start', exitCode: null, stdout: '', stderr: '' },
    cause: Object.assign(new Error(`spawn ip ${code}`), { code }),
  });

test('a machine that cannot start anything just now is not one without iproute2', async (t) => {
  const { exec, watcher, seen } = watched();
  t.after(() => watcher.stop());
  await watcher.start();
  exec.broken = unstarted('EAGAIN');
  await watcher.refresh();
  const stale = seen.at(-1);
  assert.ok(stale?.known && stale.stale !== undefined && stale.source === 'links');
  exec.broken = unstarted('ENOENT');
  await watcher.refresh();
  assert.equal(seen.at(-1)?.source, 'links (without ip)');
});

test('a listener that cannot be had is asked for again, and what happened meanwhile is read when there is one', async (t) => {
  const { exec, clock, watcher } = watched();
  t.after(() => watcher.stop());
  await watcher.start();
  exec.pid = undefined;
  exec.endMonitor();
  await clock.advance(0);
  for (let hour = 0; hour < 3; hour++) await clock.advance(3_600_000);
  assert.deepEqual([exec.monitors, exec.reads], [4, 1], 'nothing is read for its sake');
  exec.pid = 2;
  await clock.advance(3_600_000);
  assert.deepEqual([exec.monitors, exec.reads], [5, 2]);
});

test('a default route that nobody has told of is found by the resync', async (t) => {
  const exec = new FakeIp();
  exec.links = [eth0('10.0.0.1')];
  const header = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n';
  let table = header;
  class Routes extends Files {
    override readText(path: string, maxBytes?: number): string | undefined {
      if (path === '/proc/net/ipv6_route') throw new RangeError('file is larger than 1048576 bytes');
      return path === '/proc/net/route' ? table : super.readText(path, maxBytes);
    }
  }
  const watcher = new LinkWatcher({
    exec,
    clock: new FakeClock(),
    files: new Routes(),
    onFacts: () => undefined,
  });
  t.after(() => watcher.stop());
  await watcher.start();
  watcher.resync();
  assert.equal(exec.reads, 1);
  table = `${header}eth0\t00000000\tFE00000A\t0003\t0\t0\t100\t00000000\n`;
  watcher.resync();
  assert.equal(exec.reads, 2);
  await watcher.refresh();
  const { reads } = exec;
  watcher.resync();
  assert.equal(exec.reads, reads, 'once is enough');
});

test('nothing is started while nothing changes', async (t) => {
  const { exec, watcher } = watched();
  t.after(() => watcher.stop());
  await watcher.start();
  const { started } = exec;
  for (let round = 0; round < 5; round++) watcher.resync();
  assert.equal(exec.started, started);
});

const isRoot = process.getuid?.() === 0;
const canUnshare = isRoot && spawnSync('ip', ['netns', 'list']).status === 0;

test('a real network namespace: an address on a veth is seen when the kernel tells of it', {
  skip: canUnshare ? false : 'needs root and iproute2 for a network namespace',
  timeout: 20_000,
}, async (t) => {
  const name = `beosd-test-${process.pid}`;
  const ip = (...args: string[]) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  ip('netns', 'add', name);
  t.after(() => ip('netns', 'del', name));
  const inside = (...args: string[]) => ip('-n', name, ...args);
  const waiting = new Set<() => void>();
  const seen: NetworkFacts[] = [];
  const watcher = new LinkWatcher({
    exec: new InNamespace(name),
    clock: systemClock,
    files: new Files(),
    onFacts: (facts) => {
      if (facts.known) seen.push(facts.value);
      for (const wake of waiting) wake();
    },
  });
  t.after(() => watcher.stop());
  const until = (holds: (facts: NetworkFacts) => boolean, what: string) =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`not seen: ${what}`)), 5000);
      const look = () => {
        const last = seen.at(-1);
        if (last === undefined || !holds(last)) return;
        clearTimeout(timer);
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
    });
  const has = (address: string) => (facts: NetworkFacts) =>
    facts.links.some((link) => link.addresses.some((own) => own.address === address));
  await watcher.start();
  // Once the listener is known to listen, nothing but its events leads to reads.
  inside('link', 'set', 'lo', 'up');
  await until(has('127.0.0.1'), 'loopback');
  inside('link', 'add', 'va', 'type', 'veth', 'peer', 'name', 'vb');
  inside('addr', 'add', '10.9.0.1/24', 'dev', 'va');
  inside('link', 'set', 'va', 'up');
  inside('link', 'set', 'vb', 'up');
  await until(
    (facts) =>
      has('10.9.0.1')(facts) &&
      facts.links.some(
        ({ name: each, carrier, up, kind }) => each === 'va' && carrier && up && kind === 'ethernet',
      ),
    'the address and the carrier',
  );
  inside('route', 'add', 'default', 'via', '10.9.0.2');
  await until(({ defaultRoutes }) => defaultRoutes[0]?.gateway === '10.9.0.2', 'the default route');
  inside('route', 'del', 'default');
  await until(({ defaultRoutes }) => defaultRoutes.length === 0, 'the route is gone');
  inside('addr', 'del', '10.9.0.1/24', 'dev', 'va');
  await until((facts) => !has('10.9.0.1')(facts), 'the address is gone');
  inside('link', 'del', 'va');
  await until((facts) => facts.links.every(({ kind }) => kind === 'loopback'), 'the link is gone');
});

/** The real thing, in a namespace of its own. */
class InNamespace extends SystemExec {
  readonly #name: string;

  constructor(name: string) {
    super();
    this.#name = name;
  }

  override run(file: string, args: readonly string[], options = {}) {
    assert.equal(file, 'ip');
    return super.run('ip', ['-n', this.#name, ...args], options);
  }

  override lines(file: string, args: readonly string[], onLine: (line: string) => void) {
    assert.equal(file, 'ip');
    return super.lines('ip', ['-n', this.#name, ...args], onLine);
  }
}
