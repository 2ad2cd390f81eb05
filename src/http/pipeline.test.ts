import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import type { Call } from '#api/operation.ts';
import { type Handlers, type OperationName, operationNames, specOf } from '#api/operations.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { type IncomingCall, Pipeline } from '#http/pipeline.ts';
import { Once } from '#jobs/once.ts';
import { Idempotency } from '#store/idempotency.ts';
import { Store } from '#store/store.ts';

const plan = { allowed: true, preconditions: [], steps: [] };

/** A pipeline whose operations only tell that they were reached, and whether for a dry run. */
function open(t: TestContext) {
  const store = new Store(mkdtempSync(join(tmpdir(), 'beosd-pipeline-')), Date.now);
  t.after(() => store.close());
  const reached: string[] = [];
  const handler = (name: OperationName) => (_input: unknown, call: Call) => {
    reached.push(call.dryRun ? `plan ${name}` : name);
    return call.dryRun ? { plan } : { data: {} };
  };
  const caller: Caller = { class: 'root', proof: 'socket' };
  const pipeline = new Pipeline({
    handlers: Object.fromEntries(operationNames.map((name) => [name, handler(name)])) as unknown as Handlers,
    classify: () => Promise.resolve(caller),
    state: () => 'not-installed',
    once: new Once({
      idempotency: new Idempotency(store),
      clock: new FakeClock(),
      hashKey: Buffer.alloc(32),
      startedSince: () => undefined,
    }),
    audit: () => undefined,
    logInternal: (_id, operation, error) => assert.fail(`${operation}: ${String(error)}`),
  });
  const ask = async (operation: OperationName, query: IncomingCall['query']) => {
    const outgoing = await pipeline.handle({
      ...{ operation, query, transport: 'socket', remoteAddress: '', localAddress: '', params: {} },
      ...{ method: specOf(operation).method, target: specOf(operation).path, headerNames: [] },
      ...{ rawBody: new Uint8Array(), signal: new AbortController().signal, requestId: '1' },
      header: () => undefined,
    });
    return outgoing.kind === 'json' ? outgoing.answer.status : undefined;
  };
  return { reached, ask };
}

test('who means a dry run gets no act, however it is spelt', async (t) => {
  const { reached, ask } = open(t);
  for (const key of ['dryRun', 'dryrun', 'DRYRUN', 'dry-run', 'dry_run', 'Dry-Run']) {
    assert.equal(await ask('command.reboot', { [key]: 'true' }), 200, key);
    assert.equal(reached.pop(), 'plan command.reboot', key);
    assert.equal(await ask('command.reboot', { [key]: 'false' }), 200, key);
    assert.equal(reached.pop(), 'command.reboot', key);
  }
  for (const query of [
    { dryRun: '' },
    { dryRun: '1' },
    { dryRun: 'True' },
    { dryRun: ['true', 'true'] },
    { dryRun: 'false', dry_run: 'true' },
    { 'dry-run': 'true', dryrun: 'false' },
  ]) {
    assert.equal(await ask('command.reboot', query), 400, JSON.stringify(query));
  }
  assert.deepEqual(reached, []);
});

test('an operation without a dry run refuses one, and does nothing', async (t) => {
  const { reached, ask } = open(t);
  assert.equal(await ask('jobs.cancel', { 'dry-run': 'true' }), 400);
  assert.deepEqual(reached, []);
});
