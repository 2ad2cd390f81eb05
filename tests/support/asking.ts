import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { ErrorCode } from '#api/errors.ts';
import type { OperationName } from '#api/operations.ts';
import { createKey, publicKeyOf, type SigningKey, signBound, signLegacy } from '#client/sign.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { isFault } from '#lib/fault.ts';
import {
  type GatehouseOptions,
  gatehouse,
  nodeId,
  ownAddress,
  request,
  type SentRequest,
} from './gatehouse.ts';

export const owner = createKey();
export const stranger = createKey();
export const username = { username: 'alice' };

type House = ReturnType<typeof gatehouse>;

/** A node of its own for one test. */
export function open(t: TestContext, options: Partial<GatehouseOptions> = {}) {
  const dataDir = options.dataDir ?? join(tmpdir(), `beosd-auth-${randomUUID()}`);
  const clock = options.clock ?? new FakeClock();
  const house = gatehouse({ dataDir, clock, ...options });
  t.after(() => house.close());
  return { house, clock, dataDir };
}

/** The same over a node that `owner` owns. */
export function openOwned(t: TestContext, options: Partial<GatehouseOptions> = {}) {
  const opened = open(t, options);
  own(opened.house, owner);
  return opened;
}

export function own(house: House, key: SigningKey): void {
  house.owners.claim({
    class: 'signer',
    proof: 'signature-bound',
    name: key.name,
    key: { did: key.did, keyId: `#${key.did.slice(8)}`, jwk: publicKeyOf(key) },
  });
  house.owners.confirm();
}

export function call(house: House, operation: OperationName, sent: SentRequest = {}) {
  return house.authenticator.classify(request(operation, sent), new AbortController().signal);
}

/** Asserts that the request is refused with this code, naming this field. */
export function refused(
  house: House,
  code: ErrorCode,
  operation: OperationName,
  sent: SentRequest,
  field?: string,
): Promise<void> {
  return assert.rejects(call(house, operation, sent), (error) => {
    assert.ok(isFault(error), String(error));
    assert.equal(error.code, code, error.message);
    if (field !== undefined) assert.equal(error.details.field, field);
    return true;
  });
}

export function legacy(clock: FakeClock, key = owner, body: Record<string, unknown> = username): string {
  return signLegacy(key, { now: clock.now(), domain: `http://${ownAddress}:18088`, body });
}

export function bound(clock: FakeClock, path: string, rawBody = '', key = owner, method = 'POST'): string {
  return signBound(key, { now: clock.now(), method, path, rawBody, nodeId });
}
