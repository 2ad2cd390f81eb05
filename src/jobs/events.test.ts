import assert from 'node:assert/strict';
import { mkdtempSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Call } from '#api/operation.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { EventHub } from '#jobs/events.ts';
import { EventLog, keptEvents } from '#store/events.ts';
import { Store } from '#store/store.ts';

function setUp(dir = mkdtempSync(join(tmpdir(), 'beosd-events-'))) {
  const store = new Store(dir, Date.now);
  const waiting = new Set<() => void>();
  const log = new EventLog(store, () => {
    hub.wake();
    for (const look of waiting) look();
  });
  const hub: EventHub = new EventHub({
    log,
    clock: new FakeClock(),
    snapshot: () => ({ state: 'checking' }),
    maxReaders: 3,
  });
  /** Resolves when an event may be read: it is on the disk. */
  const readable = (id: number) =>
    new Promise<void>((resolve) => {
      const look = () => log.range().newest >= id && resolve();
      waiting.add(look);
      look();
    });
  return { dir, store, log, hub, readable };
}

function reader(
  hub: EventHub,
  options: { lastEventId?: string; class?: 'root' | 'public'; address?: string; holds?: () => boolean } = {},
) {
  const gone = new AbortController();
  const call: Call = {
    caller: {
      class: options.class ?? 'root',
      proof: options.class === 'public' ? 'none' : 'socket',
      ...(options.address === undefined ? {} : { address: options.address }),
    },
    signal: gone.signal,
    requestId: '1',
    dryRun: false,
    ...(options.lastEventId === undefined ? {} : { lastEventId: options.lastEventId }),
  };
  const answer = hub.stream(call, options.holds);
  if (typeof answer.raw === 'string' || answer.raw instanceof Uint8Array) return assert.fail('no stream');
  const iterator = answer.raw[Symbol.asyncIterator]();
  const next = async () => String((await iterator.next()).value);
  const isOver = async () => (await iterator.next()).done === true;
  const stop = async () => {
    gone.abort();
    await iterator.next();
  };
  return { next, isOver, stop };
}

const idsIn = (text: string) =>
  [...text.matchAll(/^id: (\d+)\nevent: job$/gm)].map((match) => Number(match[1]));

test('a reader that comes back with its last id gets what it missed, once', async () => {
  const { hub, readable } = setUp();
  const ids = [1, 2, 3].map((n) => hub.publish('job', { n }).id);
  await readable(ids[2] ?? 0);
  const one = reader(hub, { lastEventId: String(ids[0]) });
  await one.next();
  assert.deepEqual(idsIn(await one.next()), ids.slice(1));
  const late = hub.publish('job', { n: 4 }).id;
  assert.deepEqual(idsIn(await one.next()), [late]);
  await one.stop();
  assert.equal(hub.readers, 0);
});

test('a stream ends with the proof that it was begun with, before the next event', async () => {
  const { hub, readable } = setUp();
  let holds = true;
  const one = reader(hub, { holds: () => holds });
  await one.next();
  const seen = hub.publish('job', { n: 1 }).id;
  assert.deepEqual(idsIn(await one.next()), [seen]);
  holds = false;
  await readable(hub.publish('job', { n: 2 }).id);
  assert.ok(await one.isOver());
  assert.equal(hub.readers, 0);
});

test('ids go on growing after a restart, and an id from before it still resumes', async () => {
  const one = setUp();
  const first = one.hub.publish('job', { n: 1 }).id;
  one.store.close();
  const two = setUp(one.dir);
  const second = two.hub.publish('job', { n: 2 }).id;
  assert.ok(second > first);
  const back = reader(two.hub, { lastEventId: String(first) });
  await back.next();
  assert.deepEqual(idsIn(await back.next()), [second]);
  await back.stop();
});

test('an event is read only once it is on the disk, and a disk that refuses it loses none', async () => {
  const { dir, store, log, hub, readable } = setUp();
  const first = hub.publish('job', { n: 1 }).id;
  assert.deepEqual(log.after(0, 10), [], 'not yet: a power cut could take it back');
  assert.equal(log.range().newest, 0);
  const second = hub.publish('job', { n: 2 }).id;
  await readable(second);
  assert.deepEqual(
    log.after(0, 10).map(({ id }) => id),
    [first, second],
  );
  unlinkSync(join(dir, 'beosd.db-wal'));
  const third = hub.publish('job', { n: 3 }).id;
  await readable(third);
  assert.equal(store.health.durable, false);
  assert.deepEqual(
    log.after(0, 10).map(({ id }) => id),
    [first, second, third],
  );
});

test('a reader from now on gets nothing that was on its way to the disk when it came', async () => {
  const { hub } = setUp();
  const before = hub.publish('job', { n: 1 }).id;
  const one = reader(hub);
  assert.match(await one.next(), new RegExp(`id: ${before}$`, 'm'));
  const after = hub.publish('job', { n: 2 }).id;
  assert.deepEqual(idsIn(await one.next()), [after]);
  await one.stop();
});

test('an id that is too old, from the future, or no id gets a reset with a snapshot', async () => {
  const { hub, store } = setUp();
  for (let n = 0; n < 4; n++) hub.publish('job', { n });
  store.write((db) => db.run('DELETE FROM events WHERE id <= 2'));
  for (const lastEventId of ['1', '99999', 'junk', '-1']) {
    const one = reader(hub, { lastEventId });
    assert.match(await one.next(), /event: reset\ndata: .*"state":"checking"/, lastEventId);
    await one.stop();
  }
});

