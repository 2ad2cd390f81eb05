import type { Clock } from '#host/clock.ts';

/** A number in [0, 1). */
export type Random = () => number;

const firstMs = 200;
/** Low, for the API server is near: recovery is to be seen within 5 s of its return. */
const lastMs = 1500;

/** Waits between attempts that get longer, with jitter so that watches do not come back in step. */
export class Backoff {
  readonly #clock: Clock;
  readonly #random: Random;
  #failures = 0;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Attempts that failed in a row. */
  get failures(): number {
    return this.#failures;
  }

  /** It works again. */
  reset(): void {
    this.#failures = 0;
  }

  /** The next wait, ms: doubling from 200 to 1500, between half and the whole of it. */
  next(atLeastMs = 0): number {
    const ceiling = Math.min(lastMs, firstMs * 2 ** this.#failures);
    this.#failures++;
    return Math.max(atLeastMs, Math.round(ceiling * (0.5 + this.#random() / 2)));
  }

  /** Waits; rejects when aborted. */
  async wait(signal: AbortSignal, atLeastMs = 0): Promise<void> {
    await this.#clock.sleep(this.next(atLeastMs), signal);
  }
}
