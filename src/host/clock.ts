import { setTimeout as delay } from 'node:timers/promises';

/** Time, injected: tests turn it by hand. */
export interface Clock {
  /** Wall clock, ms since the epoch. Jumps when the clock is set. */
  now(): number;
  /** ms from an arbitrary start; never jumps. Deadlines and ages of running things use this one. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when aborted. Does not keep the process alive. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: async (ms, signal) => {
    try {
      await delay(ms, undefined, { ref: false, ...(signal ? { signal } : {}) });
    } catch (error) {
      signal?.throwIfAborted(); // its reason, and not the AbortError that Node makes of it
      throw error;
    }
  },
};

/** RFC 3339 in UTC. */
export function rfc3339(ms: number): string {
  return new Date(ms).toISOString();
}
