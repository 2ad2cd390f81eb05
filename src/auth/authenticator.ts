import { createHash, timingSafeEqual } from 'node:crypto';
import type { Caller, SignerKey } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import { type OperationName, specOf } from '#api/operations.ts';
import { checkBound, checkLegacy, checkWindow } from '#auth/binding.ts';
import { isMeantAsSignature, type ParsedJws, parseJws } from '#auth/jws.ts';
import { nameOf, type OwnerFile, ownerUnknown } from '#auth/owner.ts';
import { RateLimit, RateLimits } from '#auth/rate.ts';
import type { ReplayGuard } from '#auth/replay.ts';
import { type Sessions, sessionPrefix } from '#auth/sessions.ts';
import type { Signatures } from '#auth/signatures.ts';
import type { WorkloadIdentity, WorkloadProver } from '#auth/workloads.ts';
import type { Clock } from '#host/clock.ts';
import { sameKey } from '#lib/did-key.ts';
import { isFault } from '#lib/fault.ts';
import { isLoopback, placeOf, plainAddress } from '#lib/net.ts';
import { ruleOf } from '#state/policy.ts';

/** A request as far as proof of identity goes. */
export interface ProofRequest {
  readonly transport: 'socket' | 'tcp';
  readonly remoteAddress: string;
  /** Upper case. */
  readonly method: string;
  /** The raw request target, with its query. */
  readonly target: string;
  /** The value of a header by its lower-case name; several values are joined by `, `, which no proof survives. */
  readonly header: (name: string) => string | undefined;
  /** Names of all headers that came, lower case. */
  readonly headerNames: readonly string[];
  readonly rawBody: Uint8Array;
  /** The parsed body with its keys as they were sent; undefined when there is none. */
  readonly body: unknown;
  readonly operation: OperationName;
}

export interface AuthenticatorOptions {
  readonly clock: Clock;
  readonly owners: OwnerFile;
  readonly signatures: Signatures;
  readonly replay: ReplayGuard;
  readonly sessions: Sessions;
  readonly workloads: WorkloadProver;
  readonly nodeId: string;
  /** `auth.legacySignatures`: whether the form that the phone app makes is accepted. */
  readonly legacySignatures: boolean;
  /** `auth.claimCode`: shown on the console, to be sent in X-Claim-Code; undefined: none is asked for. */
  readonly claimCode: string | undefined;
  /** Whether an address is one of this node's own. */
  readonly isOwnAddress: (address: string) => boolean;
  /** Whether an address is in the node's own network, reached neither by a router nor by a tunnel. */
  readonly isOnLink: (address: string) => boolean;
}

/** What a signer's name is worth at this moment. */
interface Standing {
  readonly class: 'owner' | 'signer';
  /** The pinned key, where there is one. */
  readonly key: SignerKey | undefined;
}

/**
 * Signatures of strangers that are accepted in a minute from one address. Each of them costs a mark and a line of the
 * audit, both confirmed by the disk, and while nobody owns the node anybody can make as many as he likes.
 */
const strangersPerMinute = 60;

/** Tokens that do not count, in a minute, from one place: each is a question to the API server, which has few places for ours. */
const badTokensPerMinute = 20;
/** Tries at the claim code in a minute: of everybody together, so that guessing takes years, and from one place. */
const claimTries = { perMinute: 10, ofOnePlace: 4 } as const;

/** The answers of these are the same for everybody: no proof is looked at, so that a bad one breaks nothing and none is spent. */
const sameForAll: readonly OperationName[] = [
  'system.status',
  'system.live',
  'system.openapi',
  'system.docs',
];

function isSameForAll({ operation, target }: ProofRequest): boolean {
  // Only who has proved something makes the node measure; without the query the list is the same for everybody.
  if (operation === 'system.interfaces') return !target.includes('?');
  return sameForAll.includes(operation);
}

/** Contract §5: `Forwarded`, `Via`, and whatever begins with `X-Forwarded`. */
const forwardingHeader = /^(?:forwarded|via|x-forwarded(?:-.*)?)$/;

