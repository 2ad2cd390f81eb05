import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parseJws } from '#auth/jws.ts';
import { ReplayGuard } from '#auth/replay.ts';
import { createKey, signBound, signLegacy } from '#client/sign.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { GapNote } from '#host/gap-note.ts';
import { Store } from '#store/store.ts';

const minute = 60_000;
const start = Date.UTC(2026, 10, 23, 12);
const key = createKey();
const folder = () => mkdtempSync(join(tmpdir(), 'beosd-replay-'));

function open(t: TestContext, options: { dir?: string; clock?: FakeClock; keep?: number } = {}) {
  const { dir = folder(), clock = new FakeClock(start), keep = 8 } = options;
  const store = new Store(dir, () => clock.now());
  let isOpen = true;
  const close = () => {
    if (isOpen) store.close();
    isOpen = false;
  };
  t.after(close);
  const guard = new ReplayGuard({ store, clock, keep, gap: new GapNote(dir) });
  return { dir, clock, store, guard, close };
}

let serial = 0;
const legacy = (at: number) => parseJws(signLegacy(key, { now: at, body: { serial: serial++ } }));
const bound = (at: number, lifetime = 10 * minute) =>
  parseJws(signBound(key, { now: at, method: 'POST', path: '/x', nodeId: 'n', lifetime }));
const marks = (store: Store) => store.read((db) => db.all('SELECT time FROM replay_marks').length);

/** A store with used signatures that is cut in half while nobody looks. */
function openDamaged(t: TestContext, clock: FakeClock) {
  const before = open(t, { clock });
  const used = [legacy(clock.now()), legacy(clock.now() + 19 * minute), bound(clock.now())] as const;
  for (const jws of used) before.guard.spend(jws, 'command.install', true);
  before.close();
  truncateSync(join(before.dir, 'beosd.db'), 4096);
  rmSync(join(before.dir, 'beosd.db-wal'), { force: true });
  const after = open(t, { dir: before.dir, clock });
  assert.equal(after.store.health.historyLostAt, clock.now(), 'the loss was noticed');
  return { ...after, used };
}

test('a mark is there before spend returns, and after a restart', (t) => {
  const first = open(t);
  const jws = legacy(start);
  first.guard.spend(jws, 'command.install', true);
  assert.throws(() => first.guard.spend(jws, 'command.reboot', true), { code: 'signature_reused' });
  first.close();
  const second = open(t, { dir: first.dir, clock: first.clock });
  assert.throws(() => second.guard.spend(jws, 'command.install', true), { code: 'signature_reused' });
});

test('only expired marks are pruned, the oldest first, and a clock set back reopens nothing', async (t) => {
  const { guard, store, clock } = open(t);
  const used = [];
  for (let i = 0; i < 40; i++) {
    const jws = i % 2 === 0 ? legacy(clock.now()) : bound(clock.now());
    guard.spend(jws, 'command.install', true);
    used.push({ jws, at: clock.now() });
    await clock.advance(2 * minute);
  }
  const kept = marks(store);
  assert.ok(kept < 40 && kept >= 8, `${kept} marks`);
  for (const { jws, at } of used) {
    clock.setWallClock(at);
    assert.throws(() => guard.spend(jws, 'command.install', true), { code: 'signature_reused' });
  }
});

test('marks that have not expired are kept however many they are', (t) => {
  const { guard, store } = open(t);
  for (let i = 0; i < 30; i++) guard.spend(legacy(start + i), 'command.install', true);
  assert.equal(marks(store), 30);
});

test('strangers cannot fill the store while nobody owns the node; the owner is not held up by it', (t) => {
  const { guard, store } = open(t);
  for (let i = 0; i < 16; i++) guard.spend(legacy(start + i), 'command.install', false);
  assert.throws(() => guard.spend(legacy(start + 99), 'command.install', false), {
    code: 'too_many_requests',
  });
  guard.spend(legacy(start + 100), 'command.reboot', true);
  assert.equal(marks(store), 17);
});

test('strangers who have filled the store keep nobody out for longer than their marks are good for', async (t) => {
  const { dir, clock, guard, store, close } = open(t);
  for (let i = 0; i < 16; i++) guard.spend(legacy(start + i), 'command.install', false);
  await clock.advance(20 * minute);
  assert.throws(() => guard.spend(legacy(clock.now()), 'command.install', false), {
    code: 'too_many_requests',
  });
  await clock.advance(minute);
  guard.spend(legacy(clock.now()), 'command.install', false);
  assert.equal(marks(store), 9, 'the expired ones over what is kept have gone');
  for (let i = 1; i < 8; i++) guard.spend(legacy(clock.now() + i), 'command.install', false);
  await clock.advance(21 * minute);
  close();
  const again = open(t, { dir, clock });
  again.guard.spend(legacy(clock.now()), 'command.install', false);
});

test('a clock that was years ahead and is put right does not lock the owner out', async (t) => {
  const { guard, clock } = open(t);
  const ahead = start + 4 * 365 * 24 * 60 * minute;
  clock.setWallClock(ahead);
  for (let i = 0; i < 3; i++) guard.spend(legacy(ahead + i), 'command.reboot', true);
  clock.setWallClock(start);
  for (let i = 0; i < 60; i++) {
    guard.spend(legacy(clock.now()), 'command.reboot', true);
    await clock.advance(2 * minute);
  }
});

