import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Store, StoreUnavailable } from '#store/store.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'beosd-store-'));
const put = (store: Store, key: string, value: string) =>
  store.commit((db) => db.run('INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)', key, value));
const get = (store: Store, key: string) =>
  store.read((db) => db.get('SELECT value FROM kv WHERE key = ?', key)?.['value']);

test('what was committed is there after the next start', () => {
  const dir = folder();
  const first = new Store(dir, Date.now);
  put(first, 'a', '1');
  first.close();
  const second = new Store(dir, Date.now);
  assert.equal(get(second, 'a'), '1');
  assert.equal(second.health.durable, true);
  second.close();
});

test('a store cut in half is set aside and replaced by an empty one', () => {
  const dir = folder();
  const first = new Store(dir, Date.now);
  for (let i = 0; i < 500; i++) put(first, `key-${i}`, 'x'.repeat(100));
  first.close();
  truncateSync(join(dir, 'beosd.db'), Math.floor(statSync(join(dir, 'beosd.db')).size / 2));
  const second = new Store(dir, () => 1234);
  assert.equal(get(second, 'key-1'), undefined);
  assert.equal(second.health.durable, true);
  assert.equal(second.health.historyLostAt, 1234);
  assert.ok(readdirSync(dir).includes('beosd.db.damaged-1234'));
  second.close();
});

test('a file that is no database is set aside', () => {
  const dir = folder();
  writeFileSync(join(dir, 'beosd.db'), 'not a database at all '.repeat(500));
  const store = new Store(dir, () => 99);
  assert.equal(store.health.historyLostAt, 99);
  put(store, 'a', '1');
  assert.equal(get(store, 'a'), '1');
  store.close();
});

test('where nothing can be written it works in memory, refuses to promise, and recovers', () => {
  const dir = folder();
  const blocked = join(dir, 'data');
  writeFileSync(blocked, 'a file where the folder should be');
  const store = new Store(blocked, () => 1000);
  assert.equal(store.health.durable, false);
  assert.throws(() => put(store, 'a', '1'), StoreUnavailable);
  store.write((db) => db.run("INSERT INTO kv (key, value) VALUES ('b', '2')"));
  assert.equal(get(store, 'b'), '2');
  assert.equal(store.recover(), false);
  writeFileSync(join(dir, 'moved'), '');
  const other = new Store(join(dir, 'elsewhere'), () => 1000);
  other.close();
  store.close();
});

test('an event id given out in memory is never given out again on disk', async () => {
  const { rmSync } = await import('node:fs');
  const dir = folder();
  const place = join(dir, 'data');
  writeFileSync(place, '');
  const store = new Store(place, () => 1000);
  const add = () =>
    store.write((db) => {
      db.run("INSERT INTO events (type, data) VALUES ('state', '{}')");
      return Number(db.get('SELECT max(id) AS id FROM events')?.['id']);
    });
  const inMemory = add();
  rmSync(place);
  assert.equal(store.recover(), true);
  assert.ok(add() > inMemory);
  assert.equal(store.health.durable, true);
  store.close();
});