/**
 * Who calls (contract §5), from proof alone: the socket, a signature, a bearer token, an address; in this order. It decides
 * nothing about operations: whether the class may do it is state/admit.ts's business.
 */
export class Authenticator {
  readonly #options: AuthenticatorOptions;
  readonly #claimAttempts: RateLimit;
  readonly #claimPlaces: RateLimits;
  readonly #strangers: RateLimits;
  readonly #tokens: RateLimits;

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
    this.#claimAttempts = new RateLimit(options.clock, claimTries.perMinute);
    this.#claimPlaces = new RateLimits(options.clock, claimTries.ofOnePlace);
    this.#strangers = new RateLimits(options.clock, strangersPerMinute);
    this.#tokens = new RateLimits(options.clock, badTokensPerMinute);
  }

  /**
   * The caller of a request. A signature is spent before this resolves.
   *
   * @throws Fault the refusal of a proof that was given and does not hold; no proof at all is `public`, not an error
   */
  async classify(request: ProofRequest, signal: AbortSignal): Promise<Caller> {
    if (request.transport === 'socket') return { class: 'root', proof: 'socket' };
    const address = plainAddress(request.remoteAddress);
    if (isSameForAll(request)) return { class: 'public', proof: 'none', address };
    const signature = request.header('x-signature');
    if (signature !== undefined && isMeantAsSignature(signature)) {
      return this.#bySignature(signature, request, address, signal);
    }
    const bearer = /^Bearer +(\S+)$/i.exec(request.header('authorization') ?? '')?.[1];
    if (bearer?.startsWith(sessionPrefix)) return this.#bySession(bearer, address);
    if (bearer !== undefined) return this.#byToken(bearer, address, signal);
    return this.#byAddress(request, address, signal);
  }

  /** Whether a caller is still what its proof has said, for an answer that does not end: sessions end, nodes change hands. */
  stillHolds(caller: Caller): boolean {
    if (caller.class !== 'owner') return true;
    const { clock, owners } = this.#options;
    if (caller.until !== undefined && clock.now() >= caller.until) return false;
    const now = owners.current();
    if (nameOf(now) !== caller.name) return false;
    return now.kind !== 'pinned' || caller.key === undefined || sameKey(now.owner.jwk, caller.key.jwk);
  }

  /** Cheap checks first: no key is looked up before everything that needs none has held. */
  async #bySignature(
    token: string,
    request: ProofRequest,
    address: string,
    signal: AbortSignal,
  ): Promise<Caller> {
    const { clock, signatures, replay } = this.#options;
    const jws = parseJws(token);
    checkWindow(jws, clock.now());
    this.#checkRequest(jws, request);
    const before = this.#standing(jws.name, request, address);
    const key = await signatures.proven(jws, before.key, signal, address);
    // The look-up may have taken seconds: the node may have found its owner since.
    const standing = this.#standing(jws.name, request, address);
    if (standing.key !== undefined && !sameKey(standing.key.jwk, key.jwk)) {
      throw fault('unproven', `X-Signature is not accepted: it was not made with the key of ${jws.name}.`);
    }
    if (standing.class === 'signer' && request.operation === 'command.install') {
      this.#checkClaimCode(request, address);
    }
    // Only what has held is counted: what is refused costs no mark, and must not lock out who signs rightly beside it.
    if (standing.class === 'signer') this.#strangers.take(address, 'signatures from this address');
    replay.spend(jws, request.operation, standing.class === 'owner');
    if (standing.class === 'owner' && standing.key === undefined) this.#pin(jws.name, key);
    const proof = jws.bound === undefined ? 'signature-legacy' : 'signature-bound';
    return { class: standing.class, proof, name: jws.name, key, address };
  }

  #checkRequest(jws: ParsedJws, request: ProofRequest): void {
    const { nodeId, legacySignatures, isOwnAddress } = this.#options;
    if (jws.bound !== undefined) {
      checkBound(jws.bound, request, nodeId);
    } else if (legacySignatures) {
      checkLegacy(jws, request, isOwnAddress);
    } else {
      throw fault('bound_form_required', 'This node accepts only signatures in the bound form.');
    }
  }

  /** @throws Fault `not_owner`, `not_on_link`, `store_unavailable` (nobody can say whose node this is) */
  #standing(name: string, request: ProofRequest, address: string): Standing {
    const { owners, isOnLink } = this.#options;
    const now = owners.current();
    if (now.kind === 'unknown') throw ownerUnknown(now.reason);
    if (now.kind === 'pinned' && now.owner.name === name) return { class: 'owner', key: keyOf(now.owner) };
    if (now.kind === 'named' && now.name === name) return { class: 'owner', key: undefined };
    const isInstall = request.operation === 'command.install';
    if (now.kind !== 'none' && !(isInstall && owners.mayClaim(name))) {
      throw fault('not_owner', `${name} is not the owner of this node.`);
    }
    if (isInstall && !isOnLink(address)) {
      throw fault('not_on_link', `${address} is not in the node's own network.`);
    }
    return { class: 'signer', key: undefined };
  }

  #checkClaimCode(request: ProofRequest, address: string): void {
    const { claimCode } = this.#options;
    if (claimCode === undefined) return;
    const sent = request.header('x-claim-code');
    if (sent === undefined) throw fault('claim_code_required', 'This node asks for its claim code.');
    // Guessing is slow, also for whoever makes a new key for every guess.
    this.#claimPlaces.take(placeOf(address), 'claim codes from this address');
    this.#claimAttempts.take('claim codes');
    if (!isSameSecret(sent.trim(), claimCode)) {
      throw fault('claim_code_required', 'This is not the claim code of this node.');
    }
  }

  #pin(name: string, key: SignerKey): void {
    try {
      this.#options.owners.pinNamed(name, key);
    } catch (error) {
      // A full disk: the gate has proved the name this time, and the next signature pins it.
      if (!isFault(error)) throw error;
    }
  }

  #bySession(token: string, address: string): Caller {
    const { sessions, owners } = this.#options;
    const holder = sessions.holderOf(token, address);
    if (holder === undefined || holder.name !== nameOf(owners.current())) {
      throw fault('unproven', 'The session has ended, or was begun from another address.');
    }
    return { class: 'owner', proof: 'session', ...holder, address };
  }

  async #byToken(token: string, address: string, signal: AbortSignal): Promise<Caller> {
    const place = placeOf(address);
    this.#tokens.take(place, 'tokens that do not count, from this address');
    const workload = await this.#options.workloads.byToken(token, signal).catch((error: unknown) => {
      this.#tokens.giveBack(place); // nobody can tell: no fault of the token
      throw error;
    });
    if (workload === undefined) throw fault('unproven', 'The bearer token is not one that counts here.');
    this.#tokens.giveBack(place);
    return asCaller(workload, 'token', address);
  }

  async #byAddress(request: ProofRequest, address: string, signal: AbortSignal): Promise<Caller> {
    const { workloads, isOwnAddress } = this.#options;
    if (mayProveByAddress(request)) {
      const workload = await workloads.byAddress(address, request.operation, signal);
      if (workload !== undefined) return asCaller(workload, 'address', address);
    }
    const isOurs = isLoopback(address) || isOwnAddress(address);
    return { class: isOurs ? 'loopback' : 'public', proof: 'none', address };
  }
}

/** Only for what today's pods call, and not for a proxy that acts for somebody else. */
function mayProveByAddress(request: ProofRequest): boolean {
  if (specOf(request.operation).origin !== 'specified') return false;
  if (!ruleOf(request.operation).who.includes('workload')) return false;
  if (request.method === 'GET') return true;
  return !request.headerNames.some((name) => forwardingHeader.test(name));
}

function asCaller(workload: WorkloadIdentity, proof: 'token' | 'address', address: string): Caller {
  return { class: 'workload', proof, ...workload, address };
}

function keyOf({ did, keyId, jwk }: SignerKey): SignerKey {
  return keyId === undefined ? { did, jwk } : { did, keyId, jwk };
}

/** Constant time, whatever the lengths. */
function isSameSecret(one: string, other: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(one), digest(other));
}