test('after a loss only what cannot have been used before it is accepted', async (t) => {
  const clock = new FakeClock(start);
  const { guard, used } = openDamaged(t, clock);
  for (const jws of used) {
    assert.throws(() => guard.spend(jws, 'command.install', true), { code: 'replay_window' });
  }
  await clock.advance(minute);
  guard.spend(bound(clock.now()), 'command.install', true);
  assert.throws(
    () => guard.spend(bound(clock.now(), 5 * minute), 'command.install', true),
    (error) => {
      const { code, details } = error as {
        code?: string;
        details?: { retryAfter?: number; remedy?: string };
      };
      assert.equal(code, 'replay_window');
      assert.equal(details?.retryAfter, 4 * 60);
      assert.match(details?.remedy ?? '', /bound form/);
      return true;
    },
  );
  assert.throws(
    () => guard.spend(legacy(clock.now()), 'command.install', true),
    (error) => {
      const { details } = error as { details?: { retryAfter?: number } };
      assert.equal(details?.retryAfter, 19 * 60);
      return true;
    },
  );
  await clock.advance(19 * minute + 1);
  for (const jws of used) {
    assert.throws(() => guard.spend(jws, 'command.install', true), { code: 'replay_window' });
  }
  guard.spend(legacy(clock.now()), 'command.install', true);
});

test('the window after a loss outlives a restart, also one before the first request', async (t) => {
  const clock = new FakeClock(start);
  const damaged = openDamaged(t, clock);
  damaged.close();
  await clock.advance(minute);
  const again = open(t, { dir: damaged.dir, clock });
  assert.equal(again.store.health.historyLostAt, undefined, 'the store itself has forgotten');
  for (const jws of damaged.used) {
    assert.throws(() => again.guard.spend(jws, 'command.install', true), { code: 'replay_window' });
  }
});

test('a loss seen with a clock of 1970 is a loss of today once the clock is right', async (t) => {
  const clock = new FakeClock(start);
  const before = open(t, { clock });
  const used = legacy(start);
  before.guard.spend(used, 'command.reboot', true);
  before.close();
  writeFileSync(join(before.dir, 'beosd.db'), 'not a database '.repeat(1000));
  rmSync(join(before.dir, 'beosd.db-wal'), { force: true });
  clock.setWallClock(1000);
  const { guard } = open(t, { dir: before.dir, clock });
  await clock.advance(minute);
  clock.setWallClock(start + 2 * minute);
  assert.throws(() => guard.spend(used, 'command.reboot', true), { code: 'replay_window' });
  await clock.advance(21 * minute);
  guard.spend(legacy(clock.now()), 'command.reboot', true);
});

test('a loss seen with a clock days ahead starts its window anew when the clock is put right', async (t) => {
  const clock = new FakeClock(start + 30 * 24 * 60 * minute);
  const { guard } = openDamaged(t, clock);
  clock.setWallClock(start);
  assert.throws(() => guard.spend(legacy(start), 'command.reboot', true), { code: 'replay_window' });
  await clock.advance(20 * minute + 1);
  guard.spend(legacy(clock.now()), 'command.reboot', true);
});

/** A store whose disk fails under it, and a signature that was used since. */
async function openFailing(t: TestContext) {
  const opened = open(t);
  opened.guard.spend(legacy(start), 'command.install', true);
  unlinkSync(join(opened.dir, 'beosd.db-wal'));
  await opened.store.settle();
  assert.equal(opened.store.health.durable, false);
  await opened.clock.advance(minute);
  const used = legacy(opened.clock.now());
  opened.guard.spend(used, 'command.reboot', true);
  return { ...opened, used };
}

test('what was used while the disk was full is not used again after a restart', async (t) => {
  const { dir, clock, used, close } = await openFailing(t);
  close();
  for (const seconds of [30, 60]) {
    await clock.advance(seconds * 1000);
    const again = open(t, { dir, clock });
    assert.equal(again.store.health.durable, true);
    assert.throws(() => again.guard.spend(used, 'command.uninstall', true), { code: 'replay_window' });
    await clock.advance(1);
    again.guard.spend(bound(clock.now()), 'command.reboot', true);
    again.close();
  }
  await clock.advance(20 * minute);
  open(t, { dir, clock }).guard.spend(legacy(clock.now()), 'command.reboot', true);
});

test('a disk that is back in time knows what was used meanwhile, and no window begins', async (t) => {
  const { dir, clock, store, guard, used, close } = await openFailing(t);
  assert.equal(store.recover(), true);
  guard.spend(legacy(clock.now()), 'command.install', true);
  close();
  const again = open(t, { dir, clock });
  assert.throws(() => again.guard.spend(used, 'command.uninstall', true), { code: 'signature_reused' });
  again.guard.spend(legacy(clock.now()), 'command.reboot', true);
});

test('without a disk only power, the removal of images and reading go on, still once each', (t) => {
  const place = join(folder(), 'data');
  writeFileSync(place, 'a file where the folder should be');
  const { guard, store } = open(t, { dir: place });
  assert.equal(store.health.durable, false);
  const fresh = start + 21 * minute;
  assert.throws(() => guard.spend(legacy(fresh), 'command.install', true), { code: 'store_unavailable' });
  const power = ['command.reboot', 'command.shutdown', 'jobs.cancel'] as const;
  for (const operation of [...power, 'containerd.deleteImage', 'containerd.prune', 'jobs.list'] as const) {
    const jws = legacy(fresh);
    guard.spend(jws, operation, true);
    assert.throws(() => guard.spend(jws, operation, true), { code: 'signature_reused' });
  }
  assert.throws(() => guard.spend(legacy(start), 'command.reboot', true), { code: 'replay_window' });
  rmSync(place);
  assert.equal(store.recover(), true);
  guard.spend(legacy(fresh), 'command.install', true);
});
