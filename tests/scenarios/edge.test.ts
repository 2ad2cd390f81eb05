import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { ask, type DaemonProcess, startDaemonProcess } from '../support/daemon-process.ts';

/** A connection that never closes its own side. */
async function stubborn(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** The first line of the answer to bytes as they are. */
async function lineFor(port: number, text: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.end(text);
  const [first] = (await once(socket, 'data', { signal: AbortSignal.timeout(10_000) })) as [Buffer];
  socket.destroy();
  return first.toString().split('\r\n')[0] ?? '';
}

async function openFds(daemon: DaemonProcess): Promise<number> {
  const { text } = await ask(daemon.port, { path: '/metrics' });
  return Number(/^process_open_fds (\d+)/m.exec(text)?.[1]);
}

test('who sends rubbish and never closes its side keeps no connection', async () => {
  await using daemon = await startDaemonProcess();
  const before = await openFds(daemon);
  const sockets: Socket[] = [];
  for (let n = 0; n < 50; n++) {
    const socket = await stubborn(daemon.port);
    socket.resume();
    socket.write('BAD\r\n\r\n');
    await once(socket, 'end');
    sockets.push(socket);
  }
  const until = Date.now() + 10_000;
  while ((await openFds(daemon)) > before + 5) {
    assert.ok(Date.now() < until, `${await openFds(daemon)} descriptors, ${before} before`);
  }
  for (const socket of sockets) socket.destroy();
});

test('one address gets a part of the connections, and finds room again when it lets go', async () => {
  await using daemon = await startDaemonProcess();
  const sockets = await Promise.all(Array.from({ length: 300 }, () => stubborn(daemon.port)));
  await assert.rejects(ask(daemon.port, { path: '/livez' }));
  const fds = Number(
    (await ask(`${daemon.dataDir}/beosd.sock`, { path: '/metrics' })).text.match(/fds (\d+)/)?.[1],
  );
  assert.ok(fds < 256 + 60, `${fds} descriptors`);
  for (const socket of sockets) socket.destroy();
  const until = Date.now() + 10_000;
  for (;;) {
    const answer = await ask(daemon.port, { path: '/livez' }).catch(() => undefined);
    if (answer?.status === 200) break;
    assert.ok(Date.now() < until, 'no room again');
  }
});

test('a target in absolute form is judged by the name in it', async () => {
  await using daemon = await startDaemonProcess();
  const { port } = daemon;
  const line = (target: string, host: string) =>
    lineFor(port, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  assert.match(await line(`http://evil.example/livez`, `127.0.0.1:${port}`), / 421 /);
  assert.match(await line(`http://127.0.0.1@evil.example/livez`, `127.0.0.1:${port}`), / 421 /);
  assert.match(await line(`http://127.0.0.1:${port}/livez`, `127.0.0.1:${port}`), / 200 /);
});
