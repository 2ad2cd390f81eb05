import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '#host/fake/clock.ts';
import type { Observed } from '#lib/observed.ts';
import { chooseHostIp, goneAfterMs, HostAddress } from '#network/host-ip.ts';
import type { HostsFacts } from '#state/facts.ts';
import { link, network, route, seen, wired } from '../../tests/support/machines.ts';
import { recordedMachines } from '../../tests/support/recorded-machines.ts';

for (const machine of recordedMachines) {
  test(`host address of ${machine.name}`, () => {
    const { network: links, hosts } = machine.facts;
    const choice = links.known
      ? chooseHostIp({ network: links.value, hosts, resolved: [], current: undefined })
      : undefined;
    assert.equal(choice?.address, machine.hostIp);
  });
}

const bound = seen({ ownAddresses: ['192.168.1.10'] });
const unbound: Observed<HostsFacts> = seen({ ownAddresses: ['127.0.1.1'] });
const moved = seen(network([link('eth0', 'ethernet', ['192.168.1.88/24'])], route('eth0')));

function followed() {
  const clock = new FakeClock();
  const facts: (string | undefined)[] = [];
  const rebound: string[] = [];
  const host = new HostAddress({
    clock,
    resolve: () => [],
    rebind: (ip) => rebound.push(ip),
    onFact: (fact) => facts.push(fact.known ? fact.value : undefined),
  });
  return { clock, facts, rebound, host };
}

test('the resolver is asked only where the hosts file says nothing, and believed only when the address is ours', () => {
  const two = network(
    [link('eth0', 'ethernet', ['10.0.0.2/24']), link('eth1', 'ethernet', ['10.9.0.2/24'])],
    route('eth0', '10.0.0.1'),
  );
  const choose = (resolved: string[], hosts = unbound) =>
    chooseHostIp({ network: two, hosts, resolved, current: undefined });
  assert.deepEqual([choose(['10.9.0.2']).address, choose(['10.9.0.2']).because], ['10.9.0.2', 'resolver']);
  assert.equal(choose(['203.0.113.7']).address, '10.0.0.2');
  assert.equal(choose(['10.9.0.2'], seen({ ownAddresses: ['10.0.0.2'] })).because, 'hosts-file');
});

test('a second route does not move a node that nobody has bound', () => {
  const before = network([link('eth0', 'ethernet', ['10.0.0.2/24'])], route('eth0', '10.0.0.1', 200));
  const after = network(
    [link('eth0', 'ethernet', ['10.0.0.2/24']), link('usb0', 'ethernet', ['10.5.0.2/24'])],
    route('usb0', '10.5.0.1', 50),
    route('eth0', '10.0.0.1', 200),
  );
  const { host, facts } = followed();
  host.observe(seen(before), unbound);
  host.observe(seen(after), unbound);
  assert.deepEqual(facts, ['10.0.0.2', '10.0.0.2']);
  assert.deepEqual(
    host.candidates.map(({ address }) => address),
    ['10.5.0.2', '10.0.0.2'],
  );
});

test('the bound address is given up only after two looks without it that lie 30 s apart', async () => {
  const { clock, host, facts, rebound } = followed();
  host.observe(seen(wired), bound);
  host.observe(moved, bound);
  await clock.advance(goneAfterMs - 1);
  host.observe(moved, bound);
  assert.deepEqual([facts.at(-1), rebound.length], ['192.168.1.10', 0]);
  await clock.advance(1);
  host.observe(moved, bound);
  assert.deepEqual([facts.at(-1), rebound], ['192.168.1.88', ['192.168.1.88']]);
});

test('one look is not enough, however long ago the one before was', async () => {
  const { clock, host, rebound } = followed();
  host.observe(seen(wired), bound);
  await clock.advance(10 * goneAfterMs);
  host.observe(moved, bound);
  assert.deepEqual(rebound, []);
});

test('an address that comes back is as if it had never left', async () => {
  const { clock, host, facts, rebound } = followed();
  host.observe(seen(wired), bound);
  host.observe(moved, bound);
  await clock.advance(goneAfterMs - 1);
  host.observe(seen(wired), bound);
  await clock.advance(goneAfterMs);
  host.observe(moved, bound);
  assert.deepEqual([facts.at(-1), rebound], ['192.168.1.10', []]);
});

test('a hosts file that cannot be written is tried again after 30 s, not at once and for ever', async () => {
  const clock = new FakeClock();
  const said: (string | undefined)[] = [];
  let tries = 0;
  const host: HostAddress = new HostAddress({
    clock,
    resolve: () => [],
    rebind: () => {
      tries++;
      if (tries < 100) host.observe(moved, bound); // whoever writes the file reads it again, also when that failed
    },
    onFact: (fact) => said.push(fact.known ? fact.value : undefined),
  });
  host.observe(seen(wired), bound);
  host.observe(moved, bound);
  for (const expected of [1, 2, 3]) {
    await clock.advance(goneAfterMs);
    host.observe(moved, bound);
    host.observe(moved, bound);
    assert.deepEqual([tries, said.at(-1)], [expected, '192.168.1.88']);
  }
});

test('while no address is left the last one stands, then none, and the hosts file is not touched', async () => {
  const { clock, host, facts, rebound } = followed();
  const nothing = seen(network([link('eth0', 'ethernet', [], { carrier: false })]));
  host.observe(seen(wired), bound);
  host.observe(nothing, bound);
  assert.equal(facts.at(-1), '192.168.1.10');
  await clock.advance(goneAfterMs);
  host.observe(nothing, bound);
  assert.deepEqual([facts.at(-1), rebound], [undefined, []]);
});
