import { type ErrorCode, errorCatalogue, isErrorCode } from '#api/errors.ts';
import type { OperationSpec } from '#api/operation.ts';
import { isFault } from '#lib/fault.ts';

export interface Envelope {
  readonly code: number;
  readonly message: string;
  readonly data?: unknown;
  readonly error?: Readonly<Record<string, unknown>>;
}

/**
 * The one place where a failure becomes a status. A missing or bad proof is 403 on the ancestor's routes, 401 on ours
 * (contract §1). What is not a Fault is our own bug: 500, with nothing of the inside in it.
 */
export function errorEnvelope(error: unknown, origin: OperationSpec['origin'] | undefined): Envelope {
  const [code, message, details] = explain(error);
  const row = errorCatalogue[code];
  const status = row.status === 401 && origin === 'specified' ? 403 : row.status;
  const { data, ...rest } = details;
  return {
    code: status,
    message,
    ...(data === undefined ? {} : { data }),
    error: { code, remedy: row.remedy, ...rest },
  };
}

function explain(error: unknown): [ErrorCode, string, Readonly<Record<string, unknown>>] {
  if (isFault(error) && isErrorCode(error.code)) return [error.code, error.message, { ...error.details }];
  return ['internal', 'A fault of beosd itself; its log says more.', {}];
}
