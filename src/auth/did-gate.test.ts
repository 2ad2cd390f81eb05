import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isKidOf, signerOfDid, signerOfDocument } from '#auth/did-document.ts';
import { DidGate, type DidGateOptions, gateUrl } from '#auth/did-gate.ts';
import { createKey, publicKeyOf, type SigningKey, signLegacy } from '#client/sign.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Store } from '#store/store.ts';
import { gatehouse, request } from '../../tests/support/gatehouse.ts';

const never = new AbortController().signal;
const hour = 60 * 60_000;
const alice = createKey({ name: 'alice@example.com' });

/** What the gate of today sends for a key. */
function documentOf(key: SigningKey, keyId = '#key-1') {
  const method = { id: keyId, type: 'JsonWebKey2020', controller: key.did, publicKeyJwk: publicKeyOf(key) };
  return { didDocument: { id: key.did, verificationMethod: [method] }, didResolutionMetadata: {} };
}

type Play = (response: ServerResponse, path: string) => void;
const json =
  (value: unknown, status = 200) =>
  (response: ServerResponse) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  };

/** A DID gate on loopback whose part can be changed; counts what it is asked. */
async function playGate(t: TestContext, first: Play) {
  const asked: string[] = [];
  const gate = { url: '', asked, play: first };
  const server = createServer((incoming, response) => {
    asked.push(incoming.url ?? '');
    gate.play(response, incoming.url ?? '');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  gate.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return gate;
}

async function open(t: TestContext, play: Play, options: Partial<DidGateOptions> = {}) {
  const gate = await playGate(t, play);
  const clock = new FakeClock();
  const dataDir = mkdtempSync(join(tmpdir(), 'beosd-gate-'));
  const store = new Store(dataDir, () => clock.now());
  t.after(() => store.close());
  const client = new DidGate({ store, clock, url: gateUrl(gate.url), ...options });
  return { gate, clock, store, client, ask: (name = alice.name) => client.document(name, never) };
}

test('a name is asked for once a day, by its dotted and encoded form', async (t) => {
  const { gate, clock, ask } = await open(t, json(documentOf(alice)));
  assert.deepEqual(await ask(), documentOf(alice));
  await clock.advance(23 * hour);
  await ask();
  assert.deepEqual(gate.asked, ['/1.0/name/alice.example.com']);
  await clock.advance(2 * hour);
  await ask();
  assert.equal(gate.asked.length, 2);
  await ask('a/../b@example.com');
  assert.equal(gate.asked[2], '/1.0/name/a%2F..%2Fb.example.com');
});

test('callers who ask at once share one look-up, and one who leaves does not end it for the others', async (t) => {
  const held: ServerResponse[] = [];
  const arrived = Promise.withResolvers<void>();
  const { gate, client } = await open(t, (response) => {
    held.push(response);
    arrived.resolve();
  });
  const leaving = new AbortController();
  const [gone, stays] = [client.document(alice.name, leaving.signal), client.document(alice.name, never)];
  await arrived.promise;
  leaving.abort(new Error('gone'));
  await assert.rejects(gone, /gone/);
  for (const response of held) json(documentOf(alice))(response);
  assert.deepEqual(await stays, documentOf(alice));
  assert.equal(gate.asked.length, 1);
});

test('while the gate is down a known name is good for 30 days, an unknown one is not', async (t) => {
  const { gate, clock, ask } = await open(t, json(documentOf(alice)));
  await ask();
  gate.play = json({}, 500);
  await clock.advance(29 * 24 * hour);
  assert.deepEqual(await ask(), documentOf(alice));
  await clock.advance(2 * 24 * hour);
  await assert.rejects(ask(), { code: 'did_gate_unavailable' });
  await assert.rejects(ask('bob@example.com'), { code: 'did_gate_unavailable' });
});

test('that a name is not known is remembered for a minute', async (t) => {
  const { gate, clock, ask } = await open(t, json({}, 404));
  await assert.rejects(ask(), { code: 'not_found' });
  await assert.rejects(ask(), { code: 'not_found' });
  assert.equal(gate.asked.length, 1);
  gate.play = json(documentOf(alice));
  await clock.advance(61_000);
  assert.deepEqual(await ask(), documentOf(alice));
});

test('an answer that nobody can sign with is asked for again after a minute', async (t) => {
  const { gate, clock, ask } = await open(t, json({ didDocument: null }));
  assert.deepEqual(await ask(), { didDocument: null });
  gate.play = json(documentOf(alice));
  await clock.advance(59_000);
  assert.deepEqual(await ask(), { didDocument: null });
  await clock.advance(2000);
  assert.deepEqual(await ask(), documentOf(alice));
});

test('a revoked name does not live on in the cache', async (t) => {
  const { gate, clock, ask } = await open(t, json(documentOf(alice)));
  await ask();
  gate.play = json({}, 404);
  await clock.advance(25 * hour);
  await assert.rejects(ask(), { code: 'not_found' });
});

test('redirects, endless bodies, no JSON and silence are failures with a deadline', async (t) => {
  const plays: readonly Play[] = [
    (response) => response.writeHead(302, { location: '/elsewhere' }).end(),
    (response) => response.writeHead(200).end(JSON.stringify({ a: 'x'.repeat(70 * 1024) })),
    (response) => response.writeHead(200).end('not json'),
    (response) => response.writeHead(200).end('null'),
    (response) => response.writeHead(200, { 'content-length': 10 }).end('{}'),
    (response) => response.destroy(),
    () => undefined,
    (response) => response.writeHead(200).write('{'),
  ];
  for (const play of plays) {
    const { gate, ask } = await open(t, play, { deadline: 200 });
    await assert.rejects(ask(), { code: 'did_gate_unavailable' });
    assert.ok(gate.asked.length <= 1, 'nothing is followed');
  }
});

test('look-ups are limited, cached names are not', async (t) => {
  const { clock, ask } = await open(t, json(documentOf(alice)), { perMinute: 3 });
  for (const name of ['a@x.y', 'b@x.y', 'c@x.y']) await ask(name);
  await assert.rejects(ask('d@x.y'), { code: 'too_many_requests', details: { retryAfter: 20 } });
  await ask('a@x.y');
  await clock.advance(20_000);
  await ask('d@x.y');
});

test('a stranger has a share of the look-ups, and leaves the rest to others', async (t) => {
  const { gate, clock, client } = await open(t, json({}, 404));
  let serial = 0;
  const codeOf = (stranger?: string, name = `n${serial++}@x.y`) =>
    client.document(name, never, stranger).then(
      () => 'known',
      (error: { code: string }) => error.code,
    );
  const codes: string[] = [];
  for (let i = 0; i < 20; i++) codes.push(await codeOf('192.168.1.66'));
  assert.deepEqual(
    codes.splice(0, 5),
    Array.from({ length: 5 }, () => 'not_found'),
  );
  assert.deepEqual([...new Set(codes)], ['too_many_requests']);
  for (let i = 0; i < 20; i++) codes.push(await codeOf(`2001:db8::${i + 1}`));
  assert.equal(gate.asked.length, 10, 'all addresses of a /64 are one stranger');
  gate.play = json(documentOf(alice));
  assert.equal(await codeOf('192.168.1.77', alice.name), 'known');
  assert.equal(await codeOf('192.168.1.66', alice.name), 'known', 'what is cached costs nothing');
  assert.equal(await codeOf(undefined), 'known', 'who has proved who he is is held up by no stranger');
  await clock.advance(12_000);
  assert.equal(await codeOf('192.168.1.66'), 'known');
});

test('the cache is bounded, and names that nobody has go first', async (t) => {
  const { gate, store, clock, ask } = await open(t, json(documentOf(alice)), { perMinute: 1e6 });
  await ask();
  gate.play = json({}, 404);
  for (let i = 0; i < 1010; i++) {
    await assert.rejects(ask(`n${i}@x.y`), { code: 'not_found' });
    if (i % 100 === 0) await clock.advance(1);
  }
  assert.equal(
    store.read((db) => db.get('SELECT count(*) AS n FROM did_cache')?.['n']),
    1000,
  );
  const before = gate.asked.length;
  assert.deepEqual(await ask(), documentOf(alice));
  assert.equal(gate.asked.length, before);
});

test('without a gate a look-up says so', async (t) => {
  const { ask } = await open(t, json({}), { url: undefined });
  await assert.rejects(ask(), { code: 'did_gate_unavailable' });
});

test('a gate is reached by https, or by http on this machine', () => {
  for (const url of [
    'https://gate.example.com',
    'http://127.0.0.1:8080',
    'http://[::1]/x',
    'http://localhost',
  ]) {
    assert.ok(gateUrl(url));
  }
  const bad = [
    '',
    'gate',
    'http://gate.example.com',
    'http://10.0.0.1',
    'ftp://127.0.0.1',
    'file:///etc/passwd',
  ];
  for (const url of [...bad, 'https://user@gate.example.com', 'https://gate.example.com/?a=b']) {
    assert.throws(() => gateUrl(url), { code: 'invalid_input' }, url);
  }
});

test('hostile documents have no key', () => {
  const good = documentOf(alice);
  const { didDocument } = good;
  const [method] = didDocument.verificationMethod;
  const stranger = createKey();
  assert.deepEqual(signerOfDocument(good), { did: alice.did, keyId: '#key-1', jwk: publicKeyOf(alice) });
  for (const document of [
    undefined,
    null,
    7,
    [],
    {},
    { didDocument: null },
    { didDocument: { ...didDocument, id: 7 } },
    { didDocument: { ...didDocument, id: 'alice' } },
    { didDocument: { ...didDocument, id: `${alice.did}#x` } },
    { didDocument: { ...didDocument, id: stranger.did } },
    { didDocument: { ...didDocument, id: 'did:key:z6Mk' } },
    { didDocument: { id: alice.did } },
    { didDocument: { id: alice.did, verificationMethod: null } },
    { didDocument: { id: alice.did, verificationMethod: {} } },
    { didDocument: { id: alice.did, verificationMethod: [] } },
    { didDocument: { id: alice.did, verificationMethod: [null] } },
    { didDocument: { id: alice.did, verificationMethod: [{ ...method, publicKeyJwk: null }] } },
    {
      didDocument: {
        id: alice.did,
        verificationMethod: [{ ...method, publicKeyJwk: publicKeyOf(stranger) }],
      },
    },
  ]) {
    assert.equal(signerOfDocument(document), undefined, JSON.stringify(document));
  }
  const other = { ...didDocument, id: 'did:web:example.com' };
  assert.equal(signerOfDocument({ didDocument: other })?.did, 'did:web:example.com');
});

test('a kid names the DID, or the DID with the id of its key', () => {
  const own = signerOfDid(alice.did);
  assert.ok(own);
  assert.ok(isKidOf(alice.did, own));
  assert.ok(isKidOf(`${alice.did}#${alice.did.slice(8)}`, own));
  assert.ok(!isKidOf(`${alice.did}#key-1`, own));
  for (const keyId of ['#key-1', `${alice.did}#key-1`]) {
    assert.ok(isKidOf(`${alice.did}#key-1`, { ...own, keyId }));
    assert.ok(!isKidOf(`${alice.did}#key-2`, { ...own, keyId }));
  }
  assert.ok(!isKidOf('did:web:x#key-1', { ...own, keyId: 'did:web:x#key-1' }));
});

test('a signer is proved by the gate, pinned by a claim, and needs no gate from then on', async (t) => {
  const gate = await playGate(t, json(documentOf(alice)));
  const clock = new FakeClock();
  const dataDir = mkdtempSync(join(tmpdir(), 'beosd-gate-'));
  const house = gatehouse({ dataDir, clock, gate: gate.url, gatePerMinute: 2 });
  t.after(() => house.close());
  const body = { username: 'alice' };
  const install = async (key: SigningKey) => {
    await clock.advance(1);
    const signature = signLegacy(key, { now: clock.now(), body });
    return house.authenticator.classify(request('command.install', { signature, body }), never);
  };
  const stranger = createKey({ name: alice.name });
  await assert.rejects(install(stranger), { code: 'unproven' });
  const caller = await install(alice);
  assert.equal(caller.class, 'signer');
  house.owners.claim(caller);
  house.owners.confirm();
  gate.play = json({}, 500);
  await clock.advance(40 * 24 * hour);
  assert.equal((await install(alice)).class, 'owner');
  await assert.rejects(install(createKey({ name: 'mallory@example.com' })), { code: 'not_owner' });
  assert.equal(gate.asked.length, 1, 'a stranger causes no look-up once the node has an owner');
});

test('strangers cannot make the node ask the gate without end', async (t) => {
  const gate = await playGate(t, json({}, 404));
  const clock = new FakeClock();
  const dataDir = mkdtempSync(join(tmpdir(), 'beosd-gate-'));
  const house = gatehouse({ dataDir, clock, gate: gate.url, gatePerMinute: 2 });
  t.after(() => house.close());
  const codes: string[] = [];
  for (const name of ['a@x.y', 'b@x.y', 'c@x.y', 'd@x.y']) {
    const signature = signLegacy(createKey({ name }), { now: clock.now(), body: { username: 'a' } });
    const reboot = request('command.reboot', { signature });
    await house.authenticator
      .classify(reboot, never)
      .catch((error: { code: string }) => codes.push(error.code));
  }
  assert.deepEqual(codes, ['unproven', 'unproven', 'too_many_requests', 'too_many_requests']);
  assert.equal(gate.asked.length, 2);
});
