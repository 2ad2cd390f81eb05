import type { Clock } from '#host/clock.ts';
import type { Observatory } from '#state/observatory.ts';
import type { Store } from '#store/store.ts';

const retryMs = 5_000;

/** Tells the state of the node how the store is, and brings it back to disk when it can be written again. */
export class StoreWatch {
  readonly #store: Store;
  readonly #observatory: Observatory;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #listeners = new Set<() => void>();
  #retrying = false;

  constructor(options: { store: Store; observatory: Observatory; clock: Clock; signal: AbortSignal }) {
    this.#store = options.store;
    this.#observatory = options.observatory;
    this.#clock = options.clock;
    this.#signal = options.signal;
  }

  /** The disk can be written again, and what it held is known again. */
  onRecovered(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** To be called after writes; cheap while all is well. */
  look(): void {
    const { durable, reason, historyLostAt, setAside } = this.#store.health;
    this.#observatory.update({
      store: { durable, reason, historyLostAt, ...(setAside === undefined ? {} : { setAside }) },
    });
    if (!durable && !this.#retrying) void this.#retry();
  }

  async #retry(): Promise<void> {
    this.#retrying = true;
    try {
      while (!this.#store.recover()) await this.#clock.sleep(retryMs, this.#signal);
    } catch {
      return; // the daemon stops
    } finally {
      this.#retrying = false;
    }
    this.look();
    for (const listener of this.#listeners) listener();
  }
}
