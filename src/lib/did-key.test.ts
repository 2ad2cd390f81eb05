import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { base58 } from '@scure/base';
import fc from 'fast-check';
import { decodeBase64url, encodeBase64url } from '#lib/base64url.ts';
import { didOfJwk, jwkOfDid, publicJwkOf, selfCertifiedName } from '#lib/did-key.ts';

/** From the did:key specification, https://w3c-ccg.github.io/did-key-spec/#test-vectors. */
const published = [
  'did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK',
  'did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp',
  'did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme',
  'did:key:zQ3shtxV1FrJfhqE1dvxYRcCknWNjHc3c5X1y3ZSoPDi2aur2',
] as const;

test('published did:key values turn into a key and back', () => {
  for (const did of published) {
    const jwk = jwkOfDid(did);
    assert.ok(jwk, did);
    assert.deepEqual(publicJwkOf(jwk), jwk);
    assert.equal(didOfJwk(jwk), did);
  }
  assert.deepEqual(jwkOfDid('did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp'), {
    kty: 'OKP',
    crv: 'Ed25519',
    x: 'O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik',
  });
});

test('what is no canonical did:key of these key types is no key', () => {
  const bytes = base58.decode(published[0].slice('did:key:z'.length));
  const spelt = (raw: Uint8Array) => `did:key:z${base58.encode(raw)}`;
  for (const did of [
    '',
    'did:key:z',
    'did:web:example.com',
    published[0].replace('did:key:z', 'did:key:u'),
    `${published[0]}#${published[0].slice(8)}`,
    `${published[0]} `,
    published[0].replace('6Mk', '6M0'),
    spelt(bytes.subarray(0, -1)),
    spelt(Buffer.from([...bytes, 0])),
    spelt(Buffer.from([0xec, 0x01, ...bytes.subarray(2)])),
    spelt(Buffer.from([0, ...bytes])),
    spelt(Buffer.from([0xe7, 0x01, 5, ...bytes.subarray(2)])),
    spelt(Buffer.from([0xe7, 0x01, 2, ...new Uint8Array(32).fill(0xff)])),
    `did:key:z${'1'.repeat(100_000)}`,
  ]) {
    assert.equal(jwkOfDid(did), undefined, did.slice(0, 80));
  }
});

test('keys of the wrong size, type or curve point are refused, hostile values too', () => {
  const x = encodeBase64url(new Uint8Array(32).fill(9));
  for (const value of [
    undefined,
    null,
    'key',
    [],
    {},
    { kty: 'OKP', crv: 'Ed25519' },
    { kty: 'OKP', crv: 'Ed25519', x: encodeBase64url(new Uint8Array(31)) },
    { kty: 'OKP', crv: 'Ed25519', x: encodeBase64url(new Uint8Array(33)) },
    { kty: 'OKP', crv: 'Ed25519', x: `${x}=` },
    { kty: 'OKP', crv: 'Ed25519', x: [x] },
    { kty: 'OKP', crv: 'X25519', x },
    { kty: 'EC', crv: 'secp256k1', x, y: x },
    { kty: 'EC', crv: 'P-256', x, y: x },
    { kty: 'RSA', n: x, e: 'AQAB' },
  ]) {
    assert.equal(publicJwkOf(value), undefined, JSON.stringify(value));
  }
  assert.deepEqual(publicJwkOf({ kty: 'OKP', crv: 'Ed25519', x, use: 'sig' }), {
    kty: 'OKP',
    crv: 'Ed25519',
    x,
  });
});

test('a self-certified name is the fingerprint of the key', () => {
  const jwk = jwkOfDid(published[0]);
  assert.ok(jwk);
  const multicodec = base58.decode(published[0].slice('did:key:z'.length));
  const digest = createHash('sha256').update(multicodec).digest('hex');
  assert.equal(selfCertifiedName(jwk), `${digest.slice(0, 40)}@key.local`);
});

test('base64url has exactly one spelling', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.string({ maxLength: 3 }), (bytes, extra) => {
      const text = encodeBase64url(bytes);
      assert.deepEqual(new Uint8Array(decodeBase64url(text) ?? []), bytes);
      const other = decodeBase64url(text + extra);
      assert.ok(other === undefined || encodeBase64url(other) === text + extra);
    }),
    { seed: 20_261_123 },
  );
  for (const twin of ['QQ==', 'QR', 'Q', 'Q Q', '-_+/', 'QQ\n'])
    assert.equal(decodeBase64url(twin), undefined, twin);
});
