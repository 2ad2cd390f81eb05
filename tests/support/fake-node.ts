import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Received {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

export interface FakeAnswer {
  readonly status?: number;
  /** The envelope without its code; or, as a string, the raw body. */
  readonly body: Record<string, unknown> | string;
}

type Answering = (request: Received) => FakeAnswer | 'drop' | Promise<FakeAnswer | 'drop'>;

/** A node as a client sees it: real HTTP and SSE bytes from a real socket, answers by the test. */
export class FakeNode implements AsyncDisposable {
  readonly received: Received[] = [];
  readonly #answers = new Map<string, Answering>();
  readonly #server: Server;
  readonly #streams = new Set<ServerResponse>();
  readonly #log: { id: number; type: string; data: unknown }[] = [];
  #newest = 0;
  /** How often a stream was opened. */
  opened = 0;
  /** Answers the next openings of the stream in place of the stream. */
  streamRefusals: FakeAnswer[] = [];

  private constructor() {
    this.#server = createServer((request, response) => void this.#serve(request, response));
    this.on('GET /system/status', () => ({
      body: { message: 'success', data: { nodeId: 'ab'.repeat(16), terminusState: 'not-installed' } },
    }));
  }

  /** Listens on a free port of the loopback, or on a unix socket. */
  static async start(socketPath?: string): Promise<FakeNode> {
    const node = new FakeNode();
    await new Promise<void>((resolve, reject) => {
      node.#server.once('error', reject);
      if (socketPath === undefined) node.#server.listen(0, '127.0.0.1', resolve);
      else node.#server.listen(socketPath, resolve);
    });
    return node;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** `METHOD /path`, without the query. */
  on(route: string, answering: Answering): void {
    this.#answers.set(route, answering);
  }

  /** Requests of one route. */
  of(route: string): Received[] {
    return this.received.filter((each) => `${each.method} ${each.target.split('?')[0]}` === route);
  }

  publish(type: string, data: Record<string, unknown> = {}): number {
    const event = { id: ++this.#newest, type, data: { at: '2026-11-22T00:00:00Z', ...data } };
    this.#log.push(event);
    for (const stream of this.#streams) stream.write(sse(event));
    return event.id;
  }

  /** Ends every stream, in the middle of whatever it says. */
  cutStreams(lastBytes = ''): void {
    for (const stream of this.#streams) {
      if (lastBytes === '') stream.destroy();
      else stream.write(lastBytes, () => stream.destroy());
    }
    this.#streams.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    for await (const chunk of request) body += chunk;
    const target = request.url ?? '';
    const received = { method: request.method ?? '', target, headers: request.headers, body };
    this.received.push(received);
    const route = `${received.method} ${target.split('?')[0]}`;
    if (route === 'GET /events') {
      this.#stream(request, response);
      return;
    }
    const answer = await (this.#answers.get(route)?.(received) ?? notFound(route));
    if (answer === 'drop') response.destroy();
    else send(response, answer);
  }

  #stream(request: IncomingMessage, response: ServerResponse): void {
    const refusal = this.streamRefusals.shift();
    if (refusal !== undefined) {
      send(response, refusal);
      return;
    }
    this.opened++;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const last = request.headers['last-event-id'];
    if (last === undefined) response.write(`retry: 1\nid: ${this.#newest}\n\n`);
    else response.write('retry: 1\n\n');
    const missed = last === undefined ? [] : this.#log.filter((event) => event.id > Number(last));
    for (const event of missed) response.write(sse(event));
    this.#streams.add(response);
    response.on('close', () => this.#streams.delete(response));
  }
}

function sse(event: { id: number; type: string; data: unknown }): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event.data)}\n\n`;
}

function notFound(route: string): FakeAnswer {
  return { status: 404, body: { message: `no ${route}`, error: { code: 'not_found' } } };
}

function send(response: ServerResponse, { status = 200, body }: FakeAnswer): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(typeof body === 'string' ? body : JSON.stringify({ code: status, ...body }));
}
