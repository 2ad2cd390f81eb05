import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { type ErrorCode, fault } from '#api/errors.ts';
import { type OperationName, specOf } from '#api/operations.ts';
import type { BoundClaims, ParsedJws } from '#auth/jws.ts';
import { longestLife, skewAllowed } from '#auth/replay.ts';
import { rfc3339 } from '#host/clock.ts';
import type { Fault } from '#lib/fault.ts';
import { isLoopback } from '#lib/net.ts';

/** What a signature may be bound to. */
export interface SignedRequest {
  readonly operation: OperationName;
  /** Upper case. */
  readonly method: string;
  /** The raw request target, with its query. */
  readonly target: string;
  readonly rawBody: Uint8Array;
  /** The parsed body with its keys as they were sent; undefined when there is none. */
  readonly body: unknown;
}

/** How deep a signed value is compared; deeper ones count as different. */
const deepest = 32;

/** @throws Fault `signature_expired`, with our time: skew is the commonest cause, and the signer can mend it */
export function checkWindow(jws: ParsedJws, now: number): void {
  const skew = jws.time - now;
  if (Math.abs(skew) > skewAllowed) {
    const off = `${Math.round(Math.abs(skew) / 60_000)} min`;
    throw expired(`The signature was made ${off} ${skew < 0 ? 'ago' : 'ahead of our clock'}.`, now);
  }
  const ends = jws.bound?.expiresAt;
  if (ends === undefined) return;
  if (ends <= now) throw expired('The signature has expired.', now);
  if (ends > now + longestLife) throw expired('The signature ends more than 10 minutes ahead.', now);
}

/** @throws Fault `signature_mismatch` naming the field */
export function checkBound(bound: BoundClaims, request: SignedRequest, nodeId: string): void {
  const real: Omit<BoundClaims, 'nonce' | 'expiresAt'> = {
    method: request.method,
    path: request.target,
    bodySha256: createHash('sha256').update(request.rawBody).digest('hex'),
    nodeId,
  };
  for (const field of ['method', 'path', 'bodySha256', 'nodeId'] as const) {
    if (bound[field] !== real[field]) throw mismatch(field, `The signature was made for another ${field}.`);
  }
}

/**
 * The legacy form covers a request as far as the phone app's payload goes: every key that is sent is signed with the same
 * value, the keys that the route wants signed are there, and a domain that is an address is ours.
 *
 * @throws Fault `signature_mismatch` naming the field
 */
export function checkLegacy(
  jws: ParsedJws,
  request: SignedRequest,
  isOwnAddress: (address: string) => boolean,
): void {
  checkDomain(jws.domain, isOwnAddress);
  const spec = specOf(request.operation);
  const fold = spec.origin === 'specified' ? (key: string) => key.toLowerCase() : (key: string) => key;
  const signed = new Map<string, unknown>();
  for (const [key, value] of members(jws.body)) {
    if (signed.has(fold(key))) throw mismatch(key, `The signed body has ${key} in two spellings.`);
    signed.set(fold(key), value);
  }
  for (const [key, value] of members(request.body)) {
    if (!signed.has(fold(key)) || !isSameJson(signed.get(fold(key)), value, deepest)) {
      throw mismatch(key, `${key} is not signed with the value that is sent.`);
    }
  }
  for (const key of spec.signedKeys ?? []) {
    if (signed.get(fold(key)) === undefined) throw mismatch(key, `${key} has to be in the signed body.`);
  }
}

function checkDomain(domain: string | undefined, isOwnAddress: (address: string) => boolean): void {
  const host = hostOf(domain ?? '');
  if (isIP(host) === 0 || isOwnAddress(host) || isLoopback(host)) return;
  throw mismatch('domain', 'The signature was made for another node.');
}

/** The host of a URL, or of what a signer writes in place of one: `10.0.0.5:18088` names a node as well as a URL does. */
function hostOf(domain: string): string {
  const text = domain.trim();
  if (isIP(text) !== 0) return text;
  const host = URL.parse(text)?.hostname || URL.parse(`http://${text}`)?.hostname || '';
  return host.replace(/^\[|\]$/g, '');
}

function members(value: unknown): [string, unknown][] {
  if (value === undefined || value === null) return [];
  if (typeof value !== 'object' || Array.isArray(value)) throw mismatch('body', 'A body is a JSON object.');
  return Object.entries(value);
}

/** Equality of parsed JSON; the order of keys means nothing. */
function isSameJson(one: unknown, other: unknown, depth: number): boolean {
  if (one === other) return true;
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null) return false;
  if (depth === 0 || Array.isArray(one) !== Array.isArray(other)) return false;
  const [ours, theirs] = [Object.entries(one), new Map(Object.entries(other))];
  return (
    ours.length === theirs.size &&
    ours.every(([key, value]) => theirs.has(key) && isSameJson(value, theirs.get(key), depth - 1))
  );
}

function expired(message: string, now: number): Fault<ErrorCode> {
  return fault('signature_expired', message, { serverTime: rfc3339(now) });
}

function mismatch(field: string, message: string): Fault<ErrorCode> {
  return fault('signature_mismatch', message, { field });
}
