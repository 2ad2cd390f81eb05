import { createHash, ECDH } from 'node:crypto';
import { base58 } from '@scure/base';
import { decodeBase64url, encodeBase64url } from '#lib/base64url.ts';

/** Public keys that sign requests, as JWK (RFC 8037, RFC 8812), with nothing beside the key itself. */
export type PublicJwk =
  | { readonly kty: 'OKP'; readonly crv: 'Ed25519'; readonly x: string }
  | { readonly kty: 'EC'; readonly crv: 'secp256k1'; readonly x: string; readonly y: string };

const prefix = 'did:key:z';
/** Multicodec varints: https://github.com/multiformats/multicodec/blob/master/table.csv. */
const ed25519Code = [0xed, 0x01] as const;
const secp256k1Code = [0xe7, 0x01] as const;
/** A did:key of these two key types has at most 57 characters; decoding base58 is quadratic, so nothing longer is tried. */
const longestDid = 64;

/**
 * The key in `value` when it is one that may sign: sizes right, base64url canonical, the point on the curve. Anything else,
 * hostile input included, is undefined. Further members (`alg`, `use`, `kid`) are left out of the result.
 */
export function publicJwkOf(value: unknown): PublicJwk | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const jwk = value as Readonly<Record<string, unknown>>;
  const x = coordinate(jwk['x']);
  if (x === undefined) return undefined;
  if (jwk['kty'] === 'OKP' && jwk['crv'] === 'Ed25519') return { kty: 'OKP', crv: 'Ed25519', x };
  const y = coordinate(jwk['y']);
  if (y === undefined || jwk['kty'] !== 'EC' || jwk['crv'] !== 'secp256k1') return undefined;
  const key = { kty: 'EC', crv: 'secp256k1', x, y } as const;
  return compressed(key) === undefined ? undefined : key;
}

/** The did:key of a key that {@link publicJwkOf} has admitted. Source: https://w3c-ccg.github.io/did-key-spec/. */
export function didOfJwk(jwk: PublicJwk): string {
  return prefix + base58.encode(multicodec(jwk));
}

/** The key that a did:key spells, or undefined when it is another method, another key type, or not its canonical spelling. */
export function jwkOfDid(did: string): PublicJwk | undefined {
  if (!did.startsWith(prefix) || did.length > longestDid) return undefined;
  const bytes = decodeBase58(did.slice(prefix.length));
  if (bytes === undefined || base58.encode(bytes) !== did.slice(prefix.length)) return undefined;
  const code = bytes.subarray(0, 2);
  const key = bytes.subarray(2);
  if (startsWith(code, ed25519Code) && key.length === 32) {
    return { kty: 'OKP', crv: 'Ed25519', x: encodeBase64url(key) };
  }
  if (startsWith(code, secp256k1Code) && key.length === 33) return decompressed(key);
  return undefined;
}

export function sameKey(one: PublicJwk, other: PublicJwk): boolean {
  return multicodec(one).equals(multicodec(other));
}

/** First 40 hex digits of SHA-256 over the multicodec bytes of the public key. */
function fingerprintOf(jwk: PublicJwk): string {
  return createHash('sha256').update(multicodec(jwk)).digest('hex').slice(0, 40);
}

/** The domain of names that prove themselves: `<fingerprint>@key.local` needs no gate. */
const selfCertifiedDomain = '@key.local';

export function selfCertifiedName(jwk: PublicJwk): string {
  return fingerprintOf(jwk) + selfCertifiedDomain;
}

export function isSelfCertified(name: string): boolean {
  return name.endsWith(selfCertifiedDomain);
}

function multicodec(jwk: PublicJwk): Buffer {
  if (jwk.kty === 'OKP') return Buffer.from([...ed25519Code, ...Buffer.from(jwk.x, 'base64url')]);
  const point = compressed(jwk);
  if (point === undefined) throw new RangeError('the key is not a point of secp256k1');
  return Buffer.from([...secp256k1Code, ...point]);
}

function compressed(jwk: { readonly x: string; readonly y: string }): Buffer | undefined {
  const point = Buffer.concat([
    Buffer.from([4]),
    Buffer.from(jwk.x, 'base64url'),
    Buffer.from(jwk.y, 'base64url'),
  ]);
  return convert(point, 'compressed');
}

function decompressed(point: Uint8Array): PublicJwk | undefined {
  const full = convert(point, 'uncompressed');
  if (full === undefined) return undefined;
  const x = encodeBase64url(full.subarray(1, 33));
  return { kty: 'EC', crv: 'secp256k1', x, y: encodeBase64url(full.subarray(33)) };
}

/** OpenSSL refuses what is not on the curve. */
function convert(point: Uint8Array, form: 'compressed' | 'uncompressed'): Buffer | undefined {
  try {
    const converted = ECDH.convertKey(point, 'secp256k1', undefined, undefined, form);
    return Buffer.isBuffer(converted) ? converted : undefined;
  } catch {
    return undefined;
  }
}

function coordinate(value: unknown): string | undefined {
  if (typeof value !== 'string' || value.length !== 43) return undefined;
  return decodeBase64url(value)?.length === 32 ? value : undefined;
}

function decodeBase58(text: string): Uint8Array | undefined {
  try {
    return base58.decode(text);
  } catch {
    return undefined;
  }
}

function startsWith(bytes: Uint8Array, code: readonly [number, number]): boolean {
  return bytes[0] === code[0] && bytes[1] === code[1];
}
