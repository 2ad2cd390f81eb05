import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError } from '#client/api-error.ts';
import { createClient } from '#client/client.ts';
import { FakeNode } from '../../tests/support/fake-node.ts';

const waits: number[] = [];
const clientOf = (node: FakeNode, more: object = {}) =>
  createClient({
    node: node.url,
    sleep: (ms) => {
      waits.push(ms);
      return Promise.resolve();
    },
    random: () => 0,
    ...more,
  });

test('200 broken connections lose no event and repeat none', { timeout: 30_000 }, async () => {
  await using node = await FakeNode.start();
  const seen: number[] = [];
  const total = 600;
  let published = 0;
  feed();
  for await (const event of clientOf(node).events({ lastEventId: 0, onInterrupted: feed })) {
    seen.push(event.id);
    if (event.id === total) break;
    if (event.id % 3 === 0) node.cutStreams('id: 9999\nevent: job\ndata: {"cut');
    else feed();
  }
  function feed() {
    // What is published while nobody is connected has to come with the next connection.
    while (published < Math.min(total, (seen.at(-1) ?? 0) + 3)) {
      node.publish('job', { n: ++published });
    }
  }
  assert.deepEqual(
    seen,
    Array.from({ length: total }, (_, index) => index + 1),
  );
  assert.ok(node.opened >= 200, `${node.opened} connections`);
});

test('a reader from now on that breaks before its first event resumes where it began', async () => {
  await using node = await FakeNode.start();
  node.publish('state');
  const events = clientOf(node).events({
    onInterrupted: () => {
      if (node.opened === 1) node.publish('state', { missed: true });
    },
  });
  const first = events.next();
  await until(() => node.opened === 1);
  // The greeting names the newest id; only once the client has it can the connection break.
  await new Promise((resolve) => setImmediate(resolve));
  node.cutStreams(': bye\n\n');
  const { value } = await first;
  assert.equal(value?.data['missed'], true);
  assert.equal(node.of('GET /events')[1]?.headers['last-event-id'], '1');
  await events.return(undefined);
});

test('a reset is handed out and the stream goes on from its id, also when that is lower', async () => {
  await using node = await FakeNode.start();
  const events = clientOf(node).events({ lastEventId: 50 });
  const first = events.next();
  await until(() => node.opened === 1);
  node.publish('reset', { state: 'checking' });
  assert.deepEqual([(await first).value?.type, (await first).value?.id], ['reset', 1]);
  node.publish('state');
  assert.equal((await events.next()).value?.id, 2);
  await events.return(undefined);
});

test('a node that is busy is asked again after the time that it names, one that refuses is not', async () => {
  await using node = await FakeNode.start();
  node.streamRefusals.push(
    { status: 429, body: { message: 'busy', error: { code: 'too_many_requests', retryAfter: 7 } } },
    { status: 403, body: { message: 'no', error: { code: 'forbidden' } } },
  );
  waits.length = 0;
  await assert.rejects(clientOf(node).events().next(), (error) => {
    assert.ok(error instanceof ApiError);
    assert.equal(error.code, 'forbidden');
    return true;
  });
  assert.deepEqual(waits, [7000]);
});

test('the wait grows with every failure and has a ceiling', async () => {
  const node = await FakeNode.start();
  const { url } = node;
  await node[Symbol.asyncDispose]();
  const controller = new AbortController();
  const seen: number[] = [];
  const client = createClient({
    node: url,
    random: () => 0.999,
    sleep: (ms) => {
      seen.push(ms);
      if (seen.length === 9) controller.abort(new Error('seen enough'));
      return Promise.resolve();
    },
  });
  await assert.rejects(client.events({ signal: controller.signal }).next(), /seen enough/);
  assert.deepEqual(seen.slice(0, 3), [250, 500, 1000]);
  assert.equal(seen.at(-1), 14993);
});

test('a job is followed to its end, each change once, across a lost connection', async () => {
  await using node = await FakeNode.start();
  let job = { id: 'j1', state: 'running', percent: 0 };
  node.on('GET /jobs/j1', () => ({ body: { message: 'success', data: job } }));
  const percents: number[] = [];
  for await (const seen of clientOf(node).followJob('j1')) {
    percents.push(seen.percent ?? -1);
    if (seen.state === 'succeeded') continue;
    job = { ...job, percent: job.percent + 25, state: job.percent === 75 ? 'succeeded' : 'running' };
    if (job.percent === 50) node.cutStreams();
    else {
      node.publish('job', { id: 'other' });
      node.publish('job', { ...job, phases: [] });
    }
  }
  assert.deepEqual(percents, [0, 25, 50, 75, 100]);
});

test('what was older than the first answer and arrives behind it is not told', async () => {
  await using node = await FakeNode.start();
  const job = { id: 'j1', state: 'running', percent: 3, phases: [] };
  node.on('GET /jobs/j1', () => ({ body: { message: 'success', data: job } }));
  const percents: unknown[] = [];
  for await (const seen of clientOf(node).followJob('j1')) {
    percents.push(seen.percent);
    if (seen.percent !== 3) continue;
    for (const percent of [0, 1, 10]) node.publish('job', { ...job, percent });
    node.publish('job', { ...job, percent: 10, state: 'failed' });
  }
  assert.deepEqual(percents, [3, 10, 10]);
});

test('whole jobs in events are taken as they are; a caller who loses his rights still learns the end', async () => {
  await using node = await FakeNode.start();
  const job = { id: 'j1', state: 'running', percent: 10, phases: [], caller: 'owner' };
  let allowed = true;
  const refusal = { status: 403, body: { message: 'no longer', error: { code: 'forbidden' } } };
  node.on('GET /jobs/j1', () => (allowed ? { body: { message: 'success', data: job } } : refusal));
  const seen: unknown[] = [];
  for await (const each of clientOf(node).followJob('j1')) {
    seen.push([each.state, each.percent]);
    if (each.percent === 10) node.publish('job', { ...job, percent: 60 });
    if (each.percent === 60) {
      allowed = false;
      node.cutStreams();
      node.publish('job', { id: 'j1', state: 'failed', percent: 61 });
    }
  }
  assert.deepEqual(seen, [
    ['running', 10],
    ['running', 60],
    ['failed', 61],
  ]);
  assert.equal(node.of('GET /jobs/j1').length, 2);
});

test('a job that has ended already is told once', async () => {
  await using node = await FakeNode.start();
  node.on('GET /jobs/j2', () => ({ body: { message: 'success', data: { id: 'j2', state: 'failed' } } }));
  const seen = await Array.fromAsync(clientOf(node).followJob('j2'));
  assert.deepEqual(seen, [{ id: 'j2', state: 'failed' }]);
});

test('a job that the caller may not see is refused, not waited for', async () => {
  await using node = await FakeNode.start();
  await assert.rejects(clientOf(node).followJob('nope').next(), { code: 'not_found' });
});

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'in time');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
