import type { PublicJwk } from '#lib/did-key.ts';

/** Who calls, decided once per request from proof (contract §5). What a class may do is the policy table's business. */
export const callerClasses = ['root', 'owner', 'signer', 'workload', 'peer', 'loopback', 'public'] as const;

export type CallerClass = (typeof callerClasses)[number];

/** How the class was proved. */
export type Proof =
  | 'socket'
  | 'signature-bound'
  | 'signature-legacy'
  | 'session'
  | 'token'
  | 'address'
  | 'none';

/** The key that a valid signature was made with: what a claim pins. */
export interface SignerKey {
  readonly did: string;
  /** Id of the key in the signer's document, where it has one (`#key-1`). */
  readonly keyId?: string;
  readonly jwk: PublicJwk;
}

export interface Caller {
  readonly class: CallerClass;
  readonly proof: Proof;
  /** `alice@example.com`: the name of a valid signature. */
  readonly name?: string;
  /** Of a valid signature, beside `name`. */
  readonly key?: SignerKey;
  readonly namespace?: string;
  readonly serviceAccount?: string;
  readonly pod?: string;
  /** When the proof ends, ms since the epoch; absent: it does not end with time. */
  readonly until?: number;
  /** The peer's address, IPv4 in dotted form; absent on the unix socket. */
  readonly address?: string;
}

/** The caller as the audit, a job and a log line name it. */
export function callerLabel(caller: Caller): string {
  const who =
    caller.name ??
    (caller.namespace === undefined
      ? undefined
      : `${caller.namespace}/${caller.serviceAccount ?? caller.pod ?? '?'}`) ??
    caller.address;
  return who === undefined ? caller.class : `${caller.class} ${who}`;
}
