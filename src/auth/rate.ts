import { fault } from '#api/errors.ts';
import type { Clock } from '#host/clock.ts';

/** At most so many a minute, with a burst of the same size (token bucket on the monotonic clock). */
export class RateLimit {
  readonly #clock: Clock;
  readonly #perMinute: number;
  #tokens: number;
  #at: number;

  constructor(clock: Clock, perMinute: number) {
    this.#clock = clock;
    this.#perMinute = perMinute;
    this.#tokens = perMinute;
    this.#at = clock.monotonic();
  }

  /** @throws Fault `too_many_requests` with the seconds to wait. */
  take(what: string): void {
    const now = this.#clock.monotonic();
    const earned = ((now - this.#at) / 60_000) * this.#perMinute;
    this.#tokens = Math.min(this.#perMinute, this.#tokens + earned);
    this.#at = now;
    if (this.#tokens < 1) {
      const retryAfter = Math.ceil(((1 - this.#tokens) / this.#perMinute) * 60);
      throw fault('too_many_requests', `Too many ${what}.`, { retryAfter });
    }
    this.#tokens -= 1;
  }

  /** What was taken is not counted: it turned out to be rightful. */
  giveBack(): void {
    this.#tokens += 1;
  }
}

/** Limits that are remembered; who has not asked for longest is forgotten first, and has all of his again. */
const placesRemembered = 1024;

/** A {@link RateLimit} for each place that calls come from: nobody uses up what another one needs. */
export class RateLimits {
  readonly #clock: Clock;
  readonly #perMinute: number;
  readonly #limits = new Map<string, RateLimit>();

  constructor(clock: Clock, perMinute: number) {
    this.#clock = clock;
    this.#perMinute = perMinute;
  }

  /** @throws Fault `too_many_requests` with the seconds to wait. */
  take(place: string, what: string): void {
    const limit = this.#limits.get(place) ?? new RateLimit(this.#clock, this.#perMinute);
    this.#limits.delete(place);
    this.#limits.set(place, limit);
    const [oldest] = this.#limits.keys();
    if (this.#limits.size > placesRemembered && oldest !== undefined) this.#limits.delete(oldest);
    limit.take(what);
  }

  giveBack(place: string): void {
    this.#limits.get(place)?.giveBack();
  }
}
