import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { endAnswer } from '#http/edge.ts';

/** More than all buffers between two sockets on one machine take. */
const large = Buffer.alloc(32 * 1024 * 1024, 'x');
const stalledMs = 300;
/** Of `/patient`: what else the machine does in the meantime must not look like a reader that has stopped. */
const patientMs = 1000;

/** A server whose answers end through the edge, by their path; `/late` once it is told to. */
async function open(t: TestContext) {
  const late: ServerResponse[] = [];
  const server = createServer((request, response) => {
    if (request.url === '/late') late.push(response);
    else if (request.url === '/patient') endAnswer(response, large, patientMs);
    else endAnswer(response, request.url === '/large' ? large : 'small', stalledMs);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { server, late, port };
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;

async function ask(port: number, ...paths: string[]): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write(paths.map(get).join(''));
  return socket;
}

const left = (server: ReturnType<typeof createServer>) =>
  new Promise<number>((resolve) => server.getConnections((_error, count) => resolve(count)));

test('who stops taking an answer, or the answers behind it, loses the connection', async (t) => {
  const { server, port } = await open(t);
  const accepted: Socket[] = [];
  server.on('connection', (socket) => accepted.push(socket));
  const clients = [
    await ask(port, '/large'),
    await ask(port, '/small', '/large'),
    await ask(port, '/large', '/small'),
  ];
  for (const client of clients) client.pause();
  const deadline = { signal: AbortSignal.timeout(20_000) };
  // A client is connected when the kernel has taken it, which may be before the server has.
  while (accepted.length < clients.length) await once(server, 'connection', deadline);
  await Promise.all(accepted.map((socket) => socket.destroyed || once(socket, 'close', deadline)));
  assert.equal(accepted.length, 3);
  assert.equal(await left(server), 0);
  for (const client of clients) client.destroy();
});

test('who takes it slowly gets all of it', async (t) => {
  const { port } = await open(t);
  const client = await ask(port, '/patient');
  const began = performance.now();
  let taken = 0;
  for await (const chunk of client) {
    taken += (chunk as Buffer).length;
    if (taken > large.length) break;
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  assert.ok(taken > large.length, `${taken} bytes`);
  assert.ok(performance.now() - began > patientMs, 'longer in all than an answer may stand still');
});

test('a connection that has got its answers waits for the next one as long as that takes', async (t) => {
  const { late, port } = await open(t);
  const client = await ask(port, '/small', '/patient', '/late');
  let taken = 0;
  client.on('data', (chunk: Buffer) => {
    taken += chunk.length;
  });
  while (taken < large.length) await once(client, 'data');
  const [response] = late;
  assert.ok(response);
  await new Promise((resolve) => setTimeout(resolve, 3 * patientMs));
  response.end('late');
  const [last] = (await once(client, 'data', { signal: AbortSignal.timeout(5000) })) as [Buffer];
  assert.match(last.toString(), /late$/);
});
