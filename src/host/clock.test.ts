import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '#host/clock.ts';
import { FakeClock } from '#host/fake/clock.ts';

for (const [name, clock] of [
  ['the machine', systemClock],
  ['tests', new FakeClock()],
] as const) {
  test(`a sleep that is given up rejects with the reason, by the clock of ${name}`, async () => {
    const reason = new Error('overtaken');
    const controller = new AbortController();
    const slept = clock.sleep(60_000, controller.signal);
    controller.abort(reason);
    await assert.rejects(slept, (error) => error === reason);
    await assert.rejects(clock.sleep(60_000, AbortSignal.abort(reason)), (error) => error === reason);
  });
}
