import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Breaker } from '#storage/breaker.ts';

/** How long after `failed` no try is made, ms. */
function waitAfter(breaker: Breaker, now: number): number {
  breaker.failed(now);
  let wait = 0;
  while (!breaker.mayTry(now + wait)) wait += 125;
  return wait;
}

test('retries are spaced by 1, 2, 4 and at most 8 s, each spread by a quarter to both sides', () => {
  for (const [random, waits] of [
    [0, [750, 1500, 3000, 6000, 6000]],
    [0.5, [1000, 2000, 4000, 8000, 8000]],
    [1, [1250, 2500, 5000, 10_000, 10_000]],
  ] as const) {
    const breaker = new Breaker(1000, 8000, () => random);
    assert.deepEqual(
      waits.map((_, n) => waitAfter(breaker, n * 60_000)),
      waits,
    );
    breaker.succeeded();
    assert.equal(waitAfter(breaker, 0), waits[0]);
  }
});

test('a refused login waits 5 minutes, then ever longer up to an hour, and a success forgets that', () => {
  const breaker = new Breaker(1000, 8000);
  const minutes = () => {
    breaker.refused(0);
    let wait = 0;
    while (!breaker.mayTry(wait * 60_000)) wait++;
    return wait;
  };
  assert.deepEqual([1, 2, 3, 4, 5, 6].map(minutes), [5, 10, 20, 40, 60, 60]);
  breaker.returned();
  assert.equal(breaker.mayTry(0), false, 'a server that comes and goes changes nothing');
  breaker.succeeded();
  assert.equal(minutes(), 5);
  breaker.returned();
  assert.equal(breaker.mayTry(0), true, 'one refusal may have been a server on its way down');
});
