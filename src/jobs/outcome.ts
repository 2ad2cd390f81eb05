import { isErrorCode } from '#api/errors.ts';
import type { JobError } from '#api/shapes.ts';
import { isFault, messageOf } from '#lib/fault.ts';

/** The reason of an abort that somebody asked for. */
export class Cancelled extends Error {
  override readonly name = 'Cancelled';
  constructor(by: string) {
    super(`Cancelled by ${by}.`);
  }
}

/** Nobody can say how far it came. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** What a job's end looks like on the wire: the fault's own words, or an internal error. */
export function jobErrorOf(error: unknown): JobError {
  if (error instanceof Cancelled) return { code: 'cancelled', message: error.message };
  if (error instanceof Interrupted) return { code: 'interrupted', message: error.message };
  if (!isFault(error)) return { code: 'internal', message: messageOf(error) };
  const { data: _data, allowedIn, ...details } = error.details;
  return {
    code: isErrorCode(error.code) ? error.code : 'internal',
    message: error.message,
    ...details,
    ...(allowedIn === undefined ? {} : { allowedIn: [...allowedIn] }),
  };
}
