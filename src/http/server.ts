import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import { Readable } from 'node:stream';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { fault } from '#api/errors.ts';
import type { RawAnswer } from '#api/operation.ts';
import { type OperationName, operationNames, specOf } from '#api/operations.ts';
import {
  endAnswer,
  limits,
  namesManyHosts,
  Places,
  refusalAtTheEdge,
  sendFault,
  sendJson,
} from '#http/edge.ts';
import { errorEnvelope } from '#http/envelope.ts';
import type { Outgoing, Pipeline } from '#http/pipeline.ts';
import { plainAddress } from '#lib/net.ts';

export interface HttpOptions {
  readonly pipeline: Pick<Pipeline, 'handle'>;
  /** Names by which this node may be addressed, lower case; the same set as long as nothing has changed. */
  readonly ownNames: () => ReadonlySet<string>;
  /** The answer to GET /system/status, complete and from memory. */
  readonly statusBody: () => Buffer;
  readonly logInternal: (requestId: string, operation: string, error: unknown) => void;
}

export interface ListenAt {
  readonly host?: string;
  readonly port?: number;
  readonly socket?: string;
}

/** The network edge: one router behind any number of listeners. */
export class HttpEdge {
  readonly #options: HttpOptions;
  readonly #app: FastifyInstance;
  readonly #servers: Server[] = [];
  readonly #places = new Places(limits.connectionsOfOneAddress);
  readonly #closing = new AbortController();
  /** Requests that came over the unix socket; the kernel has checked who may connect to it. */
  readonly #onSocket = new WeakSet<IncomingMessage>();

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#app = fastify({
      logger: false,
      bodyLimit: limits.bodyBytes,
      exposeHeadRoutes: false,
      routerOptions: { maxParamLength: 12_000, ignoreTrailingSlash: true },
      frameworkErrors: (error, request, reply) => this.#failed(error, request, reply),
    });
    this.#app.removeAllContentTypeParsers();
    this.#app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
    this.#app.setErrorHandler((error, request, reply) => this.#failed(error, request, reply));
    this.#app.setNotFoundHandler((request, reply) => {
      void this.#send(
        reply,
        errorAnswer(fault('not_found', `There is no ${request.method} ${request.url.split('?')[0]}.`)),
      );
    });
    for (const name of operationNames) this.#route(name);
  }

  /** Starts to listen; resolves with the port (0 for a socket). Rejects when the place is taken. */
  async listen(at: ListenAt): Promise<number> {
    await this.#app.ready();
    const listener = at.socket === undefined ? this.#tcpListener() : this.#socketListener();
    const server = createServer(
      {
        maxHeaderSize: limits.headerBytes,
        requestTimeout: limits.requestMs,
        headersTimeout: limits.requestMs,
        keepAliveTimeout: 65_000,
        connectionsCheckingInterval: 2_000,
        // Node would answer with nothing but a status; whom a request is for is our question (421), and none on the socket.
        requireHostHeader: false,
      },
      listener,
    );
    server.maxConnections = 1024;
    if (at.socket === undefined) server.on('connection', this.#places.take);
    server.on('clientError', answerClientError);
    server.on('checkExpectation', (request, response) => {
      const foreign =
        at.socket === undefined ? refusalAtTheEdge(request, this.#options.ownNames()) : undefined;
      sendFault(response, foreign ?? expectsTooMuch());
    });
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      const { host, port, socket } = at;
      server.listen(socket === undefined ? { host, port, ipv6Only: host === '::' } : { path: socket }, () => {
        server.off('error', reject);
        resolve();
      });
    });
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** No new requests; the streams end; what is under way has `graceMs` to finish. */
  async close(graceMs = 3000): Promise<void> {
    this.#closing.abort();
    const closed = this.#servers.map(
      (server) =>
        new Promise<void>((resolve) => {
          server.close(() => resolve());
          server.closeIdleConnections();
        }),
    );
    const timer = setTimeout(() => {
      for (const server of this.#servers) server.closeAllConnections();
    }, graceMs);
    await Promise.all(closed);
    clearTimeout(timer);
    await this.#app.close();
  }

  #tcpListener(): RequestListener {
    // Clients ask the same host again and again: what was found good stays good until the names of this node change.
    let good: { readonly host: string | undefined; readonly names: ReadonlySet<string> } | undefined;
    return (request, response) => {
      const names = this.#options.ownNames();
      const { host, origin } = request.headers;
      const known = good !== undefined && host === good.host && names === good.names;
      if (known && origin === undefined && request.url?.startsWith('/') && !namesManyHosts(request)) {
        this.#dispatch(request, response);
        return;
      }
      const refused = refusalAtTheEdge(request, names);
      if (refused !== undefined) {
        sendFault(response, refused);
        return;
      }
      if (request.url?.startsWith('/')) good = { host, names };
      this.#dispatch(request, response);
    };
  }

  #socketListener(): RequestListener {
    return (request, response) => {
      this.#onSocket.add(request);
      this.#dispatch(request, response);
    };
  }

  /** The phone asks for the status every few seconds, of every node: it is answered from memory, ahead of the router. */
  #dispatch(request: IncomingMessage, response: ServerResponse): void {
    if (request.url === '/system/status' && request.method === 'GET') {
      sendJson(response, 200, this.#options.statusBody());
    } else {
      this.#app.routing(request, response);
    }
  }

  #route(operation: OperationName): void {
    const { method, path } = specOf(operation);
    this.#app.route({
      method,
      url: path,
      handler: async (request, reply) => {
        const outgoing = await this.#options.pipeline.handle(this.#incoming(operation, request, reply));
        await this.#send(reply, outgoing);
        return reply;
      },
    });
  }

  #incoming(operation: OperationName, request: FastifyRequest, reply: FastifyReply) {
    const gone = new AbortController();
    reply.raw.once('close', () => gone.abort());
    const params = request.params as Readonly<Record<string, unknown>>;
    return {
      operation,
      transport: this.#onSocket.has(request.raw) ? ('socket' as const) : ('tcp' as const),
      remoteAddress: plainAddress(request.raw.socket.remoteAddress ?? ''),
      localAddress: plainAddress(request.raw.socket.localAddress ?? ''),
      method: request.method,
      target: request.raw.url ?? '',
      header: (name: string) => headerOf(request.raw, name),
      headerNames: Object.keys(request.raw.headersDistinct),
      rawBody: Buffer.isBuffer(request.body) ? request.body : new Uint8Array(),
      params: wildcardNamed(operation, params),
      query: request.query as Readonly<Record<string, unknown>>,
      signal: AbortSignal.any([gone.signal, this.#closing.signal]),
      requestId: request.id,
    };
  }

  async #send(reply: FastifyReply, outgoing: Outgoing): Promise<void> {
    if (reply.raw.destroyed) return;
    reply.hijack();
    if (outgoing.kind === 'json') sendJson(reply.raw, outgoing.answer.status, outgoing.answer.body);
    else await sendRaw(reply.raw, outgoing.raw);
  }

  #failed(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const known =
      code === 'FST_ERR_CTP_BODY_TOO_LARGE'
        ? fault('body_too_large', 'The body is larger than 64 KiB.')
        : isClientError(error)
          ? fault('malformed_body', 'The request could not be read.', { cause: error })
          : error;
    if (known === error) this.#options.logInternal(request.id, request.url, error);
    void this.#send(reply, errorAnswer(known));
  }
}

