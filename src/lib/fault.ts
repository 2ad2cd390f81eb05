/**
 * The one error that crosses our own borders: a stable `code`, a message a person can act on, and the cause.
 * What a code means to HTTP is decided once, in api/errors.ts; nothing below the edge knows about status numbers.
 */
export class Fault<Code extends string = string> extends Error {
  override readonly name = 'Fault';
  readonly code: Code;
  readonly details: FaultDetails;

  constructor(code: Code, message: string, details: FaultDetails & { cause?: unknown } = {}) {
    const { cause, ...rest } = details;
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = rest;
  }
}

/** What the caller can use to mend the refusal; every key is optional and goes to the wire as it is. */
export interface FaultDetails {
  readonly field?: string;
  readonly state?: string;
  readonly allowedIn?: readonly string[];
  readonly jobId?: string;
  /** Seconds after which the same request may succeed. */
  readonly retryAfter?: number;
  /** RFC 3339. */
  readonly serverTime?: string;
  readonly remedy?: string;
  /** Goes out as the envelope's `data`, for refusals that carry a list (holders, shares, versions). */
  readonly data?: unknown;
}

/** Narrows to a Fault, also one that was made by another copy of this module (bundle beside source). */
export function isFault(error: unknown): error is Fault {
  return error instanceof Error && error.name === 'Fault' && 'code' in error && 'details' in error;
}

/** The message of whatever was thrown; of several failures in one that says nothing itself, theirs. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.message !== '' || !(error instanceof AggregateError)) return error.message;
  return error.errors.map(messageOf).join('; ');
}

/** The whole chain of causes, outermost first, as one line for the log. */
export function causeChain(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error, depth = 0; at !== undefined && at !== null && depth < 8; depth++) {
    parts.push(messageOf(at));
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(': ');
}

/** The errno name (`ENOENT`, …) of a system error, if it has one. */
export function errnoOf(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
