import assert from 'node:assert/strict';
import type { Observed } from '#lib/observed.ts';

/** What a source has said, and a wait for what it shall say. */
export function heard<T>() {
  const said: Observed<T>[] = [];
  const waiting = new Set<() => void>();
  const last = () => {
    const fact = said.at(-1);
    assert.ok(fact?.known, JSON.stringify(fact));
    return fact.value;
  };
  const until = (holds: (value: T) => boolean) =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`not said: ${JSON.stringify(said.at(-1))}`)), 5000);
      const look = () => {
        const fact = said.at(-1);
        if (!fact?.known || !holds(fact.value)) return;
        clearTimeout(timer);
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
    });
  const onFacts = (fact: Observed<T>) => {
    said.push(fact);
    for (const wake of waiting) wake();
  };
  return { said, last, until, onFacts };
}
