import type { SignerKey } from '#api/caller.ts';
import { type ErrorCode, fault } from '#api/errors.ts';
import { isKidOf, signerOfDid, signerOfDocument } from '#auth/did-document.ts';
import type { DidGate } from '#auth/did-gate.ts';
import { KeyRing, type ParsedJws } from '#auth/jws.ts';
import { isSelfCertified, selfCertifiedName } from '#lib/did-key.ts';
import { type Fault, isFault } from '#lib/fault.ts';

/** Finds the key of a name and checks signatures with it. Windows, replay and rights are decided elsewhere. */
export class Signatures {
  readonly #gate: Pick<DidGate, 'document'>;
  readonly #ring = new KeyRing();

  constructor(gate: Pick<DidGate, 'document'>) {
    this.#gate = gate;
  }

  /**
   * The key that has made the signature.
   *
   * @param pinned the key of the owner, who needs no look-up
   * @param stranger the address that a signature comes from which nobody stands for yet
   * @throws Fault `unproven` when name, key, kid and signature do not belong together, `did_gate_unavailable`,
   *   `too_many_requests`
   */
  async proven(
    jws: ParsedJws,
    pinned: SignerKey | undefined,
    signal: AbortSignal,
    stranger?: string,
  ): Promise<SignerKey> {
    const key = pinned ?? (await this.#keyOfSigner(jws, signal, stranger));
    if (!isKidOf(jws.kid, key)) throw unproven(`its kid is not the key of ${jws.name}`, 'kid');
    if (!this.#ring.verify(jws, key.jwk)) throw unproven(`it was not made with the key of ${jws.name}`);
    return key;
  }

  /**
   * The key of a name that the DID gate knows.
   *
   * @throws Fault `not_found`, `impossible` (no usable key), `did_gate_unavailable`, `too_many_requests`
   */
  async keyOfName(name: string, signal: AbortSignal, stranger?: string): Promise<SignerKey> {
    const key = signerOfDocument(await this.#gate.document(name, signal, stranger));
    if (key === undefined) throw fault('impossible', `The DID document of ${name} has no key that can sign.`);
    return key;
  }

  async #keyOfSigner(jws: ParsedJws, signal: AbortSignal, stranger?: string): Promise<SignerKey> {
    if (isSelfCertified(jws.name)) {
      const key = signerOfDid(jws.did);
      if (key !== undefined && selfCertifiedName(key.jwk) === jws.name) return key;
      throw unproven(`${jws.name} is not the fingerprint of its key`, 'name');
    }
    try {
      return await this.keyOfName(jws.name, signal, stranger);
    } catch (error) {
      if (isFault(error) && (error.code === 'not_found' || error.code === 'impossible')) {
        throw unproven(error.message, 'name');
      }
      throw error;
    }
  }
}

function unproven(why: string, field?: string): Fault<ErrorCode> {
  return fault('unproven', `X-Signature is not accepted: ${why}.`, field === undefined ? {} : { field });
}
