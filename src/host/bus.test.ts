import assert from 'node:assert/strict';
import { test } from 'node:test';
import dbus, { type MessageBus } from 'dbus-native';
import { BusError, MessageBusPort, systemBusAddress } from '#host/bus.ts';
import { systemClock } from '#host/clock.ts';
import { privateBus } from '../../tests/support/private-bus.ts';

const greeter = {
  service: 'org.example.Greeter',
  path: '/org/example',
  interface: 'org.example.Greeter',
} as const;

async function exportGreeter(peer: MessageBus) {
  const definition = dbus.defineInterface({
    name: greeter.interface,
    methods: {
      Two: { out: { a: 's', b: 't' }, handler: () => ({ a: 'x', b: 2n ** 53n }) },
      Props: { in: { asked: 'a{sv}' }, out: { given: 'a{sv}' }, handler: ({ asked }) => asked },
      Never: { handler: () => new Promise(() => undefined) },
    },
    properties: { Mood: { type: 's', access: 'read', get: () => 'fine' } },
    signals: { Changed: { args: { what: 's' } } },
  });
  await peer.export(greeter.path, definition);
  return definition;
}

/** The next values of a signal, one promise each. */
function queue<T>() {
  const waiting: ((value: T) => void)[] = [];
  const arrived: T[] = [];
  return {
    push: (value: T) => {
      const next = waiting.shift();
      if (next) next(value);
      else arrived.push(value);
    },
    next: () =>
      new Promise<T>((resolve, reject) => {
        const first = arrived.shift();
        if (first !== undefined) resolve(first);
        else waiting.push(resolve);
        AbortSignal.timeout(10_000).addEventListener('abort', () => reject(new Error('nothing arrived')));
      }),
    arrived,
  };
}

test('calls, several results, dictionaries of variants and properties come as plain values', async () => {
  await using bus = await privateBus();
  await exportGreeter(await bus.peer(greeter.service));
  const port = new MessageBusPort(bus.address, systemClock);
  assert.deepEqual(await port.call({ ...greeter, member: 'Two' }), ['x', 2n ** 53n]);
  const given = { a: ['s', 'text'], b: ['b', true] };
  const answer = await port.call({
    ...greeter,
    member: 'Props',
    signature: 'a{sv}',
    args: [Object.entries(given)],
  });
  assert.deepEqual(answer, [{ a: 'text', b: true }]);
  assert.equal(await port.property(greeter.service, greeter.path, greeter.interface, 'Mood'), 'fine');
  await port.close();
});

test('a call ends with a reason: refused by name, out of time, given up, no bus', async () => {
  await using bus = await privateBus();
  await exportGreeter(await bus.peer(greeter.service));
  const port = new MessageBusPort(bus.address, systemClock);
  const reasonOf = (error: unknown) => (error instanceof BusError ? [error.reason, error.dbusName] : error);
  const outcome = (call: Promise<unknown>) => call.then(() => 'answered', reasonOf);
  assert.deepEqual(await outcome(port.call({ ...greeter, service: 'org.example.Nobody', member: 'Two' })), [
    'refused',
    'org.freedesktop.DBus.Error.ServiceUnknown',
  ]);
  assert.deepEqual(await outcome(port.call({ ...greeter, member: 'Never', timeoutMs: 30 })), [
    'timeout',
    undefined,
  ]);
  const giveUp = new AbortController();
  const never = outcome(port.call({ ...greeter, member: 'Never', signal: giveUp.signal }));
  giveUp.abort();
  assert.deepEqual(await never, ['aborted', undefined]);
  await port.close();
  const nowhere = new MessageBusPort('unix:path=/nonexistent/socket', systemClock);
  assert.deepEqual(await outcome(nowhere.call({ ...greeter, member: 'Two' })), ['unavailable', undefined]);
  await nowhere.close();
});

test('signals come from the owner of the service alone, and again after the bus was started anew', async () => {
  await using bus = await privateBus();
  const definition = await exportGreeter(await bus.peer(greeter.service));
  const port = new MessageBusPort(bus.address, systemClock);
  const signals = queue<unknown>();
  const states = queue<boolean>();
  port.onAvailability((available) => states.push(available));
  port.onSignal({ ...greeter, member: 'Changed' }, ([what]) => signals.push(what));
  assert.equal(await states.next(), true);
  await port.call({ ...greeter, member: 'Two' }); // the rules went before on the same connection
  const stranger = await bus.peer('org.example.Stranger');
  stranger.sendSignal(greeter.path, greeter.interface, 'Changed', 's', ['false']);
  await stranger.getId();
  definition.emit['Changed']?.('true');
  assert.equal(await signals.next(), 'true');

  await bus.kill();
  assert.equal(await states.next(), false);
  await bus.restart();
  const again = await exportGreeter(await bus.peer(greeter.service));
  while ((await states.next()) !== true);
  await port.call({ ...greeter, member: 'Two' });
  again.emit['Changed']?.('once more');
  assert.equal(await signals.next(), 'once more');
  await port.close();
});

test('who only asks whether the bus is there hears that it never was, that it came, and that it went', async () => {
  await using bus = await privateBus();
  await bus.kill();
  const port = new MessageBusPort(bus.address, systemClock);
  const states = queue<boolean>();
  port.onAvailability((available) => states.push(available));
  assert.equal(await states.next(), false);
  await bus.restart();
  assert.equal(await states.next(), true);
  await bus.kill();
  assert.equal(await states.next(), false);
  await port.close();
});

test('the address of the environment goes before the usual one', () => {
  assert.equal(systemBusAddress({}), 'unix:path=/run/dbus/system_bus_socket');
  assert.equal(systemBusAddress({ DBUS_SYSTEM_BUS_ADDRESS: 'unix:path=/x' }), 'unix:path=/x');
});
