import type { Clock } from '#host/clock.ts';

/** What the slow net looks after. */
export interface Resynced {
  resync(): void;
}

const everyMs = 60_000;

/**
 * The net under the event sources: once a minute each looks for itself whether it has missed something.
 *
 * INVARIANTS: one timer for all; a source that throws does not keep the others from their turn.
 */
export class Resync {
  readonly #clock: Clock;
  readonly #sources: readonly Resynced[];
  readonly #onError: (error: unknown) => void;
  readonly #stop = new AbortController();

  constructor(clock: Clock, sources: readonly Resynced[], onError: (error: unknown) => void) {
    this.#clock = clock;
    this.#sources = sources;
    this.#onError = onError;
  }

  /** Settles when stopped. */
  async start(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.#clock.sleep(everyMs, this.#stop.signal);
      } catch {
        return; // stopped
      }
      this.now();
    }
  }

  stop(): void {
    this.#stop.abort();
  }

  /** One round, out of turn: after the machine has slept, or for a test. */
  now(): void {
    for (const source of this.#sources) {
      try {
        source.resync();
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}
