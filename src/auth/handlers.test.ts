import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import type { Call } from '#api/operation.ts';
import { createKey, publicKeyOf, signBound, signLegacy } from '#client/sign.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { gatehouse, nodeId, request } from '../../tests/support/gatehouse.ts';

const alice = createKey();
const bob = createKey();
const carol = createKey({ name: 'carol@example.com' });
const root: Caller = { class: 'root', proof: 'socket' };
const never = new AbortController().signal;

const call = (caller: Caller = root, dryRun = false): Call => ({
  caller,
  signal: never,
  requestId: '1',
  dryRun,
});
const body = <T>(value: T) => ({ params: {}, query: {}, body: value });
const nothing = { params: {}, query: {}, body: undefined };

async function open(t: TestContext) {
  const asked: string[] = [];
  const known = {
    didDocument: { id: carol.did, verificationMethod: [{ id: '#k', publicKeyJwk: publicKeyOf(carol) }] },
  };
  const server = createServer((incoming, response) => {
    asked.push(incoming.url ?? '');
    if (incoming.url === '/1.0/name/carol.example.com') response.end(JSON.stringify(known));
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const gate = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const clock = new FakeClock();
  const house = gatehouse({ dataDir: mkdtempSync(join(tmpdir(), 'beosd-handlers-')), clock, gate });
  t.after(() => {
    house.close();
    server.closeAllConnections();
    server.close();
  });
  const key = { did: alice.did, jwk: publicKeyOf(alice) };
  house.owners.claim({ class: 'signer', proof: 'signature-bound', name: alice.name, key });
  const ownerName = () => {
    const now = house.owners.current();
    return now.kind === 'pinned' ? now.owner.name : now.kind;
  };
  return { house, clock, known, asked, ownerName, handlers: house.handlers };
}

test('a session is for who has signed, and its token is not kept', async (t) => {
  const { handlers, house } = await open(t);
  const owner: Caller = {
    class: 'owner',
    proof: 'signature-bound',
    name: alice.name,
    address: '192.168.1.7',
  };
  const answer = await handlers['auth.session'](nothing, call(owner));
  assert.equal(house.sessions.holderOf(answer.data.token, '192.168.1.7')?.name, alice.name);
  assert.ok(!JSON.stringify(answer.kept).includes(answer.data.token));
  await assert.rejects(async () => handlers['auth.session'](nothing, call()), { code: 'forbidden' });
});

test('a transfer needs a name and a key that belong together', async (t) => {
  const { handlers, ownerName } = await open(t);
  const transfer = async (to: { name: string; did?: string }) => handlers['owner.transfer'](body(to), call());
  const broken = `${bob.did.slice(0, -1)}0`;
  for (const [to, code, field] of [
    [{ name: bob.name }, 'invalid_input', 'did'],
    [{ name: bob.name, did: carol.did }, 'invalid_input', 'name'],
    [{ name: bob.name, did: broken }, 'invalid_input', 'did'],
    [{ name: 'nobody@example.com' }, 'impossible', undefined],
    [{ name: carol.name, did: bob.did }, 'impossible', undefined],
  ] as const) {
    await assert.rejects(transfer(to), (error) => {
      const { code: got, details } = error as { code?: string; details?: { field?: string } };
      assert.deepEqual([got, details?.field], [code, field]);
      return true;
    });
  }
  assert.equal(ownerName(), alice.name);
});

test('a transfer hands the node over: the old key and its sessions end, the new key works', async (t) => {
  const { handlers, house, clock, ownerName } = await open(t);
  const { token } = house.sessions.issue(alice.name, '192.168.1.7');
  const dry = await handlers['owner.transfer'](body({ name: carol.name }), call(root, true));
  assert.ok('plan' in dry && dry.plan.allowed);
  assert.equal(ownerName(), alice.name);
  for (const [key, to] of [
    [bob, { name: bob.name, did: bob.did }],
    [createKey({ name: 'dave@example.com' }), undefined],
    [carol, { name: carol.name }],
  ] as const) {
    const answer = await handlers['owner.transfer'](body(to ?? { name: key.name, did: key.did }), call());
    assert.deepEqual(answer, { data: { name: key.name, did: key.did } });
    await clock.advance(1);
    const signature = signLegacy(key, { now: clock.now(), body: { username: 'x' } });
    assert.equal(
      (await house.authenticator.classify(request('command.reboot', { signature }), never)).class,
      'owner',
    );
  }
  assert.equal(house.sessions.holderOf(token, '192.168.1.7'), undefined);
  const late = signLegacy(alice, { now: clock.now(), body: { username: 'x' } });
  await assert.rejects(house.authenticator.classify(request('command.reboot', { signature: late }), never), {
    code: 'not_owner',
  });
});

test('a release forgets the owner, and a dry run of it does not', async (t) => {
  const { handlers, ownerName } = await open(t);
  assert.ok('plan' in (await handlers['owner.release'](nothing, call(root, true))));
  assert.equal(ownerName(), alice.name);
  assert.deepEqual(await handlers['owner.release'](nothing, call()), { data: { released: alice.name } });
  assert.equal(ownerName(), 'none');
  assert.deepEqual(await handlers['owner.release'](nothing, call()), { data: {} });
});

test('checkjws tells what was signed, of whom it proves, and spends nothing', async (t) => {
  const { handlers, house, clock } = await open(t);
  const check = async (jws: string) => (await handlers['system.checkJws'](body({ jws }), call())).data;
  const now = clock.now();
  const jws = signLegacy(carol, { now, domain: 'http://beos.local', challenge: 'c', body: { a: 1 } });
  const proven = {
    name: carol.name,
    did: carol.did,
    time: String(now),
    domain: 'http://beos.local',
    challenge: 'c',
  };
  assert.deepEqual(await check(jws), { ...proven, body: { a: 1 } });
  assert.deepEqual(await check(jws), { ...proven, body: { a: 1 } });
  const own = signLegacy(alice, { now, body: { username: 'x' } });
  await check(own);
  const caller = await house.authenticator.classify(request('command.reboot', { signature: own }), never);
  assert.equal(caller.class, 'owner');
  await assert.rejects(check(signLegacy(carol, { now: now - 21 * 60_000, body: {} })), {
    code: 'signature_expired',
  });
  await assert.rejects(check(signLegacy({ ...bob, name: carol.name }, { now, body: {} })), {
    code: 'unproven',
  });
  await assert.rejects(check(`${jws}x`), { code: 'unproven' });
  const elsewhere = signBound(alice, { now, method: 'GET', path: '/', nodeId: nodeId.replace('0', 'f') });
  await assert.rejects(check(elsewhere), { code: 'signature_mismatch' });
});

test('a name resolves to the document of the gate; what is no name is not asked for', async (t) => {
  const { handlers, known, asked } = await open(t);
  const resolve = async (name: string) =>
    (await handlers['system.resolveName']({ params: { name }, query: {}, body: undefined }, call())).data;
  assert.deepEqual(await resolve(carol.name), known);
  await assert.rejects(resolve('nobody@example.com'), { code: 'not_found' });
  await assert.rejects(resolve(bob.name), { code: 'not_found' });
  for (const name of ['carol', '../../x@y', 'a b@c', 'A@b']) {
    await assert.rejects(resolve(name), { code: 'invalid_input' });
  }
  assert.equal(asked.length, 2);
});
