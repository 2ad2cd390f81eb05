import type { Clock } from '#host/clock.ts';

/** Shows each of many things at most so often; what came meanwhile is shown when the time is up, and not later. */
export class Pace {
  readonly #clock: Clock;
  readonly #everyMs: number;
  readonly #last = new Map<string, number>();
  readonly #waiting = new Set<string>();

  constructor(clock: Clock, everyMs: number) {
    this.#clock = clock;
    this.#everyMs = everyMs;
  }

  /** Calls `show` now, or once when the time is up; it has to show what is true by then. */
  async show(id: string, show: () => void): Promise<void> {
    if (this.#waiting.has(id)) return;
    const due = (this.#last.get(id) ?? Number.NEGATIVE_INFINITY) + this.#everyMs;
    const wait = due - this.#clock.monotonic();
    if (wait > 0) {
      this.#waiting.add(id);
      await this.#clock.sleep(wait);
      if (!this.#waiting.delete(id)) return; // forgotten meanwhile
    }
    this.#last.set(id, this.#clock.monotonic());
    show();
  }

  /** It is over: what waits to be shown of it is not shown any more. */
  forget(id: string): void {
    this.#waiting.delete(id);
    this.#last.delete(id);
  }
}
