import type { Static, TSchema } from 'typebox';
import type { OperationName, Operations } from '#api/operations.ts';

/** What a call can be told beside its input. */
export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Sent with a mutating call; absent: one is made for the call, and used again when it is retried. */
  readonly idempotencyKey?: string;
  /** The code on the console of a node that asks for one when it is claimed. */
  readonly claimCode?: string;
}

type ParamsOf<Spec> = Spec extends { readonly params: infer Schema extends TSchema }
  ? { readonly params: Static<Schema> }
  : unknown;

type QueryOf<Spec> = Spec extends { readonly query: infer Schema extends TSchema }
  ? { readonly query?: Static<Schema> }
  : unknown;

type BodyOf<Spec> = Spec extends { readonly body: infer Schema extends TSchema }
  ? Spec extends { readonly bodyOptional: true }
    ? { readonly body?: Static<Schema> }
    : { readonly body: Static<Schema> }
  : unknown;

/** Operations that answer once; the stream of events has a method of its own. */
export type CallName = Exclude<OperationName, 'events.stream'>;

/** Operations that can say what they would do. */
export type PlannedName = {
  [Name in OperationName]: Operations[Name] extends { readonly dryRun: true } ? Name : never;
}[OperationName];

export type CallInput<Name extends OperationName> = ParamsOf<Operations[Name]> &
  QueryOf<Operations[Name]> &
  BodyOf<Operations[Name]> &
  CallOptions;

/** The input may be left out where no part of it is required. */
export type CallArguments<Name extends OperationName> =
  Record<never, never> extends CallInput<Name> ? [input?: CallInput<Name>] : [input: CallInput<Name>];

/** The envelope's `data`; the text of an answer that is no envelope. */
export type DataOf<Name extends OperationName> = Operations[Name] extends { readonly raw: string }
  ? string
  : Operations[Name] extends { readonly data: infer Schema extends TSchema }
    ? Static<Schema>
    : undefined;

/** The input of any operation, for callers that take the name from elsewhere (beosctl). */
export interface LooseInput extends CallOptions {
  readonly params?: Readonly<Record<string, unknown>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: Readonly<Record<string, unknown>>;
  readonly dryRun?: boolean;
}

/** An answer with all that the envelope carries. */
export interface FullAnswer<Data = unknown> {
  readonly status: number;
  readonly message: string;
  readonly data: Data;
  /** Keys beside `data`: `next` of a list, `unreachable` of a fan-out. */
  readonly beside: Readonly<Record<string, unknown>>;
}
