import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { IncomingCall } from '#http/pipeline.ts';
import { HttpEdge } from '#http/server.ts';

/** An edge that passes on whatever it lets through, and what came of it. */
async function open(t: TestContext, at: 'tcp' | 'socket' = 'tcp') {
  const calls: IncomingCall[] = [];
  const names: ReadonlySet<string> = new Set(['beos.local']);
  const edge = new HttpEdge({
    pipeline: {
      handle: (call) => {
        calls.push(call);
        return Promise.resolve({
          kind: 'json',
          answer: { status: 200, body: '{"code":200,"message":"ok"}' },
        });
      },
    },
    ownNames: () => names,
    statusBody: () => Buffer.from('{"code":200,"message":"status"}'),
    logInternal: (_id, operation, error) => assert.fail(`${operation}: ${String(error)}`),
  });
  t.after(() => edge.close(0));
  const socket = join(tmpdir(), `beosd-edge-${process.pid}.sock`);
  const port = await edge.listen(at === 'tcp' ? { host: '127.0.0.1', port: 0 } : { socket });
  const place = at === 'tcp' ? { host: '127.0.0.1', port } : { path: socket };
  /** Sends bytes as they are; the statuses and bodies of all answers until the edge closes, or `count` have come. */
  const send = async (text: string, count = 1) => {
    const client = connect(place);
    client.on('error', () => undefined);
    client.write(text);
    let said = '';
    const answers = () =>
      [...said.matchAll(/HTTP\/1\.1 (\d{3})[\s\S]*?\r\n\r\n([\s\S]*?)(?=HTTP\/1\.1 |$)/g)].map(
        ([, status, body]) => ({
          status: Number(status),
          body: body ?? '',
        }),
      );
    const whole = () => answers().filter(({ status, body }) => status === 100 || body !== '').length >= count;
    client.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (whole()) client.destroy();
    });
    await once(client, 'close', { signal: AbortSignal.timeout(10_000) });
    return answers();
  };
  /** Sends `first`, and then `more` again and again; what was said, and when, until the edge closes. */
  const dawdle = async (first: string, more: string) => {
    const client = connect(place);
    let said = '';
    client.on('error', () => undefined);
    client.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    client.write(first);
    const drip = setInterval(() => client.write(more), 250);
    await once(client, 'close', { signal: AbortSignal.timeout(30_000) });
    clearInterval(drip);
    return { said, at: performance.now() };
  };
  return { calls, send, dawdle };
}

const get = (head: string, path = '/livez') => `GET ${path} HTTP/1.1\r\n${head}\r\n`;

/** Every refusal is an envelope, whoever has noticed it. */
function refusalIn(body: string): { code: number; message: string; error: { code: string } } {
  const envelope = JSON.parse(body) as { code: number; message: string; error: { code: string } };
  assert.equal(typeof envelope.message, 'string');
  return envelope;
}

test('whom a request is for is looked at before anything else', async (t) => {
  const { calls, send } = await open(t);
  for (const host of [
    '127.0.0.1:1',
    '[::1]:18088',
    '[fe80::1]',
    'localhost',
    'LOCALHOST.',
    'Beos.Local.:18088',
  ]) {
    assert.equal((await send(get(`Host: ${host}\r\n`)))[0]?.status, 200, host);
  }
  const passed = calls.length;
  const foreign = [
    '',
    'Host:\r\n',
    'Host: evil.example\r\n',
    'Host: beos.local.evil.example\r\n',
    'Host: 127.0.0.1.evil.example\r\n',
    'Host: 127.1\r\n',
    'Host: 0x7f000001\r\n',
    'Host: 2130706433\r\n',
    'Host: ::1\r\n',
    'Host: [::1\r\n',
    'Host: localhost:x\r\n',
    'Host: localhost@evil.example\r\n',
    'Host: evil.example@127.0.0.1\r\n',
    'Host: evil.example/127.0.0.1\r\n',
    'Host: evil.example#127.0.0.1\r\n',
    'Host: 127.0.0.1, evil.example\r\n',
    'Host: 127.0.0.1\r\nHost: evil.example\r\n',
    'Host: 127.0.0.1\r\nhOST: 127.0.0.1\r\n',
  ];
  for (const head of foreign) {
    for (const path of ['/livez', '/system/status', '/nowhere']) {
      const [answer] = await send(get(head, path));
      assert.equal(answer?.status, 421, head);
      assert.equal(refusalIn(answer?.body ?? '').error.code, 'host_not_ours');
    }
  }
  assert.equal(calls.length, passed);
});

test('a connection that was good once is looked at again with every request', async (t) => {
  const { send } = await open(t);
  const good = get('Host: 127.0.0.1\r\n', '/system/status');
  const twice = get('Host: 127.0.0.1\r\nHost: evil.example\r\n', '/system/status');
  assert.deepEqual(
    (await send(`${good}${twice}`, 2)).map(({ status }) => status),
    [200, 421],
  );
  const answers = await send(`${good}${good}${get('Host: evil.example\r\n', '/system/status')}`, 3);
  assert.deepEqual(
    answers.map(({ status }) => status),
    [200, 200, 421],
  );
  const foreign = `${good}${get('Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n', '/system/status')}`;
  assert.deepEqual(
    (await send(foreign, 2)).map(({ status }) => status),
    [200, 403],
  );
});

