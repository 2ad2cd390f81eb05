import type { SignerKey } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Call, DryRun } from '#api/operation.ts';
import type { Handlers } from '#api/operations.ts';
import { checkWindow } from '#auth/binding.ts';
import { signerOfDid } from '#auth/did-document.ts';
import type { DidGate } from '#auth/did-gate.ts';
import { parseJws } from '#auth/jws.ts';
import type { OwnerFile } from '#auth/owner.ts';
import type { Sessions } from '#auth/sessions.ts';
import type { Signatures } from '#auth/signatures.ts';
import { type Clock, rfc3339 } from '#host/clock.ts';
import { isSelfCertified, selfCertifiedName } from '#lib/did-key.ts';
import { isFault } from '#lib/fault.ts';

export interface AuthHandlerOptions {
  readonly clock: Clock;
  readonly owners: OwnerFile;
  readonly sessions: Sessions;
  readonly signatures: Signatures;
  readonly gate: DidGate;
  readonly nodeId: string;
}

type AuthHandlers = Pick<
  Handlers,
  'auth.session' | 'owner.release' | 'owner.transfer' | 'system.checkJws' | 'system.resolveName'
>;

/** Ownership, sessions, and proof as a service for other components of the node. */
export function authHandlers(options: AuthHandlerOptions): AuthHandlers {
  return {
    'auth.session': (_input, call) => session(options, call),
    'owner.release': (_input, call) => release(options, call),
    'owner.transfer': (input, call) => transfer(options, input.body, call),
    'system.checkJws': (input, call) => checkJws(options, input.body.jws, call.signal),
    'system.resolveName': async (input, call) => ({
      data: await resolveName(options, input.params.name, call.signal),
    }),
  };
}

function session({ sessions }: AuthHandlerOptions, call: Call) {
  const { name, address } = call.caller;
  if (name === undefined || address === undefined) {
    throw fault('forbidden', "A session is begun with the owner's signature.");
  }
  const { token, expiresAt } = sessions.issue(name, address);
  const data = { token, expiresAt: rfc3339(expiresAt) };
  // An Idempotency-Key keeps answers in the store, and the store never holds a token.
  return { data, kept: { ...data, token: '' } };
}

function release({ owners, sessions }: AuthHandlerOptions, call: Call) {
  if (call.dryRun) {
    return planned('release', 'forgets the owner; the next signer of an install claims the node', true);
  }
  const released = owners.release();
  sessions.revokeAll();
  return { data: released === undefined ? {} : { released } };
}

async function transfer(
  options: AuthHandlerOptions,
  to: { readonly name: string; readonly did?: string },
  call: Call,
) {
  const key = await keyOfNewOwner(options, to.name, to.did, call.signal);
  if (call.dryRun) return planned('transfer', `makes ${to.name} (${key.did}) the owner`, false);
  options.owners.transfer(to.name, key);
  options.sessions.revokeAll();
  return { data: { name: to.name, did: key.did } };
}

/** What is said about the new owner must agree: a wrong one would lock everybody out. */
async function keyOfNewOwner(
  { signatures }: AuthHandlerOptions,
  name: string,
  did: string | undefined,
  signal: AbortSignal,
): Promise<SignerKey> {
  const stated = did === undefined ? undefined : signerOfDid(did);
  if (did?.startsWith('did:key:') && stated === undefined) {
    throw fault('invalid_input', 'did is no did:key of an Ed25519 or secp256k1 key.', { field: 'did' });
  }
  if (isSelfCertified(name)) {
    if (stated === undefined) throw fault('invalid_input', `${name} needs its did:key.`, { field: 'did' });
    if (selfCertifiedName(stated.jwk) === name) return stated;
    throw fault('invalid_input', 'name is not the fingerprint of did.', { field: 'name' });
  }
  try {
    const known = await signatures.keyOfName(name, signal);
    if (did === undefined || did === known.did) return known;
    throw fault('impossible', `The DID gate knows ${name} by another DID, ${known.did}.`);
  } catch (error) {
    const isSilent = isFault(error) && (error.code === 'not_found' || error.code === 'did_gate_unavailable');
    if (isSilent && stated !== undefined) return stated;
    if (isFault(error) && error.code === 'not_found') throw fault('impossible', error.message);
    throw error;
  }
}

/** For other components: nothing is spent here, so the window and the signature are all that is said. */
async function checkJws(
  { clock, owners, signatures, nodeId }: AuthHandlerOptions,
  token: string,
  signal: AbortSignal,
) {
  const jws = parseJws(token);
  checkWindow(jws, clock.now());
  if (jws.bound !== undefined && jws.bound.nodeId !== nodeId) {
    throw fault('signature_mismatch', 'The signature was made for another node.', { field: 'nodeId' });
  }
  const now = owners.current();
  const pinned = now.kind === 'pinned' && now.owner.name === jws.name ? now.owner : undefined;
  const key = await signatures.proven(jws, pinned, signal);
  const { name, time, domain, challenge, body } = jws;
  return {
    data: {
      name,
      did: key.did,
      time: String(time),
      ...(domain === undefined ? {} : { domain }),
      ...(challenge === undefined ? {} : { challenge }),
      body: body ?? {},
    },
  };
}

function resolveName({ gate }: AuthHandlerOptions, name: string, signal: AbortSignal): Promise<unknown> {
  if (!/^[a-z0-9._-]+@[a-z0-9.-]+$/.test(name)) {
    throw fault('invalid_input', 'A name is like user@domain.', { field: 'name' });
  }
  if (isSelfCertified(name)) throw fault('not_found', `${name} certifies itself; no gate knows it.`);
  return gate.document(name, signal);
}

function planned(name: string, does: string, reversible: boolean): { plan: DryRun } {
  return { plan: { allowed: true, preconditions: [], steps: [{ name, does, reversible }] } };
}
