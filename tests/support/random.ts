import type { TestContext } from 'node:test';

/** Numbers in [0, 1) from a seed that is printed: `BEOSD_SEED` repeats a run (mulberry32). */
export function randomFrom(context: Pick<TestContext, 'diagnostic'>, seed: number): () => number {
  const given = process.env['BEOSD_SEED'];
  let state = given === undefined ? seed : Number(given);
  context.diagnostic(`seed ${state}`);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
