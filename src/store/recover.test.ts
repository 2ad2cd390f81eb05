import assert from 'node:assert/strict';
import { mkdtempSync, renameSync as renameTo, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AuditLog } from '#store/audit.ts';
import { Store, StoreUnavailable } from '#store/store.ts';
import { keptLocked } from '../../tests/support/job-runner.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'beosd-store-'));
const set = (store: Store, key: string, value: string) =>
  store.write((db) => db.run('INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)', key, value));
const get = (store: Store, key: string) =>
  store.read((db) => db.get('SELECT value FROM kv WHERE key = ?', key)?.['value']);

test('a store that another process keeps locked is a disk in trouble: it works on in memory, and soon', () => {
  const dir = folder();
  const store = new Store(dir, Date.now);
  set(store, 'a', '1');
  {
    using _lock = keptLocked(dir);
    const began = performance.now();
    assert.throws(() => store.commit((db) => db.exec('SELECT 1')), StoreUnavailable);
    set(store, 'b', '2');
    assert.equal(store.recover(), false);
    assert.ok(performance.now() - began < 1500, 'nobody is served meanwhile');
    assert.equal(get(store, 'a'), '1');
  }
  assert.equal(store.recover(), true);
  assert.equal(get(store, 'b'), '2');
  store.close();
});

test('what was removed while the store was in memory stays removed', () => {
  const dir = folder();
  const store = new Store(dir, Date.now);
  set(store, 'session', 'of the owner before');
  {
    using _lock = keptLocked(dir);
    store.write((db) => db.run("DELETE FROM kv WHERE key = 'session'"));
  }
  assert.equal(store.recover(), true);
  assert.equal(get(store, 'session'), undefined);
  store.close();
  const next = new Store(dir, Date.now);
  assert.equal(get(next, 'session'), undefined);
  next.close();
});

test('audit from a time without the disk comes behind what the disk has, and replaces none of it', () => {
  const dir = folder();
  const place = join(dir, 'data');
  const entry = (operation: string) => ({
    at: 1,
    caller: 'root',
    proof: 'socket',
    operation,
    outcome: 'done',
  });
  const before = new Store(place, () => 1000);
  for (const name of ['one', 'two', 'three']) new AuditLog(before).append(entry(name));
  before.close();
  const aside = join(dir, 'aside');
  renameTo(place, aside);
  writeFileSync(place, 'the disk is not mounted yet');
  const store = new Store(place, () => 1000);
  const audit = new AuditLog(store);
  audit.append(entry('in memory'));
  rmSync(place);
  renameTo(aside, place);
  assert.equal(store.recover(), true);
  audit.append(entry('after'));
  const operations = audit.list(10, undefined).map(({ operation }) => operation);
  assert.deepEqual(operations, ['after', 'in memory', 'three', 'two', 'one']);
  store.close();
});
