import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { createServer as createMuteServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CriRuntime } from '#containerd/client.ts';

const grpc = { ':status': 200, 'content-type': 'application/grpc+proto' };

/** A runtime that treats every question the same way, on a socket that it may leave and take again. */
class StubRuntime implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'beosd-cri-'));
  readonly socket = join(this.folder, 'c.sock');
  readonly #sessions = new Set<ServerHttp2Session>();
  #server: Http2Server | undefined;

  async serve(answer: (stream: ServerHttp2Stream) => void): Promise<void> {
    const server = createServer();
    server.on('session', (session) => this.#sessions.add(session));
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.on('error', () => undefined);
      answer(stream);
    });
    server.listen(this.socket);
    await once(server, 'listening');
    this.#server = server;
  }

  async stop(): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    this.#sessions.clear();
    const server = this.#server;
    this.#server = undefined;
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true });
  }
}

/** Begins an answer of so many bytes. */
const announcing = (bytes: number) => (stream: ServerHttp2Stream) => {
  stream.respond(grpc);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes, 1);
  stream.write(head);
};

/** An empty message, which is a version as good as any. */
const answering = (stream: ServerHttp2Stream) => {
  stream.respond(grpc, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(Buffer.alloc(5));
};

const refusing = (status: number, message: string) => (stream: ServerHttp2Stream) =>
  stream.respond({ ...grpc, 'grpc-status': String(status), 'grpc-message': message }, { endStream: true });

test('an answer that no runtime gives is refused by its announcement, not collected', async () => {
  await using server = new StubRuntime();
  await server.serve(announcing(512 * 1024 * 1024));
  const runtime = new CriRuntime({ address: () => server.socket });
  await assert.rejects(runtime.images(), { code: 'runtime_unavailable', message: /refuses.*536870912/ });
  runtime.close();
});

test('every call has a deadline: nobody answers, or even takes part in the protocol', async () => {
  await using silent = new StubRuntime();
  await silent.serve(() => undefined);
  const mute = createMuteServer();
  const muteSocket = join(silent.folder, 'mute.sock');
  mute.listen(muteSocket);
  await once(mute, 'listening');
  for (const socket of [silent.socket, muteSocket]) {
    const runtime = new CriRuntime({ address: () => socket, timeoutMs: 100 });
    const calls = [
      () => runtime.version(),
      () => runtime.status(),
      () => runtime.images(),
      () => runtime.imageRecords(),
      () => runtime.containers(),
      () => runtime.imageFilesystems(),
    ];
    const down = { code: 'runtime_unavailable', message: new RegExp(`does not answer at ${socket}`) };
    for (const call of calls) await assert.rejects(call(), down);
    runtime.close();
  }
  mute.close();
});

test('a connection that broke comes back by itself, on the socket of that moment', async () => {
  await using server = new StubRuntime();
  await using other = new StubRuntime();
  let address = server.socket;
  const runtime = new CriRuntime({ address: () => address });
  const gone = {
    code: 'runtime_unavailable',
    message: `The container runtime does not answer at ${address}: connect ENOENT ${address}`,
  };
  await assert.rejects(runtime.version(), gone);
  await server.serve(answering);
  await runtime.version();
  await server.stop();
  await assert.rejects(runtime.version(), { code: 'runtime_unavailable', message: /does not answer/ });
  await server.serve(answering);
  await runtime.version();
  await other.serve(answering);
  await server.stop();
  address = other.socket;
  await runtime.version();
  runtime.close();
});

test('a runtime without CRI is told apart from one that is down, with what to do', async () => {
  await using server = new StubRuntime();
  await server.serve(refusing(12, 'unknown service runtime.v1.RuntimeService'));
  const runtime = new CriRuntime({ address: () => server.socket });
  await assert.rejects(runtime.version(), {
    code: 'runtime_unavailable',
    message: /offers no Kubernetes interface \(CRI\) at .*: unknown service/,
    details: { remedy: 'Take "cri" out of disabled_plugins in its configuration and restart it.' },
  });
  runtime.close();
});
