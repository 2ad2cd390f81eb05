import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { fault } from '#api/errors.ts';
import { errorEnvelope } from '#http/envelope.ts';
import type { Fault } from '#lib/fault.ts';

/** Limits of contract §1. */
export const limits = {
  bodyBytes: 64 * 1024,
  headerBytes: 16 * 1024,
  /** To send a whole request, ms. */
  requestMs: 10_000,
} as const;

/**
 * Refuses what a browser on a foreign page, or a name that was rebound to our address, would send. Before routing.
 * On the unix socket there is no browser, and no host.
 */
export function refusalAtTheEdge(request: IncomingMessage, ownNames: ReadonlySet<string>): Fault | undefined {
  const host = request.headers.host;
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
  response.end(body);
}

export function sendFault(response: ServerResponse, error: unknown): void {
  const envelope = errorEnvelope(error, undefined);
  response.setHeader('connection', 'close');
  sendJson(response, envelope.code, JSON.stringify(envelope));
}
