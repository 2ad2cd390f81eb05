import type { SignerKey } from '#api/caller.ts';
import { jwkOfDid, type PublicJwk, publicJwkOf, sameKey } from '#lib/did-key.ts';

/**
 * The signing key of a DID document as the gate sends it: `{didDocument: {id, verificationMethod: [{id, publicKeyJwk}]}}`.
 * A did:key is its own proof: the key in the document must be the key in the DID.
 *
 * @returns undefined for a document without a usable key, or one that contradicts itself; never throws
 */
export function signerOfDocument(answer: unknown): SignerKey | undefined {
  const document = memberOf(answer, 'didDocument');
  const did = memberOf(document, 'id');
  const methods = memberOf(document, 'verificationMethod');
  if (typeof did !== 'string' || !did.startsWith('did:') || did.includes('#') || !Array.isArray(methods)) {
    return undefined;
  }
  const first: unknown = methods[0];
  const jwk = publicJwkOf(memberOf(first, 'publicKeyJwk'));
  if (jwk === undefined || !isKeyOf(did, jwk)) return undefined;
  const keyId = memberOf(first, 'id');
  return typeof keyId === 'string' && keyId.length <= 512 ? { did, keyId, jwk } : { did, jwk };
}

/** The key of a did:key, which needs no document; undefined for every other DID. */
export function signerOfDid(did: string): SignerKey | undefined {
  const jwk = jwkOfDid(did);
  return jwk === undefined ? undefined : { did, keyId: `#${did.slice('did:key:'.length)}`, jwk };
}

/** `kid` names the key: the DID itself, or the DID with the id of its key (ancestor §2.1), which may be spelt in full. */
export function isKidOf(kid: string, key: SignerKey): boolean {
  if (kid === key.did) return true;
  const { keyId } = key;
  if (keyId === undefined) return false;
  return keyId.startsWith('#') ? kid === key.did + keyId : keyId.startsWith(`${key.did}#`) && kid === keyId;
}

function isKeyOf(did: string, jwk: PublicJwk): boolean {
  if (!did.startsWith('did:key:')) return true;
  const own = jwkOfDid(did);
  return own !== undefined && sameKey(own, jwk);
}

function memberOf(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
  return (value as Readonly<Record<string, unknown>>)[key];
}
