import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import { connect, constants } from 'node:http2';
import type { KubeConfig } from '#cluster/kube/kubeconfig.ts';
import type { Clock } from '#host/clock.ts';
import { errnoOf, Fault, messageOf } from '#lib/fault.ts';

/** The API server said no. `status` is HTTP's; `retryAfterMs` what it asked for. */
export class KubeStatusError extends Error {
  override readonly name = 'KubeStatusError';
  readonly status: number;
  readonly retryAfterMs: number | undefined;

  constructor(status: number, message: string, retryAfterMs?: number) {
    super(`the API server answered ${status}: ${message}`);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The connection is gone or silent; everything on it ends with this. */
export class KubeLinkError extends Fault<'kube_link'> {
  constructor(message: string, cause?: unknown) {
    super('kube_link', message, { cause });
  }
}

export interface KubeRequest {
  readonly method?: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Path and query below the server. */
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** The whole exchange must end within this many ms. Default 10 s. Not for watches. */
  readonly deadlineMs?: number;
  /** The headers of the answer must come within this many ms, however long the body may last. */
  readonly openWithinMs?: number;
  /** Called when the server has accepted the request (2xx), before any of the body. */
  readonly onOpen?: () => void;
}

export interface KubeTimings {
  readonly connectMs: number;
  /** A connection that has said nothing for so long is asked (HTTP/2 PING). */
  readonly silenceMs: number;
  /** And is dropped when it does not answer within this. */
  readonly pingMs: number;
}

export const defaultTimings: KubeTimings = { connectMs: 5000, silenceMs: 5000, pingMs: 4000 };

type ResponseHeaders = IncomingHttpHeaders & { ':status'?: number };

/** Objects bigger than this are never asked for in one piece. */
const maxBodyBytes = 8 * 1024 * 1024;
/** Flow-control window: a page of a list comes without a round trip for every 64 KiB. */
const windowBytes = 512 * 1024;

/**
 * One HTTP/2 connection to the API server; every list, watch and request of ours is a stream on it. HTTP/2 because it
 * is one socket, and because a PING tells a frozen server from a quiet one without making a request.
 */
export class KubeConnection {
  readonly #session: ClientHttp2Session;
  readonly #config: KubeConfig;
  readonly #clock: Clock;
  readonly #timings: KubeTimings;
  readonly #ended = new AbortController();
  /** Monotonic ms when the server was last heard. */
  #heard: number;
  #requests = 0;

  private constructor(config: KubeConfig, session: ClientHttp2Session, clock: Clock, timings: KubeTimings) {
    this.#config = config;
    this.#session = session;
    this.#clock = clock;
    this.#timings = timings;
    this.#heard = clock.monotonic();
    session.on('error', (error) => this.close(new KubeLinkError(`connection lost: ${messageOf(error)}`)));
    session.on('close', () => this.close(new KubeLinkError('the API server closed the connection')));
    session.on('goaway', () => this.close(new KubeLinkError('the API server is going away')));
  }

  /** Connects (TCP, TLS, HTTP/2 settings) or throws {@link KubeLinkError} within `connectMs`. */
  static async open(
    config: KubeConfig,
    clock: Clock,
    signal: AbortSignal,
    timings: KubeTimings = defaultTimings,
  ): Promise<KubeConnection> {
    signal.throwIfAborted();
    const session = connect(config.server, {
      settings: { enablePush: false, initialWindowSize: windowBytes },
      ...(config.ca === undefined ? {} : { ca: config.ca }),
      ...(config.cert === undefined ? {} : { cert: config.cert }),
      ...(config.key === undefined ? {} : { key: config.key }),
      ...(config.serverName === undefined ? {} : { servername: config.serverName }),
    });
    try {
      await firstSettings(session, clock, signal, timings.connectMs);
    } catch (error) {
      session.on('error', () => undefined);
      session.destroy();
      throw error;
    }
    session.setLocalWindowSize(4 * windowBytes);
    const connection = new KubeConnection(config, session, clock, timings);
    void connection.#guard();
    return connection;
  }

  /** Aborted when the connection has ended; its reason says why. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  /** Monotonic ms when the server was last heard. */
  get heardAt(): number {
    return this.#heard;
  }

  /** Requests made on this connection so far, watches included. */
  get requests(): number {
    return this.#requests;
  }

  close(reason: Error): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort(reason);
    this.#session.destroy();
  }

  /** A whole answer as JSON. Throws {@link KubeStatusError} for 4xx and 5xx, {@link KubeLinkError} when nobody answers. */
  async json(request: KubeRequest): Promise<unknown> {
    const parts: Buffer[] = [];
    let size = 0;
    await this.stream({ deadlineMs: 10_000, ...request }, (chunk) => {
      size += chunk.length;
      if (size > maxBodyBytes) throw new KubeLinkError('an answer is larger than 8 MiB');
      parts.push(chunk);
    });
    return size === 0 ? undefined : parseAnswer(Buffer.concat(parts).toString('utf8'));
  }

  /**
   * Hands over the body of a 2xx answer as it comes; resolves at its end. An `onChunk` that throws ends the stream with
   * its error. Without `deadlineMs` it lasts as long as the server likes (a watch).
   */
  async stream(request: KubeRequest, onChunk: (chunk: Buffer) => void): Promise<void> {
    const signals = [this.#ended.signal];
    if (request.signal) signals.push(request.signal);
    const over = new AbortController();
    const opened = new AbortController();
    const signal = AbortSignal.any([...signals, over.signal]);
    const limit = (ms: number | undefined, until: AbortSignal) => {
      if (ms === undefined) return;
      const late = () => over.abort(new KubeLinkError(`no answer within ${ms} ms`));
      this.#clock.sleep(ms, until).then(late, () => undefined);
    };
    limit(request.deadlineMs, signal);
    limit(request.openWithinMs, AbortSignal.any([signal, opened.signal]));
    const onOpen = () => {
      opened.abort();
      request.onOpen?.();
    };
    try {
      signal.throwIfAborted();
      await this.#exchange(this.#start(request), signal, onChunk, onOpen);
    } finally {
      over.abort();
    }
  }

  #start(request: KubeRequest): ClientHttp2Stream {
    this.#requests++;
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const stream = this.#session.request(
      {
        ':method': request.method ?? 'GET',
        ':path': `${this.#config.path}${request.path}`,
        accept: 'application/json',
        'user-agent': 'beosd',
        ...(this.#config.token === undefined ? {} : { authorization: `Bearer ${this.#config.token}` }),
        ...(body === undefined ? {} : { 'content-type': request.contentType ?? 'application/json' }),
      },
      { endStream: body === undefined },
    );
    if (body !== undefined) stream.end(body);
    return stream;
  }

  #exchange(
    stream: ClientHttp2Stream,
    signal: AbortSignal,
    onChunk: (chunk: Buffer) => void,
    onOpen: () => void,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      let refused: { headers: ResponseHeaders; text: string } | undefined;
      let done = false;
      const finish = (error?: unknown) => {
        if (done) return;
        done = true;
        signal.removeEventListener('abort', onAbort);
        if (error === undefined) return resolve();
        stream.close(constants.NGHTTP2_CANCEL);
        reject(error);
      };
      const onAbort = () => finish(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      stream.on('response', (headers: ResponseHeaders) => {
        this.#heard = this.#clock.monotonic();
        if ((headers[':status'] ?? 0) >= 300) refused = { headers, text: '' };
        else onOpen();
      });
      stream.on('data', (chunk: Buffer) => {
        this.#heard = this.#clock.monotonic();
        if (refused) refused.text = (refused.text + chunk.toString('utf8')).slice(0, 4096);
        else if (!done) guarded(() => onChunk(chunk), finish);
      });
      stream.on('error', (error) => finish(new KubeLinkError(`stream broken: ${messageOf(error)}`, error)));
      stream.on('close', () => finish(new KubeLinkError('the stream ended early')));
      stream.on('end', () => finish(refused ? statusError(refused.headers, refused.text) : undefined));
    });
  }

  /** Asks a silent server whether it is there. */
  async #guard(): Promise<void> {
    const { silenceMs, pingMs } = this.#timings;
    try {
      for (;;) {
        const silent = this.#clock.monotonic() - this.#heard;
        if (silent < silenceMs) await this.#clock.sleep(silenceMs - silent, this.ended);
        else if (await this.#answersPing(pingMs)) this.#heard = this.#clock.monotonic();
        else
          this.close(
            new KubeLinkError(`the API server has been silent for ${Math.round(silent + pingMs)} ms`),
          );
      }
    } catch {
      // The connection has ended; whoever uses it is told through `ended`.
    }
  }

  #answersPing(withinMs: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const answered = new AbortController();
      const give = AbortSignal.any([this.ended, answered.signal]);
      this.#clock.sleep(withinMs, give).then(
        () => resolve(false),
        () => (this.ended.aborted ? reject(this.ended.reason) : undefined),
      );
      this.#session.ping((error) => {
        resolve(error === null);
        answered.abort();
      });
    });
  }
}

