import type { Clock } from '#host/clock.ts';

/** How long a daemon that is told to stop waits for what it is doing, ms; less than its unit allows (TimeoutStopSec). */
export const closeMs = 10_000;

/** Whether `work` is over within the time; what is not is left to itself. Rejects as it does, while somebody waits. */
export async function isOverWithin(ms: number, clock: Clock, work: Promise<void>): Promise<boolean> {
  const patience = new AbortController();
  const given = clock.sleep(ms, patience.signal).then(
    () => false,
    () => true,
  );
  try {
    return await Promise.race([work.then(() => true), given]);
  } finally {
    patience.abort();
  }
}
