import assert from 'node:assert/strict';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { test } from 'node:test';
import { getCACertificates, rootCertificates, setDefaultCACertificates } from 'node:tls';
import { apiRoot, probeEndpoint } from '#containerd/probe.ts';
import { selfSigned } from '../../tests/support/tls.ts';

const plain = { skipVerify: false, overridePath: false, ca: undefined };

async function listening(server: Server): Promise<{ port: number } & AsyncDisposable> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const dispose = async () => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return { port, [Symbol.asyncDispose]: dispose };
}

const serving = (listener: RequestListener) => listening(createServer(listener));

test('200 and a challenge count as a registry, anything else does not', async () => {
  for (const [status, reachable] of [
    [200, true],
    [401, true],
    [302, false],
    [404, false],
    [503, false],
  ] as const) {
    await using server = await serving((_request, response) => response.writeHead(status).end());
    const result = await probeEndpoint(`http://127.0.0.1:${server.port}`, plain);
    assert.equal(result.reachable, reachable, `${status}: ${result.reason}`);
    if (!reachable) assert.match(result.reason, new RegExp(String(status)));
  }
});

test('it asks where containerd will ask', async () => {
  assert.equal(apiRoot('https://m', false).href, 'https://m/v2/');
  assert.equal(apiRoot('https://m/', false).href, 'https://m/v2/');
  assert.equal(apiRoot('https://m/sub', false).href, 'https://m/sub/v2/');
  assert.equal(apiRoot('https://m/v2', false).href, 'https://m/v2/');
  assert.equal(apiRoot('https://m/v2/proxy', true).href, 'https://m/v2/proxy/');
  const asked: string[] = [];
  await using server = await serving((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.end();
  });
  await probeEndpoint(`http://127.0.0.1:${server.port}/x`, plain);
  assert.deepEqual(asked, ['GET /x/v2/']);
});

test('nobody there is told in words; an endless answer does not keep us', async () => {
  const server = await serving((_request, response) => {
    response.writeHead(200);
    response.write('x'.repeat(100_000)); // and never ends
  });
  assert.equal((await probeEndpoint(`http://127.0.0.1:${server.port}`, plain)).reachable, true);
  await server[Symbol.asyncDispose]();
  // A port that the kernel hands out to nobody, unlike the one that the server has just left.
  const gone = await probeEndpoint('http://127.0.0.1:1', plain);
  assert.equal(gone.reachable, false);
  assert.match(gone.reason, /ECONNREFUSED/);
});

test('one that never answers is given up after 5 s', async () => {
  await using server = await serving(() => undefined);
  const began = performance.now();
  const result = await probeEndpoint(`http://127.0.0.1:${server.port}`, plain);
  assert.equal(result.reachable, false);
  assert.match(result.reason, /no answer within 5 s/);
  assert.ok(performance.now() - began < 8000);
});

test('TLS is verified: unknown authority refused, its own CA or skipVerify accepted', async (t) => {
  const made = selfSigned('127.0.0.1');
  if (made === undefined) return t.skip('openssl is not installed');
  const ca = made.cert;
  await using server = await listening(createTlsServer(made, (_request, response) => response.end()));
  const url = `https://127.0.0.1:${server.port}`;
  const refused = await probeEndpoint(url, plain);
  assert.equal(refused.reachable, false);
  assert.match(refused.reason, /self-signed/);
  assert.equal((await probeEndpoint(url, { ...plain, ca })).reachable, true);
  assert.equal((await probeEndpoint(url, { ...plain, skipVerify: true })).reachable, true);
  // The CA of a PUT holds for all its endpoints, and one of them may be vouched for by the system's authorities.
  const [other = ''] = rootCertificates;
  assert.equal((await probeEndpoint(url, { ...plain, ca: other })).reachable, false);
  setDefaultCACertificates([...getCACertificates('default'), ca]);
  assert.equal((await probeEndpoint(url, { ...plain, ca: other })).reachable, true);
});
