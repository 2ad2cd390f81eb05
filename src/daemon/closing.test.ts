import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { closeMs, isOverWithin } from '#daemon/closing.ts';
import { FakeClock } from '#host/fake/clock.ts';

test('a daemon that stops waits for its work, and not for ever', async () => {
  const clock = new FakeClock();
  assert.equal(await isOverWithin(closeMs, clock, Promise.resolve()), true);
  await assert.rejects(isOverWithin(closeMs, clock, Promise.reject(new Error('broken'))), /broken/);
  const never = isOverWithin(closeMs, clock, new Promise(() => undefined));
  await clock.advance(closeMs);
  assert.equal(await never, false);
});

test('it has given up before its service manager does, so that it ends as stopped and not as killed', () => {
  const unit = readFileSync(new URL('../../packaging/beosd.service', import.meta.url), 'utf8');
  const allowed = Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]) * 1000;
  assert.ok(closeMs + 3_000 <= allowed, `${closeMs} of ${allowed} ms`);
});

test('what an installer reads in /run outlives a stop of the daemon', () => {
  const unit = readFileSync(new URL('../../packaging/beosd.service', import.meta.url), 'utf8');
  assert.match(unit, /^RuntimeDirectory=beosd$/m);
  assert.match(unit, /^RuntimeDirectoryPreserve=yes$/m);
});