test('a reader so slow that what comes next for it was removed is told so, and goes on from a snapshot', async () => {
  const { hub, store, readable } = setUp();
  const one = reader(hub);
  await one.next();
  const first = hub.publish('job', { n: 1 }).id;
  await readable(first);
  assert.deepEqual(idsIn(await one.next()), [first]);
  const missed = [2, 3, 4].map((n) => hub.publish('job', { n }).id);
  await readable(missed.at(-1) ?? 0);
  store.write((db) => db.run('DELETE FROM events WHERE id <= ?', missed[1] ?? 0));
  const told = await one.next();
  assert.match(told, new RegExp(`id: ${missed.at(-1)}\nevent: reset\ndata: .*"state":"checking"`));
  const after = hub.publish('job', { n: 5 }).id;
  assert.deepEqual(idsIn(await one.next()), [after]);
  await one.stop();
});

test('the public sees the state and how far jobs are, not who asked', async () => {
  const { hub } = setUp();
  const start = hub.publish('condition', { codes: ['x'] }).id;
  hub.publish('job', {
    id: 'j',
    operation: 'command.install',
    state: 'running',
    phase: 'p',
    percent: 1,
    caller: 'owner alice',
  });
  hub.publish('mount', { path: '/secret' });
  const one = reader(hub, { lastEventId: String(start), class: 'public' });
  await one.next();
  const text = await one.next();
  assert.match(text, /"percent":1/);
  assert.doesNotMatch(text, /alice|secret|codes/);
  await one.stop();
});

test('readers are bounded', () => {
  const { hub } = setUp();
  const readers = [1, 2, 3].map(() => reader(hub));
  for (const each of readers) void each.next();
  assert.throws(() => reader(hub), /Too many readers/);
});

test('the log keeps a bounded number of events', () => {
  const { log, store } = setUp();
  store.write((db) => {
    for (let n = 0; n < keptEvents; n++) db.run("INSERT INTO events (type, data) VALUES ('job', '{}')");
  });
  for (let n = 0; n < 501; n++) log.append({ type: 'job', data: {} });
  const { oldest, newest } = log.range();
  assert.ok(newest - (oldest ?? 0) <= keptEvents + 500);
});

test('a daemon that is started again and again keeps no more events than one that lives on', () => {
  const { store, dir } = setUp();
  store.write((db) => {
    for (let n = 0; n < keptEvents + 50; n++) db.run("INSERT INTO events (type, data) VALUES ('job', '{}')");
  });
  store.close();
  const { log } = setUp(dir);
  const { id } = log.append({ type: 'job', data: {} });
  assert.equal(id - (log.range().oldest ?? 0), keptEvents - 1);
});

test('a store that was set aside damaged takes no id with it: who comes back is told that something is lost', async () => {
  const before = setUp();
  const last = before.hub.publish('job', { n: 1 }).id;
  before.store.close();
  writeFileSync(join(before.dir, 'beosd.db'), 'x'.repeat(8192));
  const { hub, readable, store } = setUp(before.dir);
  assert.equal(store.health.durable, true);
  const first = hub.publish('job', { n: 2 }).id;
  await readable(first);
  assert.ok(first > last, 'ids only grow');
  const back = reader(hub, { lastEventId: String(last) });
  assert.match(await back.next(), /event: reset/);
  await back.stop();
});

test('strangers share some of the places, and one address gets fewer: root and owner always find one', async () => {
  const { log } = setUp();
  const hub = new EventHub({ log, clock: new FakeClock(), snapshot: () => ({}) });
  const stops: (() => Promise<void>)[] = [];
  const sit = async (address: string) => {
    const stranger = reader(hub, { class: 'public', address });
    await stranger.next();
    stops.push(stranger.stop);
  };
  for (let n = 0; n < 16; n++) await sit('192.168.1.66');
  await assert.rejects(sit('192.168.1.66'), /without a proof/);
  for (let n = 0; n < 16; n++) await sit(`192.168.1.${100 + n}`);
  await assert.rejects(sit('192.168.1.67'), /without a proof/);
  const root = reader(hub);
  await root.next();
  await root.stop();
  for (const stop of stops) await stop();
  assert.equal(hub.readers, 0);
  await sit('192.168.1.66');
  await stops.at(-1)?.();
});

test('who begins to read waits for what was there, not for events that go on coming', async () => {
  const store = new Store(mkdtempSync(join(tmpdir(), 'beosd-events-')), Date.now);
  const settle = store.settle.bind(store);
  let [appended, at, most] = [0, 0, 0];
  store.settle = async () => {
    most = Math.max(most, ++at);
    await settle();
    at--;
  };
  const log: EventLog = new EventLog(store, () => {
    if (appended < 50) log.append({ type: 'job', data: { n: ++appended } });
  });
  const { id } = log.append({ type: 'job', data: { n: 0 } });
  await log.caughtUp();
  assert.deepEqual(
    log.after(0, 1).map((event) => event.id),
    [id],
  );
  assert.ok(appended < 50, 'the stream of events had not ended');
  while (appended < 50) await log.caughtUp();
  await log.caughtUp();
  assert.equal(log.range().newest, id + 50);
  assert.equal(most, 1, 'one batch at a time');
  store.close();
});
