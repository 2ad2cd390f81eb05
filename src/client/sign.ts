import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  verify,
} from 'node:crypto';
import { encodeBase64url } from '#lib/base64url.ts';
import { didOfJwk, type PublicJwk, publicJwkOf, selfCertifiedName } from '#lib/did-key.ts';

export type PrivateJwk = PublicJwk & { readonly d: string };

/** A key that signs requests. `privateJwk` is the secret; it belongs into a file of mode 0600 and nowhere else. */
export interface SigningKey {
  readonly name: string;
  readonly did: string;
  readonly privateJwk: PrivateJwk;
}

export type KeyKind = 'Ed25519' | 'secp256k1';

/** A new key; without a name it certifies itself (`<fingerprint>@key.local`). */
export function createKey(options: { name?: string; kind?: KeyKind } = {}): SigningKey {
  const pair =
    options.kind === 'secp256k1'
      ? generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
      : generateKeyPairSync('ed25519');
  const privateJwk = privateJwkOf(pair.privateKey.export({ format: 'jwk' }));
  const jwk = publicPart(privateJwk);
  return { name: options.name ?? selfCertifiedName(jwk), did: didOfJwk(jwk), privateJwk };
}

/** The public half, as it stands in a DID document. */
export function publicKeyOf(key: SigningKey): PublicJwk {
  return publicPart(key.privateJwk);
}

export function formatKeyFile(key: SigningKey): string {
  return `${JSON.stringify({ name: key.name, did: key.did, privateJwk: key.privateJwk }, null, 2)}\n`;
}

/** @throws Error when the text is not what {@link formatKeyFile} writes; the message never repeats the content. */
export function parseKeyFile(text: string): SigningKey {
  const value = parsedJson(text);
  const { name, did, privateJwk } = (value ?? {}) as Partial<Record<keyof SigningKey, unknown>>;
  if (typeof name !== 'string' || typeof did !== 'string') {
    throw new Error('the key file does not hold name, did and privateJwk');
  }
  const key = { name, did, privateJwk: privateJwkOf(privateJwk) };
  const isKeyOfDid = !did.startsWith('did:key:') || did === didOfJwk(publicPart(key.privateJwk));
  if (!isKeyOfDid || !signsForItself(key)) {
    throw new Error('the key file contradicts itself: private key, public key and did belong together');
  }
  return key;
}

/** What every signed payload carries (contract §8). */
interface Common {
  /** ms since the epoch. */
  readonly now: number;
  /** The base URL that is called, e.g. `http://192.168.1.5:18088`. */
  readonly domain?: string;
  readonly challenge?: string;
}

export interface LegacyRequest extends Common {
  /** The body that is sent, or what the route wants signed in its place. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** The form that the phone app makes: not bound to route or node. */
export function signLegacy(key: SigningKey, request: LegacyRequest): string {
  return signClaims(key, { ...commonClaims(key, request), body: request.body });
}

export interface BoundRequest extends Common {
  /** Upper case. */
  readonly method: string;
  /** The raw request target, with its query. */
  readonly path: string;
  /** The bytes of the body exactly as they are sent; left out when there is none. */
  readonly rawBody?: Uint8Array | string;
  readonly nodeId: string;
  /** ms that the signature is good for: at most 10 minutes; default 5, which forgives a clock that is 5 minutes ahead. */
  readonly lifetime?: number;
}

/** A signature that is good for exactly this request on exactly this node, once. */
export function signBound(key: SigningKey, request: BoundRequest): string {
  return signClaims(key, {
    ...commonClaims(key, request),
    body: {},
    method: request.method,
    path: request.path,
    bodySha256: createHash('sha256')
      .update(request.rawBody ?? '')
      .digest('hex'),
    nodeId: request.nodeId,
    nonce: encodeBase64url(randomBytes(18)),
    expiresAt: String(request.now + (request.lifetime ?? 5 * 60_000)),
  });
}

/** Compact JWS over any claims; `header` replaces members of the usual header. */
export function signClaims(
  key: SigningKey,
  claims: Readonly<Record<string, unknown>>,
  header: Readonly<Record<string, unknown>> = {},
): string {
  const alg = key.privateJwk.crv === 'secp256k1' ? 'ES256K' : 'EdDSA';
  const joseHeader = encodeBase64url(JSON.stringify({ alg, kid: key.did, typ: 'JWT', ...header }));
  const input = `${joseHeader}.${encodeBase64url(JSON.stringify(claims))}`;
  const signature = sign(alg === 'ES256K' ? 'sha256' : null, Buffer.from(input), {
    key: createPrivateKeyOf(key),
    dsaEncoding: 'ieee-p1363',
  });
  return `${input}.${encodeBase64url(signature)}`;
}

function commonClaims(key: SigningKey, request: Common): Record<string, unknown> {
  return {
    did: key.did,
    name: key.name,
    time: String(request.now),
    domain: request.domain ?? '',
    challenge: request.challenge ?? 'challenge',
  };
}

function createPrivateKeyOf(key: SigningKey) {
  return createPrivateKey({ key: { ...key.privateJwk }, format: 'jwk' });
}

function publicPart(jwk: PrivateJwk): PublicJwk {
  const { d: _secret, ...key } = jwk;
  return key;
}

function privateJwkOf(value: unknown): PrivateJwk {
  const key = publicJwkOf(value);
  const d = typeof value === 'object' && value !== null && 'd' in value ? value.d : undefined;
  if (key === undefined || typeof d !== 'string') throw new Error('the key is neither Ed25519 nor secp256k1');
  return { ...key, d };
}

/** Whether the private half makes what the public half verifies. OpenSSL believes an Ed25519 JWK without comparing. */
function signsForItself(key: SigningKey): boolean {
  const probe = Buffer.from('beosd key file');
  const algorithm = key.privateJwk.kty === 'EC' ? 'sha256' : null;
  try {
    const signature = sign(algorithm, probe, createPrivateKeyOf(key));
    const publicKey = createPublicKey({ key: { ...publicPart(key.privateJwk) }, format: 'jwk' });
    return verify(algorithm, probe, publicKey, signature);
  } catch {
    return false;
  }
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error('the key file is not JSON');
  }
}
