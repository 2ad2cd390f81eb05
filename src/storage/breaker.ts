/** The server refused the login: 5, 10, 20 … up to 60 minutes until the next try. Accounts are locked by repetition. */
const firstRefusal = 5 * 60_000;
const mostRefusal = 60 * 60_000;

/** Spaces retries of something that fails: 1, 2, 4 … up to `most` ms, each ±25 %, so that shares do not march in step. */
export class Breaker {
  readonly #first: number;
  readonly #most: number;
  readonly #random: () => number;
  #failures = 0;
  #until = Number.NEGATIVE_INFINITY;
  #refusals = 0;
  #refusedUntil = Number.NEGATIVE_INFINITY;

  constructor(first: number, most: number, random: () => number = Math.random) {
    this.#first = first;
    this.#most = most;
    this.#random = random;
  }

  get failures(): number {
    return this.#failures;
  }

  mayTry(now: number): boolean {
    return now >= this.#until && now >= this.#refusedUntil;
  }

  failed(now: number): void {
    const wait = Math.min(this.#most, this.#first * 2 ** Math.min(this.#failures, 20));
    this.#failures++;
    this.#until = now + wait * (0.75 + this.#random() / 2);
  }

  /** A failure that only a person can mend. */
  refused(now: number): void {
    this.#refusedUntil = now + Math.min(mostRefusal, firstRefusal * 2 ** Math.min(this.#refusals, 20));
    this.#refusals++;
  }

  /**
   * The server was away and is back: what failed before says nothing about it now. One refusal may have been a server
   * on its way down; after two in a row it is the login, however often the server comes and goes.
   */
  returned(): void {
    this.#failures = 0;
    this.#until = Number.NEGATIVE_INFINITY;
    if (this.#refusals < 2) this.#refusedUntil = Number.NEGATIVE_INFINITY;
  }

  succeeded(): void {
    this.#refusals = 0;
    this.returned();
  }
}
