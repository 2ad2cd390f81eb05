import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { type FirstAnswer, Once, type OnceOptions, type OnceRequest } from '#jobs/once.ts';
import { Idempotency, idempotencyWindow } from '#store/idempotency.ts';
import { Store } from '#store/store.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'beosd-once-'));
const alice: Caller = { class: 'owner', proof: 'signature-bound', name: 'alice@example.com' };

function open(t: TestContext, dir = folder(), clock = new FakeClock(), options: Partial<OnceOptions> = {}) {
  const store = new Store(dir, () => clock.now());
  let isOpen = true;
  const close = () => {
    if (isOpen) store.close();
    isOpen = false;
  };
  t.after(close);
  const once = new Once({
    idempotency: new Idempotency(store),
    clock,
    hashKey: Buffer.alloc(32, 7),
    startedSince: () => undefined,
    ...options,
  });
  return { dir, clock, store, once, close };
}

function asked(changes: Partial<OnceRequest> = {}): OnceRequest {
  const body = { rawBody: Buffer.from('{"a":1}') };
  const what = { operation: 'command.reboot', method: 'POST', path: '/command/reboot' };
  return { key: 'k-1', caller: alice, ...what, ...body, ...changes };
}

/** Work that counts how often it was done, and answers with the count. */
function counted() {
  const done = { times: 0, work: () => Promise.resolve(answers('')) };
  const answers = (body: string): { sent: FirstAnswer; kept: FirstAnswer } => {
    const answer = { status: 200, body };
    return { sent: answer, kept: answer };
  };
  done.work = () => {
    done.times += 1;
    return Promise.resolve(answers(`${done.times}`));
  };
  return done;
}

test('the same key gives the first answer again, also after a restart, and for a day', async (t) => {
  const first = open(t);
  const { work } = counted();
  assert.equal((await first.once.run(asked(), work)).body, '1');
  assert.equal((await first.once.run(asked(), work)).body, '1');
  first.close();
  const second = open(t, first.dir, first.clock);
  await second.clock.advance(idempotencyWindow);
  assert.equal((await second.once.run(asked(), work)).body, '1');
  await second.clock.advance(1);
  assert.equal((await second.once.run(asked(), work)).body, '2');
});

test('what is kept in place of a secret is all that a retry gets, and all that the store holds', async (t) => {
  const { once, store } = open(t);
  const work = () =>
    Promise.resolve({
      sent: { status: 200, body: '{"initialPassword":"hunter2hunter2"}' },
      kept: { status: 200, body: '{}' },
    });
  const secret = asked({ rawBody: Buffer.from('{"password":"correct horse"}') });
  assert.match((await once.run(secret, work)).body, /hunter2/);
  assert.equal((await once.run(secret, work)).body, '{}');
  const rows = store.read((db) => JSON.stringify(db.all('SELECT * FROM idempotency')));
  assert.doesNotMatch(rows, /hunter2|correct horse/);
});

test('another body under the same key is refused, another caller, method, path or key is another request', async (t) => {
  const { once } = open(t);
  const { work } = counted();
  await once.run(asked(), work);
  await assert.rejects(once.run(asked({ rawBody: Buffer.from('{"a":2}') }), work), {
    code: 'idempotency_mismatch',
  });
  const pod = (name: string): Caller => ({
    class: 'workload',
    proof: 'address',
    namespace: 'os-x',
    pod: name,
  });
  const others: Partial<OnceRequest>[] = [
    { caller: { ...alice, name: 'bob@example.com' } },
    { caller: { class: 'root', proof: 'socket' } },
    { caller: pod('files-0') },
    { caller: pod('files-1') },
    { method: 'DELETE' },
    { path: '/command/reboot?force=true' },
    { key: 'k-2' },
  ];
  for (const [index, other] of others.entries()) {
    assert.equal((await once.run(asked(other), work)).body, `${index + 2}`, JSON.stringify(other));
  }
  const signer: Caller = { ...alice, class: 'signer', proof: 'signature-legacy' };
  assert.equal((await once.run(asked({ caller: signer }), work)).body, '1', 'a signer who became the owner');
});

test('while the first request is worked on a second one is refused, and does nothing', async (t) => {
  const { once } = open(t);
  const going = Promise.withResolvers<void>();
  const { work } = counted();
  const first = once.run(asked(), async () => {
    await going.promise;
    return await work();
  });
  await assert.rejects(once.run(asked(), work), { code: 'conflict', details: { retryAfter: 2 } });
  going.resolve();
  assert.equal((await first).body, '1');
  assert.equal((await once.run(asked(), work)).body, '1');
});

test('a refusal is not kept: the next try is a first one, with any body', async (t) => {
  const { once } = open(t);
  const { work } = counted();
  const refused = () => Promise.reject(fault('state_forbids', 'not now'));
  await assert.rejects(once.run(asked(), refused), { code: 'state_forbids' });
  const sent = { status: 503, body: '' };
  assert.equal((await once.run(asked(), () => Promise.resolve({ sent, kept: sent }))).status, 503);
  assert.equal((await once.run(asked({ rawBody: Buffer.from('{}') }), work)).body, '1');
});

test('a request whose daemon died under it finds the job that it had started, or is begun', async (t) => {
  const first = open(t);
  const { work } = counted();
  const never = new Promise<never>(() => undefined);
  void first.once.run(asked(), () => never);
  void first.once.run(asked({ key: 'k-2' }), () => never);
  first.close();
  const calls: unknown[] = [];
  let job: unknown;
  const startedSince = (...what: unknown[]) => {
    calls.push(what);
    return job;
  };
  const second = open(t, first.dir, first.clock, { startedSince });
  await second.clock.advance(1000);
  await assert.rejects(second.once.run(asked({ rawBody: Buffer.from('{}') }), work), {
    code: 'idempotency_mismatch',
  });
  assert.equal((await second.once.run(asked({ key: 'k-2' }), work)).body, '1');
  job = { jobId: 'j-1' };
  const answer = await second.once.run(asked(), work);
  assert.deepEqual(JSON.parse(answer.body), {
    code: 200,
    message: 'accepted before',
    data: { jobId: 'j-1' },
  });
  const began = second.clock.now() - 1000;
  assert.deepEqual(calls.at(-1), ['command.reboot', 'owner alice@example.com', began]);
  job = undefined; // fifty jobs later it is not found any more
  assert.deepEqual(await second.once.run(asked(), work), answer);
});

test('a full disk stands in the way of nothing that goes on without it: the key counts in memory', async (t) => {
  const place = join(folder(), 'data');
  writeFileSync(place, 'a file where the folder should be');
  const { once, store } = open(t, place);
  assert.equal(store.health.durable, false);
  const { work } = counted();
  assert.equal((await once.run(asked(), work)).body, '1');
  assert.equal((await once.run(asked(), work)).body, '1');
  await assert.rejects(once.run(asked({ rawBody: Buffer.from('{}') }), work), {
    code: 'idempotency_mismatch',
  });
  rmSync(place);
  assert.equal(store.recover(), true);
  assert.equal((await once.run(asked(), work)).body, '1', 'what was known in memory comes to the disk');
});

test('a key is 1 to 128 visible characters', async (t) => {
  const { once } = open(t);
  const { work } = counted();
  for (const key of ['', ' ', 'a b', 'a\n', 'ü', 'x'.repeat(129)]) {
    await assert.rejects(once.run(asked({ key }), work), { code: 'invalid_input' }, key);
  }
  assert.equal((await once.run(asked({ key: '~'.repeat(128) }), work)).body, '1');
});