/** RFC 9110 §10.1.1 knows one expectation, and Node meets that one. */
function expectsTooMuch(): Error {
  return fault('invalid_input', 'Nothing but 100-continue can be expected.', { field: 'Expect' });
}

function errorAnswer(error: unknown): Outgoing {
  const envelope = errorEnvelope(error, undefined);
  return { kind: 'json', answer: { status: envelope.code, body: JSON.stringify(envelope) } };
}

function isClientError(error: unknown): boolean {
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined;
  return typeof status === 'number' && status >= 400 && status < 500;
}

/** One value of a header that must not come twice; several of it are as good as a wrong one. */
function headerOf(request: IncomingMessage, name: string): string | undefined {
  const values = request.headersDistinct[name.toLowerCase()];
  return values?.length === 1 ? values[0] : values?.join(', ');
}

/** Fastify calls the rest of a path `*`; the contract calls it by the name of its only parameter. */
function wildcardNamed(
  operation: OperationName,
  params: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  if (!Object.hasOwn(params, '*')) return params;
  const [name] = Object.keys(specOf(operation).params?.properties ?? {});
  return name === undefined ? params : { [name]: params['*'] };
}

async function sendRaw(
  response: ServerResponse,
  { raw, contentType, status, headers }: RawAnswer,
): Promise<void> {
  response.writeHead(status ?? 200, {
    'content-type': contentType,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  });
  if (typeof raw === 'string' || raw instanceof Uint8Array) {
    endAnswer(response, raw);
    return;
  }
  response.flushHeaders();
  // Something is written every 20 s to who goes on reading.
  response.setTimeout(2 * limits.stalledMs);
  const stream = Readable.from(raw, { objectMode: false });
  response.once('close', () => stream.destroy());
  stream.on('error', () => response.destroy());
  stream.pipe(response);
}

/** Bytes that are no HTTP at all, headers that are too large, a request that is never finished. */
function answerClientError(error: Error & { code?: string }, socket: import('node:stream').Duplex): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  // Ended is not enough: who never closes its side would keep its place among the connections for good.
  socket.once('finish', () => socket.destroy());
  const tooLarge = error.code === 'HPE_HEADER_OVERFLOW';
  const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const status = tooLarge
    ? '431 Request Header Fields Too Large'
    : late
      ? '408 Request Timeout'
      : '400 Bad Request';
  const code = Number(status.slice(0, 3));
  const body = JSON.stringify({ code, message: status.slice(4), error: { code: 'invalid_input' } });
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
