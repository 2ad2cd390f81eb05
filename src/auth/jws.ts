import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { type ErrorCode, fault } from '#api/errors.ts';
import { decodeBase64url } from '#lib/base64url.ts';
import type { PublicJwk } from '#lib/did-key.ts';
import type { Fault } from '#lib/fault.ts';

/** What binds a signature to one request (contract §8). Each is checked against the request by auth/binding.ts. */
export interface BoundClaims {
  readonly method: string;
  readonly path: string;
  readonly bodySha256: string;
  readonly nodeId: string;
  readonly nonce: string;
  /** ms since the epoch. */
  readonly expiresAt: number;
}

/** A token whose form is right. Nothing in it is proved before {@link KeyRing.verify} says so. */
export interface ParsedJws {
  readonly alg: 'EdDSA' | 'ES256K';
  readonly kid: string;
  /** `kid` without its fragment. */
  readonly did: string;
  readonly name: string;
  /** ms since the epoch. */
  readonly time: number;
  readonly domain: string | undefined;
  readonly challenge: string | undefined;
  readonly body: unknown;
  readonly bound: BoundClaims | undefined;
  readonly signingInput: Buffer;
  readonly signature: Buffer;
  /** SHA-256 of `header.payload`: signatures have twins (ES256K: s and n-s), what was signed has not. */
  readonly mark: Buffer;
}

