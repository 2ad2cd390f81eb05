import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP, type Socket } from 'node:net';
import { fault } from '#api/errors.ts';
import { errorEnvelope } from '#http/envelope.ts';
import type { Fault } from '#lib/fault.ts';

/** Limits of contract §1. */
export const limits = {
  bodyBytes: 64 * 1024,
  headerBytes: 16 * 1024,
  /** To send a whole request, ms. */
  requestMs: 10_000,
  /** Without taking a byte of an answer, ms. */
  stalledMs: 30_000,
  /** Of the 1024 that a listener has: one guest cannot take them all, and lock out the phone. */
  connectionsOfOneAddress: 256,
} as const;

/** Counts connections by the address that they come from; one too many is closed at once. */
export class Places {
  readonly #most: number;
  readonly #taken = new Map<string, number>();

  constructor(most: number) {
    this.#most = most;
  }

  readonly take = (socket: Pick<Socket, 'remoteAddress' | 'destroy' | 'once'>): void => {
    const address = socket.remoteAddress ?? '';
    const taken = this.#taken.get(address) ?? 0;
    if (taken >= this.#most) {
      socket.destroy();
      return;
    }
    this.#taken.set(address, taken + 1);
    socket.once('close', () => {
      const left = (this.#taken.get(address) ?? 1) - 1;
      if (left === 0) this.#taken.delete(address);
      else this.#taken.set(address, left);
    });
  };
}

/**
 * Refuses what a browser on a foreign page, or a name that was rebound to our address, would send. Before routing.
 * On the unix socket there is no browser, and no host.
 */
export function refusalAtTheEdge(request: IncomingMessage, ownNames: ReadonlySet<string>): Fault | undefined {
  if (namesManyHosts(request)) {
    return fault('host_not_ours', 'A request with more than one Host header is refused (RFC 9112, 3.2).');
  }
  const host = addressedTo(request);
  const name = host === undefined ? undefined : hostName(host);
  if (name === undefined || !(isIP(name) !== 0 || name === 'localhost' || ownNames.has(name))) {
    return fault(
      'host_not_ours',
      `${host === undefined ? 'A request without a Host' : 'The Host header'} does not name this node.`,
    );
  }
  const origin = request.headers.origin;
  if (origin !== undefined && origin.toLowerCase() !== `http://${host?.toLowerCase()}`) {
    return fault('origin_refused', 'Requests from web pages of other origins are refused.');
  }
  return undefined;
}

/** Of several Host headers Node keeps the first, and a program before us may go by the last. */
export function namesManyHosts({ rawHeaders }: Pick<IncomingMessage, 'rawHeaders'>): boolean {
  let found = false;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at];
    if (name?.length !== 4 || name.toLowerCase() !== 'host') continue;
    if (found) return true;
    found = true;
  }
  return false;
}

/** A target in absolute form says itself whom it is for, whatever Host says (RFC 9112 §3.2.2). */
function addressedTo({ url = '', headers }: IncomingMessage): string | undefined {
  if (url.startsWith('/') || url === '*') return headers.host;
  return /^https?:\/\/([^/?#]*)/i.exec(url)?.[1];
}

/** The name in a Host header, lower case, without port, brackets and final dot; undefined when it is none. */
export function hostName(host: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^\s:[\]/@]+?))\.?(?::\d{1,5})?$/i.exec(host);
  return (match?.[1] ?? match?.[2])?.toLowerCase();
}

/** Sends a complete answer outside the router. */
export function sendJson(response: ServerResponse, status: number, body: string | Uint8Array): void {
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  endAnswer(response, body);
}

/**
 * Ends an answer with its last bytes. Who takes nothing for `stalledMs` loses the connection: a reader that has stopped would
 * keep its place, and what it does not take in our memory, for good.
 */
export function endAnswer(
  response: ServerResponse,
  body: string | Uint8Array,
  stalledMs: number = limits.stalledMs,
): void {
  response.end(body);
  const { socket } = response;
  const watch = (at: Socket) => {
    at.setTimeout(stalledMs);
    // Before Node hears of it: from then on its own time for an idle connection counts, or nobody's for the next answer.
    response.prependOnceListener('finish', () => at.setTimeout(0));
  };
  // Behind other answers of its connection it has no socket yet.
  if (socket === null) response.once('socket', watch);
  else if (socket.writableLength > 0) watch(socket);
}

export function sendFault(response: ServerResponse, error: unknown): void {
  const envelope = errorEnvelope(error, undefined);
  response.setHeader('connection', 'close');
  sendJson(response, envelope.code, JSON.stringify(envelope));
}
