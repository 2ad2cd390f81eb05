import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ApiError, Unreachable } from '#client/api-error.ts';
import { createClient } from '#client/client.ts';
import { createKey } from '#client/sign.ts';
import type { RequestToSign } from '#client/signer.ts';
import { FakeNode } from '../../tests/support/fake-node.ts';

const noSleep = () => Promise.resolve();

test('a call gives the data of the envelope, over TCP and over a unix socket', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'beosd-client-'));
  try {
    const socketPath = join(folder, 'beosd.sock');
    await using tcp = await FakeNode.start();
    await using unix = await FakeNode.start(socketPath);
    for (const node of [tcp.url, { socketPath }]) {
      const status = await createClient({ node }).call('system.status');
      assert.equal(status.terminusState, 'not-installed');
    }
    assert.equal(unix.received[0]?.headers.host, 'localhost');
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('path, query and body go where the contract has them', async () => {
  await using node = await FakeNode.start();
  node.on('GET /jobs', () => ({ body: { message: 'success', data: [], next: 'j1' } }));
  node.on('GET /jobs/a%2Fb', () => ({ body: { message: 'success', data: { id: 'a/b' } } }));
  node.on('POST /command/change-host', () => ({ body: { message: 'success', data: {} } }));
  const client = createClient({ node: node.url });
  assert.deepEqual((await client.request('jobs.list', { query: { limit: 2 } })).beside, { next: 'j1' });
  assert.equal(node.of('GET /jobs')[0]?.target, '/jobs?limit=2');
  assert.equal((await client.call('jobs.get', { params: { id: 'a/b' } })).id, 'a/b');
  await client.call('command.changeHost', { body: { ip: '10.0.0.7' } });
  const sent = node.of('POST /command/change-host')[0];
  assert.equal(sent?.body, '{"ip":"10.0.0.7"}');
  assert.equal(sent?.headers['content-type'], 'application/json');
});

test('a refusal becomes an ApiError with what the caller can do', async () => {
  await using node = await FakeNode.start();
  const error = { code: 'state_forbids', state: 'installing', allowedIn: ['not-installed'], remedy: 'Wait.' };
  node.on('POST /command/install', () => ({
    status: 403,
    body: { message: 'not while installing', error, data: [1] },
  }));
  const call = createClient({ node: node.url }).call('command.install', { body: { username: 'alice' } });
  await assert.rejects(call, (thrown) => {
    assert.ok(thrown instanceof ApiError);
    assert.deepEqual(
      [thrown.status, thrown.code, thrown.message],
      [403, 'state_forbids', 'not while installing'],
    );
    assert.deepEqual(thrown.details.allowedIn, ['not-installed']);
    assert.equal(thrown.details.remedy, 'Wait.');
    assert.deepEqual(thrown.data, [1]);
    return true;
  });
});

test('what is no beosd is told apart from a refusal', async () => {
  await using node = await FakeNode.start();
  node.on('GET /jobs', () => ({ body: '<html>router</html>' }));
  await assert.rejects(createClient({ node: node.url }).call('jobs.list'), { code: 'invalid_answer' });
});

test('a broken connection is tried again under the same Idempotency-Key, a plan carries none', async () => {
  await using node = await FakeNode.start();
  let drops = 2;
  node.on('POST /command/reboot', () =>
    drops-- > 0 ? 'drop' : { body: { message: 'success', data: { jobId: 'j' } } },
  );
  const client = createClient({ node: node.url, sleep: noSleep });
  assert.deepEqual(await client.call('command.reboot'), { jobId: 'j' });
  const keys = node.of('POST /command/reboot').map((each) => each.headers['idempotency-key']);
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  assert.match(String(keys[0]), /^[0-9a-f-]{36}$/);
  await client.plan('command.reboot');
  const planned = node.of('POST /command/reboot').at(-1);
  assert.equal(planned?.target, '/command/reboot?dryRun=true');
  assert.equal(planned?.headers['idempotency-key'], undefined);
});

test('where nothing listens the call fails at once and says so', async () => {
  const node = await FakeNode.start();
  const url = node.url;
  await node[Symbol.asyncDispose]();
  const client = createClient({ node: url, sleep: () => assert.fail('no second try') });
  await assert.rejects(client.call('system.status'), (error) => {
    assert.ok(error instanceof Unreachable);
    assert.equal(error.sent, false);
    assert.equal(error.message, `cannot reach ${url}`);
    return true;
  });
});

test('a signer sees exactly what is sent; the public status is read once, unsigned, for the node id', async () => {
  await using node = await FakeNode.start();
  node.on('POST /command/change-host', () => ({ body: { message: 'success', data: {} } }));
  const seen: RequestToSign[] = [];
  const signer = {
    sign: (request: RequestToSign) => {
      seen.push(request);
      return `signature-${seen.length}`;
    },
  };
  const client = createClient({ node: node.url, signer });
  await client.call('command.changeHost', { body: { ip: '10.0.0.7' } });
  await client.plan('command.changeHost', { body: { ip: '10.0.0.7' } });
  assert.deepEqual(seen[1], {
    method: 'POST',
    path: '/command/change-host?dryRun=true',
    body: '{"ip":"10.0.0.7"}',
    nodeId: 'ab'.repeat(16),
    domain: node.url,
    signedKeys: ['ip'],
  });
  assert.deepEqual(
    node.received.map((each) => [each.target, each.headers['x-signature']]),
    [
      ['/system/status', undefined],
      ['/command/change-host', 'signature-1'],
      ['/command/change-host?dryRun=true', 'signature-2'],
    ],
  );
});

test('a key signs in the bound form, or in the form of the phone app when told to', async () => {
  await using node = await FakeNode.start();
  node.on('POST /command/reboot', () => ({ body: { message: 'success', data: { jobId: 'j' } } }));
  const key = createKey({ name: 'alice@example.com' });
  await createClient({ node: node.url, key }).call('command.reboot');
  const legacy = createClient({ node: node.url, key, signatures: 'legacy' });
  await Promise.all([legacy.call('command.reboot'), legacy.call('command.reboot')]);
  const tokens = node.of('POST /command/reboot').map((each) => String(each.headers['x-signature']));
  const claims = tokens.map((token) =>
    JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()),
  );
  assert.equal(claims[0].path, '/command/reboot');
  assert.equal(claims[0].nodeId, 'ab'.repeat(16));
  assert.deepEqual(claims[1].body, { username: 'alice' });
  assert.equal('nonce' in claims[1], false);
  assert.equal(new Set(tokens).size, 3, 'no signature is sent twice');
});

test('a session token goes as a Bearer', async () => {
  await using node = await FakeNode.start();
  node.on('GET /jobs', () => ({ body: { message: 'success', data: [] } }));
  await createClient({ node: node.url, token: 'beos_s_x' }).call('jobs.list');
  assert.equal(node.of('GET /jobs')[0]?.headers.authorization, 'Bearer beos_s_x');
});

test('an aborted call rejects with the reason of its signal', async () => {
  await using node = await FakeNode.start();
  const controller = new AbortController();
  node.on('GET /jobs', () => {
    controller.abort(new Error('enough'));
    return new Promise(() => undefined);
  });
  const call = createClient({ node: node.url }).call('jobs.list', { signal: controller.signal });
  await assert.rejects(call, /enough/);
});