const largestToken = 8 * 1024;
const namePattern = /^[a-z0-9._-]+@[a-z0-9.-]+$/;
const kidPattern = /^(did:[a-z0-9]+:[A-Za-z0-9._:%-]+)(#[\x21-\x7e]+)?$/;
const timePattern = /^[1-9]\d{0,14}$/;
const noncePattern = /^[A-Za-z0-9_-]{16,64}$/;
const boundKeys = ['method', 'path', 'bodySha256', 'nodeId', 'nonce', 'expiresAt'] as const;
const algorithms: readonly unknown[] = ['EdDSA', 'ES256K'];

type Members = Readonly<Record<string, unknown>>;

/**
 * Whether a header value is meant as a signature of ours. Today's pods send other things under the same name: the literal
 * `temp_signature`, or a session cookie, which may be a JWT of somebody else (another `alg`, no DID as `kid`).
 */
export function isMeantAsSignature(text: string): boolean {
  const parts = text.split('.', 4);
  const [first = ''] = parts;
  if (parts.length !== 3 || parts.includes('')) return false;
  const header = text.length > largestToken ? undefined : jsonObject(first);
  if (header === undefined || typeof member(header, 'alg') !== 'string') return true;
  const kid = member(header, 'kid');
  return algorithms.includes(member(header, 'alg')) || (typeof kid === 'string' && kid.startsWith('did:'));
}

/**
 * Everything that can be refused without a key or a look-up. A member that a JSON object repeats counts as its last value, as
 * JSON.parse has it, here and for whoever acts on it; both spellings are covered by signature and mark alike.
 *
 * @throws Fault `unproven` or `signature_mismatch` (half a binding), and nothing else, whatever the input.
 */
export function parseJws(token: string): ParsedJws {
  if (token.length > largestToken) throw malformed('it is larger than 8 KiB');
  const parts = token.split('.', 4);
  const [header64, payload64, signature64] = parts;
  if (parts.length !== 3 || !header64 || !payload64 || !signature64)
    throw malformed('it has not three parts');
  const header = jsonObject(header64);
  const payload = jsonObject(payload64);
  const signature = decodeBase64url(signature64);
  if (header === undefined) throw malformed('its header is not canonical base64url of a JSON object');
  if (payload === undefined) throw malformed('its payload is not canonical base64url of a JSON object');
  if (signature?.length !== 64) throw malformed('its signature has not 64 bytes');
  const signingInput = Buffer.from(`${header64}.${payload64}`, 'latin1');
  const signer = headerClaims(header);
  return {
    ...signer,
    ...payloadClaims(payload, signer.did),
    bound: boundClaims(payload),
    signingInput,
    signature,
    mark: createHash('sha256').update(signingInput).digest(),
  };
}

function headerClaims(header: Members): Pick<ParsedJws, 'alg' | 'kid' | 'did'> {
  const alg = member(header, 'alg');
  if (alg !== 'EdDSA' && alg !== 'ES256K') throw malformed('its alg is neither EdDSA nor ES256K', 'alg');
  // RFC 7515 §4.1.11: who does not understand an extension marked critical has to refuse; we understand none.
  if (Object.hasOwn(header, 'crit')) throw malformed('it uses an extension that is not known here', 'crit');
  const kid = member(header, 'kid');
  const did = typeof kid === 'string' && kid.length <= 512 ? kidPattern.exec(kid)?.[1] : undefined;
  if (typeof kid !== 'string' || did === undefined) throw malformed('its kid is not a DID', 'kid');
  return { alg, kid, did };
}

function payloadClaims(
  payload: Members,
  signer: string,
): Pick<ParsedJws, 'name' | 'time' | 'domain' | 'challenge' | 'body'> {
  const name = member(payload, 'name');
  if (typeof name !== 'string' || name.length > 320 || !namePattern.test(name)) {
    throw malformed('its name is not like user@domain', 'name');
  }
  const time = member(payload, 'time');
  if (typeof time !== 'string' || !timePattern.test(time)) {
    throw malformed('its time is not a string of milliseconds', 'time');
  }
  const did = member(payload, 'did');
  if (did !== undefined && did !== signer) throw malformed('its did is not that of its kid', 'did');
  return {
    name,
    time: Number(time),
    domain: optionalString(payload, 'domain'),
    challenge: optionalString(payload, 'challenge'),
    body: member(payload, 'body'),
  };
}

function boundClaims(payload: Members): BoundClaims | undefined {
  if (!boundKeys.some((key) => Object.hasOwn(payload, key))) return undefined;
  const claim = (key: (typeof boundKeys)[number]): string => {
    const value = member(payload, key);
    if (typeof value !== 'string' || value === '') throw halfBound(key);
    return value;
  };
  const expiresAt = claim('expiresAt');
  if (!timePattern.test(expiresAt)) throw halfBound('expiresAt');
  const nonce = claim('nonce');
  if (!noncePattern.test(nonce)) throw halfBound('nonce');
  return {
    method: claim('method'),
    path: claim('path'),
    bodySha256: claim('bodySha256'),
    nodeId: claim('nodeId'),
    nonce,
    expiresAt: Number(expiresAt),
  };
}

/** Checks signatures; keeps the few keys that it has imported last, because importing costs more than verifying. */
export class KeyRing {
  readonly #keys = new Map<string, KeyObject>();

  /** Never throws. False also when `alg` does not fit the key, or the key is none. */
  verify(jws: ParsedJws, jwk: PublicJwk): boolean {
    if ((jws.alg === 'EdDSA') !== (jwk.kty === 'OKP') || jws.signature.length !== 64) return false;
    try {
      const key = this.#imported(jwk);
      if (jws.alg === 'EdDSA') return verify(null, jws.signingInput, key, jws.signature);
      return verify('sha256', jws.signingInput, { key, dsaEncoding: 'ieee-p1363' }, jws.signature);
    } catch {
      // OpenSSL throws for points off the curve and signatures out of range: not valid, like any other.
      return false;
    }
  }

  #imported(jwk: PublicJwk): KeyObject {
    const id = jwk.kty === 'OKP' ? jwk.x : `${jwk.x}.${jwk.y}`;
    const before = this.#keys.get(id);
    if (before !== undefined) return before;
    const key = createPublicKey({ key: { ...jwk }, format: 'jwk' });
    const [oldest] = this.#keys.keys();
    if (this.#keys.size >= 16 && oldest !== undefined) this.#keys.delete(oldest);
    this.#keys.set(id, key);
    return key;
  }
}

function optionalString(members: Members, key: string): string | undefined {
  const value = member(members, key);
  if (value === undefined || typeof value === 'string') return value;
  throw malformed(`its ${key} is not a string`, key);
}

/** Own members only: a payload may be called `constructor`, and means nothing by it. */
function member(members: Members, key: string): unknown {
  return Object.hasOwn(members, key) ? members[key] : undefined;
}

function jsonObject(base64url: string): Members | undefined {
  const bytes = decodeBase64url(base64url);
  if (bytes === undefined) return undefined;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Members)
      : undefined;
  } catch {
    return undefined;
  }
}

function malformed(why: string, field?: string): Fault<ErrorCode> {
  return fault('unproven', `X-Signature is not accepted: ${why}.`, field === undefined ? {} : { field });
}

function halfBound(field: string): Fault<ErrorCode> {
  return fault(
    'signature_mismatch',
    `The signature is bound to its request, but ${field} is missing or wrong.`,
    {
      field,
    },
  );
}
