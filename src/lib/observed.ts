/**
 * A fact about the machine: what was seen, by whom, and when. Unknown is not "none": a probe that failed says so,
 * and a fact whose source has gone down keeps its last value together with the reason and the age.
 */
export type Observed<T> = Known<T> | Unknown;

export interface Known<T> {
  readonly known: true;
  readonly value: T;
  readonly source: string;
  /** ms since the epoch, when the value was last confirmed. */
  readonly at: number;
  /** Present while the source is down and the value is the last good one. */
  readonly stale?: { readonly since: number; readonly reason: string };
}

export interface Unknown {
  readonly known: false;
  readonly source: string;
  readonly since: number;
  readonly reason: string;
}

export function known<T>(value: T, source: string, at: number): Known<T> {
  return { known: true, value, source, at };
}

export function unknown(source: string, since: number, reason: string): Unknown {
  return { known: false, source, since, reason };
}

/** The fact after its source failed: the last good value grows old, an unknown stays unknown. */
export function failed<T>(before: Observed<T>, source: string, now: number, reason: string): Observed<T> {
  if (!before.known) return unknown(source, before.since, reason);
  return { ...before, stale: { since: before.stale?.since ?? now, reason } };
}

/** The value, or `fallback` while it is unknown. */
export function valueOr<T, F>(fact: Observed<T>, fallback: F): T | F {
  return fact.known ? fact.value : fallback;
}
