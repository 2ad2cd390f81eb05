import type { Clock } from '#host/clock.ts';

export interface TurnsOptions {
  readonly clock: Clock;
  /** The next moment, ms since the epoch; undefined: there is none. */
  readonly next: () => number | undefined;
  readonly onTurn: () => void;
}

/** A timer holds no more than 24 days, and a wall clock may be set while it waits. */
const longestMs = 60 * 60_000;

/**
 * Wakes at the next moment at which time alone may change something, so that it is not found by the slow resync only.
 *
 * INVARIANTS: at most one timer, and none while there is no such moment.
 */
export class Turns {
  readonly #options: TurnsOptions;
  #waiting: { readonly at: number; readonly cut: AbortController } | undefined;
  #stopped = false;

  constructor(options: TurnsOptions) {
    this.#options = options;
  }

  /** To be called with every change; cheap. */
  look(): void {
    const at = this.#stopped ? undefined : this.#options.next();
    if (at === this.#waiting?.at) return;
    this.#waiting?.cut.abort();
    this.#waiting = undefined;
    if (at !== undefined) this.#wait(at);
  }

  stop(): void {
    this.#stopped = true;
    this.look();
  }

  #wait(at: number): void {
    const { clock, onTurn } = this.#options;
    const cut = new AbortController();
    this.#waiting = { at, cut };
    clock.sleep(Math.min(longestMs, Math.max(1, at - clock.now())), cut.signal).then(
      () => {
        this.#waiting = undefined;
        onTurn();
        this.look();
      },
      () => undefined,
    );
  }
}
