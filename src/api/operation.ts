import type { Static, TObject, TSchema } from 'typebox';
import type { Caller } from '#api/caller.ts';

/**
 * One row of the contract. Everything else (route, validation, OpenAPI, beosctl, client, docs) is derived from it;
 * who may call it and when stands in state/policy.ts, which does not compile without a row of the same name.
 */
export interface OperationSpec {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Fastify notation: `/jobs/:id`, and `*` at the end for a parameter that may hold slashes. */
  readonly path: string;
  readonly summary: string;
  /**
   * `specified`: a route that the ancestor has. Keys match in any case, unknown keys are ignored, a missing proof is
   * 403. `added`: ours. Unknown keys are refused by name, a missing proof is 401 (contract §1).
   */
  readonly origin: 'specified' | 'added';
  readonly params?: TObject;
  readonly query?: TObject;
  readonly body?: TObject;
  /** The body may be left out altogether. */
  readonly bodyOptional?: true;
  /** Schema of the envelope's `data`; absent: the answer has none. */
  readonly data?: TSchema;
  /** The envelope's `message` on success, unless the handler says otherwise. */
  readonly message?: string;
  /** Keys that a legacy signature must cover in its signed `body` (contract §8). */
  readonly signedKeys?: readonly string[];
  /** Takes `?dryRun=true` and then answers with a plan (contract §10) and changes nothing. */
  readonly dryRun?: true;
  /** Answers with something that is not the envelope (SSE, Prometheus text, HTML). */
  readonly raw?: string;
  /** Other statuses that the contract names for this route, for OpenAPI and for the fuzz test. */
  readonly statuses?: readonly number[];
  /** Never called from beosctl as a subcommand of its own (events has its own loop, docs are for browsers). */
  readonly cli?: false;
}

type StaticOr<S, Otherwise> = S extends TSchema ? Static<S> : Otherwise;

export interface Input<Spec extends OperationSpec> {
  readonly params: StaticOr<Spec['params'], Record<never, never>>;
  readonly query: StaticOr<Spec['query'], Record<never, never>>;
  readonly body: StaticOr<Spec['body'], undefined>;
}

/** What travels with a request beside its input. */
export interface Call {
  readonly caller: Caller;
  /** Aborted when the client goes away or the daemon stops. Work that must outlive the request belongs in a job. */
  readonly signal: AbortSignal;
  readonly requestId: string;
  readonly dryRun: boolean;
  /** The id of the last event that the client has seen (`Last-Event-ID`); only /events reads it. */
  readonly lastEventId?: string;
}

export interface Answer<Data> {
  readonly data: Data;
  /** Replaces the operation's message. */
  readonly message?: string;
  /** 300 for "choose one" (contract §2, v2/mount-samba). */
  readonly status?: 200 | 300 | 503;
  /** Keys beside `data` in the envelope: `next` of a list, `unreachable` of a fan-out. */
  readonly beside?: Readonly<Record<string, unknown>>;
  /** What an Idempotency-Key keeps in place of `data` when that holds a secret (contract §2, install). */
  readonly kept?: unknown;
}

/** An answer that is no envelope: bytes, or an endless stream. */
export interface RawAnswer {
  readonly raw: string | Uint8Array | AsyncIterable<string>;
  readonly contentType: string;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export type Reply<Spec extends OperationSpec> = Spec extends { raw: string }
  ? RawAnswer
  : Answer<StaticOr<Spec['data'], undefined>> | (Spec extends { dryRun: true } ? PlanAnswer : never);

export type Handler<Spec extends OperationSpec> = (
  input: Input<Spec>,
  call: Call,
) => Promise<Reply<Spec>> | Reply<Spec>;

/** A step of a plan, as `?dryRun=true` prints it. */
export interface PlannedStep {
  readonly name: string;
  readonly does: string;
  readonly reversible: boolean;
}

export interface Precondition {
  readonly name: string;
  readonly ok: boolean;
  readonly reason: string;
}

export interface DryRun {
  readonly allowed: boolean;
  readonly preconditions: readonly Precondition[];
  readonly steps: readonly PlannedStep[];
}

/** The answer to `?dryRun=true`. */
export interface PlanAnswer {
  readonly plan: DryRun;
}