/** The parser's own error quotes what it refuses, and a token may stand there. */
function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new KubeLinkError('the answer is not JSON');
  }
}

/** Runs what the caller gave us; what it throws ends the stream, not the process. */
function guarded(run: () => void, onError: (error: unknown) => void): void {
  try {
    run();
  } catch (error) {
    onError(error);
  }
}

/** The server's own settings are the first thing it says: until then it may be a socket without a server behind it. */
function firstSettings(
  session: ClientHttp2Session,
  clock: Clock,
  signal: AbortSignal,
  withinMs: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const settled = new AbortController();
    const finish = (error?: unknown) => {
      settled.abort();
      signal.removeEventListener('abort', onAbort);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onAbort = () => finish(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    session.once('remoteSettings', () => finish());
    session.once('error', (error) =>
      finish(new KubeLinkError(`cannot connect: ${messageOf(error) || errnoOf(error)}`, error)),
    );
    session.once('close', () => finish(new KubeLinkError('closed while connecting')));
    clock.sleep(withinMs, settled.signal).then(
      () => finish(new KubeLinkError(`no connection within ${withinMs} ms`)),
      () => undefined,
    );
  });
}

function statusError(headers: ResponseHeaders, text: string): KubeStatusError {
  const seconds = Number(headers['retry-after']);
  const retry = Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, 30) * 1000 : undefined;
  return new KubeStatusError(headers[':status'] ?? 0, messageIn(text), retry);
}

/** The `message` of a Kubernetes Status object, or the first line of whatever came. */
function messageIn(text: string): string {
  try {
    const status: unknown = JSON.parse(text);
    if (typeof status === 'object' && status !== null && 'message' in status) return String(status.message);
  } catch {
    // Not JSON: a proxy's page, or cut off.
  }
  return text.split('\n')[0]?.slice(0, 200) ?? '';
}
