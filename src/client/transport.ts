import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { ApiError, Unreachable } from '#client/api-error.ts';

/** Where a node is: a base URL, or the unix socket of this machine. */
export type Target = { readonly url: URL } | { readonly socketPath: string };

export interface WireRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal?: AbortSignal;
  /** ms without a byte after which the exchange is given up. */
  readonly idleMs: number;
}

export interface WireResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** No answer of a node is larger; a stream is not limited. */
const maxAnswerBytes = 32 * 1024 * 1024;

/** How a person names the target. */
export function targetName(target: Target): string {
  return 'url' in target ? target.url.origin : target.socketPath;
}

/** The base URL as signatures and Host headers name it. */
export function targetOrigin(target: Target): string {
  return 'url' in target ? target.url.origin : 'http://localhost';
}

/** Sends one request and reads its whole answer. Throws {@link Unreachable}, or the reason of the signal. */
export async function exchange(target: Target, wire: WireRequest): Promise<WireResponse> {
  const response = await open(target, wire);
  let text = '';
  try {
    for await (const chunk of response) {
      text += chunk;
      if (text.length > maxAnswerBytes) throw new ApiError(200, 'invalid_answer', 'The answer is too large.');
    }
  } catch (error) {
    wire.signal?.throwIfAborted();
    throw error instanceof ApiError ? error : new Unreachable(targetName(target), error, true);
  }
  return { status: response.statusCode ?? 0, headers: response.headers, text };
}

/** Sends one request and returns once its headers have come; the body is read as text by the caller. */
export function open(target: Target, wire: WireRequest): Promise<IncomingMessage> {
  const { body = '', signal } = wire;
  signal?.throwIfAborted();
  const secure = 'url' in target && target.url.protocol === 'https:';
  const length = wire.method === 'GET' ? {} : { 'content-length': String(Buffer.byteLength(body)) };
  const request = (secure ? httpsRequest : httpRequest)({
    ...addressOf(target),
    method: wire.method,
    path: wire.path,
    headers: { ...wire.headers, ...length },
    agent: false,
    ...(signal === undefined ? {} : { signal }),
  });
  request.setTimeout(wire.idleMs, () => request.destroy(new Error(`no answer within ${wire.idleMs} ms`)));
  return new Promise((resolve, reject) => {
    let connected = false;
    request.once('socket', (socket) => {
      socket.once('connect', () => {
        connected = true;
      });
    });
    request.once('response', (response) => {
      response.setEncoding('utf8');
      resolve(response);
    });
    request.on('error', (error) => {
      reject(signal?.aborted ? signal.reason : new Unreachable(targetName(target), error, connected));
    });
    request.end(body);
  });
}

function addressOf(target: Target) {
  if ('socketPath' in target) return { socketPath: target.socketPath, host: 'localhost' };
  const { hostname, port } = target.url;
  return { host: hostname.replace(/^\[|\]$/g, ''), ...(port === '' ? {} : { port }) };
}
