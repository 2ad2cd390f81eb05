import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Locks } from '#storage/locks.ts';

/** A lock that is held, and a list of who had it since. */
async function held() {
  const locks = new Locks();
  const order: string[] = [];
  const release = await locks.acquire('nas');
  const enter = (name: string, wait = {}) =>
    locks.run(
      'nas',
      () => {
        order.push(name);
        return name;
      },
      wait,
    );
  return { locks, order, release, enter };
}

test('a lock is given in the order of arrival, but first to who is to be first', async () => {
  const { locks, order, release, enter } = await held();
  const all = [enter('a'), enter('b'), enter('c', { first: true }), enter('d'), enter('e', { first: true })];
  assert.equal(await locks.run('attic', () => 'free'), 'free', 'another one is not waited for');
  assert.deepEqual(order, []);
  release();
  release();
  assert.deepEqual(await Promise.all(all), ['a', 'b', 'c', 'd', 'e']);
  assert.deepEqual(order, ['c', 'e', 'a', 'b', 'd']);
  assert.equal(locks.busy('nas'), false);
});

test('who leaves while he waits for a lock has never had it, and keeps nobody from it', async () => {
  const { locks, order, release, enter } = await held();
  const gone = new AbortController();
  const left = enter('left', { signal: gone.signal });
  const stays = enter('stays');
  gone.abort(new Error('gone'));
  await assert.rejects(left, /gone/);
  await assert.rejects(enter('late', { signal: gone.signal }), /gone/);
  release();
  assert.equal(await stays, 'stays');
  assert.deepEqual(order, ['stays']);
  assert.equal(locks.busy('nas'), false);
});

test('who leaves in the moment in which he is given a lock gives it back unused', async () => {
  const { locks, order, release, enter } = await held();
  const gone = new AbortController();
  const left = enter('left', { signal: gone.signal });
  release();
  gone.abort(new Error('gone'));
  await assert.rejects(left, /gone/);
  assert.deepEqual(order, []);
  assert.equal(locks.busy('nas'), false);
});

test('a task that throws gives its lock back', async () => {
  const { locks, release, enter } = await held();
  const failed = locks.run('nas', () => Promise.reject(new Error('failed')));
  const next = enter('next');
  release();
  await assert.rejects(failed, /failed/);
  assert.equal(await next, 'next');
});
