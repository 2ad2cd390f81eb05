import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import fc from 'fast-check';
import { type Caller, type CallerClass, callerClasses, type Proof } from '#api/caller.ts';
import { errorCatalogue } from '#api/errors.ts';
import { type Handlers, type OperationName, operationNames, specOf } from '#api/operations.ts';
import { type NodeState, nodeStates } from '#api/states.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { type AuditLine, Pipeline } from '#http/pipeline.ts';
import { Once } from '#jobs/once.ts';
import { gate } from '#state/gate.ts';
import { ruleOf } from '#state/policy.ts';
import { Idempotency } from '#store/idempotency.ts';
import { Store } from '#store/store.ts';
import { fitting } from '../support/arbitrary.ts';

/** How a class usually proves itself, and the weaker proof that it may also come with. */
const proofs: Record<CallerClass, readonly Proof[]> = {
  root: ['socket'],
  owner: ['signature-bound', 'signature-legacy', 'session'],
  signer: ['signature-bound', 'signature-legacy'],
  workload: ['token', 'address'],
  peer: ['signature-bound'],
  loopback: ['none'],
  public: ['none'],
};

/** The admission, written down a second time and without the code that is under test; over the same tables. */
function expected(operation: OperationName, who: CallerClass, proof: Proof, state: NodeState): boolean {
  const rule = ruleOf(operation);
  if (!rule.who.includes(who)) return false;
  if (proof === 'session' && (rule.noSession === true || specOf(operation).method !== 'GET')) return false;
  if (rule.boundForm === true && who !== 'root' && proof !== 'signature-bound') return false;
  const allowed: readonly string[] = gate[state];
  return rule.when === undefined || allowed.includes(rule.when);
}

function* combinations(): Generator<[CallerClass, Proof, NodeState]> {
  for (const who of callerClasses) {
    for (const proof of proofs[who]) for (const state of nodeStates) yield [who, proof, state];
  }
}

function sampleOf(schema: object | undefined): Record<string, unknown> {
  if (schema === undefined) return {};
  return fc.sample(fitting(schema), { numRuns: 1, seed: 7 })[0] as Record<string, unknown>;
}

describe('every route × caller class × proof × state', () => {
  let caller: Caller = { class: 'public', proof: 'none' };
  let state: NodeState = 'checking';
  let reached: OperationName | undefined;
  const audited: AuditLine[] = [];
  let pipeline: Pipeline;

  before(() => {
    const clock = new FakeClock();
    const store = new Store(mkdtempSync(join(tmpdir(), 'beosd-matrix-')), Date.now);
    const handlers = Object.fromEntries(
      operationNames.map((name) => [
        name,
        () => {
          reached = name;
          return specOf(name).raw === undefined ? { data: {} } : { raw: '', contentType: 'text/plain' };
        },
      ]),
    ) as unknown as Handlers;
    pipeline = new Pipeline({
      handlers,
      classify: () => Promise.resolve(caller),
      state: () => state,
      once: new Once({
        idempotency: new Idempotency(store),
        clock,
        hashKey: Buffer.alloc(32),
        startedSince: () => undefined,
      }),
      audit: (line) => audited.push(line),
      logInternal: (_id, operation, error) => assert.fail(`${operation}: ${String(error)}`),
    });
  });

  const attempt = async (operation: OperationName, body: string, params: Record<string, unknown>) => {
    reached = undefined;
    return await pipeline.handle({
      operation,
      transport: 'tcp',
      remoteAddress: '192.0.2.7',
      localAddress: '192.0.2.1',
      method: specOf(operation).method,
      target: specOf(operation).path,
      header: (name) => (name === 'content-type' && body !== '' ? 'application/json' : undefined),
      headerNames: [],
      rawBody: Buffer.from(body),
      params,
      query: {},
      signal: new AbortController().signal,
      requestId: '1',
    });
  };

  const checkRefusal = (
    operation: OperationName,
    answer: { status: number; body: string },
    where: string,
  ) => {
    const { error } = JSON.parse(answer.body) as { error: { code: keyof typeof errorCatalogue } };
    const status = errorCatalogue[error.code].status;
    const onWire = status === 401 && specOf(operation).origin === 'specified' ? 403 : status;
    assert.equal(answer.status, onWire, where);
    assert.ok([401, 403].includes(onWire), where);
  };

  for (const operation of operationNames) {
    test(operation, async () => {
      const spec = specOf(operation);
      const body = spec.body === undefined ? '' : JSON.stringify(sampleOf(spec.body));
      for (const [who, proof, each] of combinations()) {
        caller = { class: who, proof, ...(proof.startsWith('signature') ? { name: 'a@b' } : {}) };
        state = each;
        const outgoing = await attempt(operation, body, sampleOf(spec.params));
        const allowed = expected(operation, who, proof, each);
        const where = `${operation} by ${who} (${proof}) in ${each}`;
        assert.equal(reached, allowed ? operation : undefined, where);
        if (!allowed) {
          assert.ok(outgoing.kind === 'json', where);
          checkRefusal(operation, outgoing.answer, where);
        }
      }
    });
  }

  test('what changes something is audited, whether it was done or refused', () => {
    const names = new Set(audited.map((line) => line.operation));
    for (const operation of operationNames) {
      const changes = specOf(operation).method !== 'GET' && operation !== 'system.checkJws';
      assert.equal(names.has(operation), changes, operation);
    }
  });
});

/** The column "who" of the contract (§2, §4), without the table that is under test; all others are for pods, root and owner. */
const whoInContract: Partial<Record<OperationName, string>> = {
  'auth.session': 'owner',
  'command.changeHost': 'owner root signer',
  'command.install': 'owner root signer',
  'command.reboot': 'owner root signer',
  'command.shutdown': 'owner root signer',
  'command.uninstall': 'owner root',
  'events.stream': 'everyone',
  'jobs.cancel': 'owner root signer workload',
  'jobs.log': 'owner root',
  'owner.release': 'root',
  'owner.transfer': 'owner root, bound',
  'storage.provision': 'owner root, bound',
  'system.audit': 'owner root, no session',
  'system.conditions': 'everyone',
  'system.docs': 'everyone',
  'system.interfaces': 'everyone',
  'system.live': 'everyone',
  'system.metrics': 'loopback owner root workload',
  'system.openapi': 'everyone',
  'system.ready': 'everyone',
  'system.status': 'everyone',
};

test('who may do what is what the contract says, row by row', () => {
  for (const operation of operationNames) {
    const { who, boundForm, noSession } = ruleOf(operation);
    const classes = who.length === callerClasses.length ? 'everyone' : [...who].sort().join(' ');
    const said = `${classes}${boundForm ? ', bound' : ''}${noSession ? ', no session' : ''}`;
    assert.equal(said, whoInContract[operation] ?? 'owner root workload', operation);
  }
});

test('states that lock the owner out of power and logs are only those of the contract', () => {
  const without = (action: 'reboot' | 'collectLogs') =>
    nodeStates.filter((state) => !(gate[state] as readonly string[]).includes(action));
  assert.deepEqual(without('collectLogs'), ['checking']);
  assert.deepEqual(without('reboot'), [
    'checking',
    'adding-node',
    'removing-node',
    'uninstalling',
    'disk-modifing',
    'shutdown',
  ]);
});

test('a stick can be taken out in every state but checking and uninstalling', () => {
  const without = nodeStates.filter((state) => !(gate[state] as readonly string[]).includes('umountUsb'));
  assert.deepEqual(without, ['checking', 'uninstalling']);
});
