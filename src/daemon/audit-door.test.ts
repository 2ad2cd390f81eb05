import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import { AuditDoor } from '#daemon/audit-door.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { AuditLog } from '#store/audit.ts';
import { Store } from '#store/store.ts';

const stranger: Caller = { class: 'public', proof: 'none', address: '192.168.1.77' };
const owner: Caller = { class: 'owner', proof: 'signature-bound', name: 'alice@example.com' };

function bench() {
  const store = new Store(mkdtempSync(join(tmpdir(), 'beosd-audit-')), Date.now);
  const audit = new AuditLog(store);
  const clock = new FakeClock();
  const door = new AuditDoor({ audit, clock });
  const say = (caller: Caller, outcome: string) =>
    door.record({ caller, operation: 'command.uninstall', outcome, jobId: undefined, detail: undefined });
  return { store, audit, clock, say };
}

test('a stranger who asks a thousand times costs a few writes; the next line says how many are missing', async () => {
  const { store, audit, clock, say } = bench();
  for (let n = 0; n < 1000; n++) say(stranger, 'unproven');
  assert.equal(audit.list(1000, undefined).length, 20);
  say(owner, 'done');
  assert.equal(audit.list(1, undefined)[0]?.detail, '980 refusals left out');
  await clock.advance(60_000);
  say(stranger, 'unproven');
  assert.deepEqual(audit.list(1, undefined)[0]?.detail, undefined);
  store.close();
});

test('what a proven caller does is always written down', () => {
  const { store, audit, say } = bench();
  for (let n = 0; n < 100; n++) say(stranger, 'unproven');
  for (let n = 0; n < 100; n++) say(owner, n % 2 === 0 ? 'done' : 'state_forbids');
  assert.equal(audit.list(1000, undefined).filter(({ proof }) => proof !== 'none').length, 100);
  store.close();
});

test('refusals of strangers age out among themselves: they push out nothing of anybody else', () => {
  const { store, audit } = bench();
  const entry = { at: 1, caller: 'x', operation: 'command.reboot', outcome: 'unproven' };
  audit.append({ ...entry, proof: 'socket', outcome: 'done' });
  audit.append({ ...entry, proof: 'none', operation: 'owner', outcome: 'claimed' });
  store.write((db) => {
    for (let n = 0; n < 10_500; n++) {
      db.run("INSERT INTO audit (at, caller, proof, operation, outcome) VALUES (1, 'x', 'none', 'y', 'z')");
    }
  });
  for (let n = 0; n < 100; n++) audit.append({ ...entry, proof: 'none' });
  const rows = audit.list(20_000, undefined);
  assert.ok(rows.length <= 10_102, `${rows.length}`);
  assert.deepEqual(
    rows.slice(-2).map(({ outcome }) => outcome),
    ['claimed', 'done'],
  );
  store.close();
});
