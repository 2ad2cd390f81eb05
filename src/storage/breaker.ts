/** Spaces retries of something that fails: 1, 2, 4 … up to `most` ms, each ±25 %, so that shares do not march in step. */
export class Breaker {
  readonly #first: number;
  readonly #most: number;
  readonly #random: () => number;
  #failures = 0;
  #until = Number.NEGATIVE_INFINITY;

  constructor(first: number, most: number, random: () => number = Math.random) {
    this.#first = first;
    this.#most = most;
    this.#random = random;
  }

  get failures(): number {
    return this.#failures;
  }

  mayTry(now: number): boolean {
    return now >= this.#until;
  }

  failed(now: number): void {
    const wait = Math.min(this.#most, this.#first * 2 ** Math.min(this.#failures, 20));
    this.#failures++;
    this.#until = now + wait * (0.75 + this.#random() / 2);
  }

  /** No try before `until`, for a failure that only a person can mend. */
  pause(until: number): void {
    this.#until = Math.max(this.#until, until);
  }

  succeeded(): void {
    this.#failures = 0;
    this.#until = Number.NEGATIVE_INFINITY;
  }
}
