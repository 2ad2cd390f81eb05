import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CriRuntime } from '#containerd/client.ts';

/** A runtime that begins an answer of so many bytes, whatever it is asked. */
async function announcing(bytes: number) {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-cri-'));
  const socket = join(folder, 'c.sock');
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer();
  server.on('session', (session) => sessions.add(session));
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto' });
    const head = Buffer.alloc(5);
    head.writeUInt32BE(bytes, 1);
    stream.write(head);
  });
  server.listen(socket);
  await once(server, 'listening');
  return {
    socket,
    close: () => {
      for (const session of sessions) session.destroy();
      server.close();
      rmSync(folder, { recursive: true });
    },
  };
}

test('an answer that no runtime gives is refused by its announcement, not collected', async () => {
  const server = await announcing(512 * 1024 * 1024);
  const runtime = new CriRuntime({ address: () => server.socket });
  try {
    await assert.rejects(runtime.images(), { code: 'runtime_unavailable', message: /refuses.*536870912/ });
  } finally {
    runtime.close();
    server.close();
  }
});
