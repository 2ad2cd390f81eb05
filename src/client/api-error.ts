import type { JobError } from '#api/shapes.ts';

/** What the node says beside the message, all of it optional (contract §10, error). */
export type ErrorDetails = Partial<Omit<JobError, 'code' | 'message'>>;

/** A refusal by the node, in its own words. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** The HTTP status. */
  readonly status: number;
  /** Stable; one of docs/errors.md, or `invalid_answer` when what answered is no beosd. */
  readonly code: string;
  readonly details: ErrorDetails;
  /** A list that belongs to the refusal: holders of a mount, shares to choose from. */
  readonly data: unknown;

  constructor(status: number, code: string, message: string, details: ErrorDetails = {}, data?: unknown) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.data = data;
  }
}

/** Nothing answered: the name, the network, the socket or the process is not there. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable';
  /** The request may have arrived; only with an Idempotency-Key is it safe to send it again. */
  readonly sent: boolean;

  constructor(target: string, cause: unknown, sent: boolean) {
    super(`cannot reach ${target}`, { cause });
    this.sent = sent;
  }
}
