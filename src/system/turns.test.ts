import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '#host/fake/clock.ts';
import { deriveState, nextTurn, settlingMs } from '#state/derive.ts';
import { Turns } from '#system/turns.ts';
import { at, clustered, machine, minute, seen } from '../../tests/support/machines.ts';

/** A clock that also tells who sleeps. */
class Sleepers extends FakeClock {
  awaited: number[] = [];

  override sleep(ms: number, signal?: AbortSignal): Promise<void> {
    this.awaited.push(ms);
    return super.sleep(ms, signal);
  }
}

test('a machine that has settled is running at that moment, not with the next resync', async () => {
  const clock = new Sleepers(at);
  const young = clustered({}, { machine: seen({ ...machine, bootedAt: at - 2 * minute }) });
  const states: string[] = [];
  const turns = new Turns({
    clock,
    next: () => nextTurn(young, [], clock.now()),
    onTurn: () => states.push(deriveState(young, [], clock.now()).state),
  });
  turns.look();
  turns.look();
  assert.deepEqual(clock.awaited, [settlingMs - 2 * minute], 'one timer, however often it looks');
  await clock.advance(minute - 1);
  assert.deepEqual(states, []);
  await clock.advance(1);
  assert.deepEqual(states, ['terminus-running']);
  await clock.advance(7 * minute);
  assert.equal(clock.awaited.length, 2, 'the end of the start; after that time alone changes nothing');
  assert.equal(nextTurn(young, [], clock.now()), undefined);
});

test('a moment that moves or goes is no longer waited for, one far ahead is waited for in parts, none after the stop', async () => {
  const clock = new Sleepers(at);
  let next: number | undefined = at + 1000;
  let turned = 0;
  const turns = new Turns({ clock, next: () => next, onTurn: () => turned++ });
  turns.look();
  next = at + 5000;
  turns.look();
  await clock.advance(1000);
  assert.equal(turned, 0);
  next = undefined;
  turns.look();
  await clock.advance(4000);
  assert.equal(turned, 0);
  next = clock.now() + 1000 * 24 * 60 * minute;
  turns.look();
  assert.equal(clock.awaited.at(-1), 60 * minute);
  turns.stop();
  const { length } = clock.awaited;
  await clock.advance(60 * minute);
  turns.look();
  assert.deepEqual([turned, clock.awaited.length], [0, length]);
});