test('a page of ours is of the very host and port that it calls', async (t) => {
  const { send } = await open(t);
  const from = async (origin: string, host: string) =>
    (await send(get(`Host: ${host}\r\nOrigin: ${origin}\r\n`)))[0]?.status;
  assert.equal(await from('http://127.0.0.1:18088', '127.0.0.1:18088'), 200);
  assert.equal(await from('http://[::1]:18088', '[::1]:18088'), 200);
  for (const origin of [
    'null',
    'http://127.0.0.1',
    'http://127.0.0.1:80',
    'https://127.0.0.1:18088',
    'file://',
  ]) {
    assert.equal(await from(origin, '127.0.0.1:18088'), 403, origin);
  }
});

test('an expectation that is not known is refused like anything else, and after the host', async (t) => {
  const { calls, send } = await open(t);
  const [refused] = await send(get('Host: 127.0.0.1\r\nExpect: a-teapot\r\n'));
  assert.equal(refused?.status, 400);
  assert.equal(refusalIn(refused?.body ?? '').error.code, 'invalid_input');
  const [foreign] = await send(get('Host: evil.example\r\nExpect: a-teapot\r\n'));
  assert.equal(foreign?.status, 421);
  assert.equal(calls.length, 0);
  const post =
    'POST /command/reboot HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n';
  assert.deepEqual(
    (await send(post, 2)).map(({ status }) => status),
    [100, 200],
  );
});

test('what two readers could take for two different requests is none', async (t) => {
  const { calls, send } = await open(t);
  const post = (head: string, body: string) =>
    `POST /command/reboot HTTP/1.1\r\nHost: 127.0.0.1\r\n${head}\r\n${body}`;
  for (const text of [
    post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
    post('Content-Length: 5\r\nContent-Length: 6\r\n', 'abcdef'),
    post('Transfer-Encoding: chunked, identity\r\n', '0\r\n\r\n'),
    post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n'),
    post('Content-Length : 0\r\n', ''),
    post('Content-Length: +0\r\n', ''),
    post('A: b\r\n folded: 1\r\n', ''),
    'GET /livez HTTP/1.1\nHost: 127.0.0.1\n\n',
    `GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nA: \0\r\n\r\n`,
  ]) {
    const [answer] = await send(text);
    assert.equal(answer?.status, 400, text);
    assert.equal(refusalIn(answer?.body ?? '').code, 400);
  }
  assert.equal(calls.length, 0);
});

test('headers end at 16 KiB, and none is left out silently before that', async (t) => {
  const { calls, send } = await open(t);
  const [answer] = await send(get(`Host: 127.0.0.1\r\nA: ${'x'.repeat(17 * 1024)}\r\n`));
  assert.equal(answer?.status, 431);
  assert.equal(refusalIn(answer?.body ?? '').code, 431);
  // A header that says that a proxy speaks must not get lost behind a thousand others (contract §5).
  for (const many of [900, 1100, 2100, 3000]) {
    const [each] = await send(
      get(`Host: 127.0.0.1\r\n${'a:\r\n'.repeat(many)}X-Forwarded-For: 10.0.0.1\r\n`),
    );
    assert.ok(each?.status === 431 || calls.at(-1)?.headerNames.includes('x-forwarded-for'), `${many}`);
  }
});

test('on the socket there is no host to name', async (t) => {
  const { calls, send } = await open(t, 'socket');
  for (const head of ['', 'Host: whatever.example\r\n']) {
    assert.equal((await send(get(head)))[0]?.status, 200, head);
  }
  assert.deepEqual(
    calls.map(({ transport }) => transport),
    ['socket', 'socket'],
  );
});

test('who sends a request byte by byte has ten seconds for all of it, wherever in it he dawdles', async (t) => {
  const { calls, dawdle } = await open(t);
  const post = 'POST /command/reboot HTTP/1.1\r\nHost: 127.0.0.1\r\n';
  const whole = get('Host: 127.0.0.1\r\n');
  const began = performance.now();
  const ends = await Promise.all([
    dawdle('', ''),
    dawdle('', '\r\n'),
    dawdle('GET /', 'x'),
    dawdle('GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nA: ', 'x'),
    dawdle(`${whole}GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nA: `, 'x'),
    dawdle(`${post}Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n`, 'x'),
    dawdle(`${post}Transfer-Encoding: chunked\r\n\r\n`, '1\r\nx\r\n'),
    dawdle(`${post}Transfer-Encoding: chunked\r\n\r\n1;a=`, 'x'),
    dawdle(`${post}Transfer-Encoding: chunked\r\n\r\n0\r\nA: `, 'x'),
    dawdle('GET /system/status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n', 'x'),
  ]);
  for (const { said, at } of ends) {
    assert.match(said, /HTTP\/1\.1 408 [\s\S]*"code":408/);
    // The connections are looked at every two seconds.
    assert.ok(at - began >= 9_900 && at - began < 20_000, `${Math.round(at - began)} ms: ${said}`);
  }
  assert.equal(calls.length, 1, 'only the request that was whole');
});
