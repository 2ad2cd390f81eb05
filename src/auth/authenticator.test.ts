import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ErrorCode } from '#api/errors.ts';
import type { OperationName } from '#api/operations.ts';
import { createKey, publicKeyOf, type SigningKey, signBound, signClaims, signLegacy } from '#client/sign.ts';
import type { FakeClock } from '#host/fake/clock.ts';
import { known, unknown } from '#lib/observed.ts';
import {
  bound,
  call,
  legacy,
  open,
  openOwned,
  own,
  owner,
  refused,
  stranger,
  username,
} from '../../tests/support/asking.ts';
import { type gatehouse, nodeId, ownAddress } from '../../tests/support/gatehouse.ts';

const minute = 60_000;
type House = ReturnType<typeof gatehouse>;

test('the unix socket is root, and looks at no proof', async (t) => {
  const { house } = open(t);
  const caller = await call(house, 'owner.release', { transport: 'socket', signature: 'a.b.c' });
  assert.deepEqual(caller, { class: 'root', proof: 'socket' });
});

for (const kind of ['Ed25519', 'secp256k1'] as const) {
  test(`a ${kind} signature of the owner is the owner, in both forms, once`, async (t) => {
    const { house, clock } = open(t);
    const key = createKey({ kind });
    own(house, key);
    for (const [signature, proof] of [
      [legacy(clock, key), 'signature-legacy'],
      [bound(clock, '/command/reboot', '', key), 'signature-bound'],
    ] as const) {
      const caller = await call(house, 'command.reboot', { signature });
      assert.equal(caller.class, 'owner');
      assert.equal(caller.proof, proof);
      assert.equal(caller.name, key.name);
      assert.deepEqual(caller.key?.jwk, publicKeyOf(key));
      assert.equal(caller.address, '192.168.1.77');
      await refused(house, 'signature_reused', 'command.reboot', { signature });
      await refused(house, 'signature_reused', 'command.reboot', { signature, from: '192.168.1.78' });
    }
  });
}

/** "One signature sent twice, to another route, with another body, …: all refused" (issue 2). */
async function everyAbuseIsRefused(house: House, clock: FakeClock, key: SigningKey) {
  const other = createKey({ kind: key.privateJwk.kty === 'EC' ? 'Ed25519' : 'secp256k1' });
  const path = '/command/change-host';
  const body = { ip: '192.168.1.10' };
  const rawBody = JSON.stringify(body);
  const sent = { body, rawBody };
  const deny = (
    code: ErrorCode,
    signature: string,
    field?: string,
    operation: OperationName = 'command.changeHost',
  ) => refused(house, code, operation, { ...sent, signature }, field);

  const used = bound(clock, path, rawBody, key);
  assert.equal((await call(house, 'command.changeHost', { ...sent, signature: used })).class, 'owner');
  await deny('signature_reused', used);
  const usedLegacy = legacy(clock, key);
  await call(house, 'command.reboot', { signature: usedLegacy });
  await refused(house, 'signature_reused', 'command.reboot', { signature: usedLegacy });
  await refused(house, 'signature_reused', 'command.uninstall', { signature: usedLegacy });

  await deny('signature_mismatch', bound(clock, '/command/reboot', rawBody, key), 'path');
  await deny('signature_mismatch', bound(clock, `${path}?dryRun=true`, rawBody, key), 'path');
  await deny('signature_mismatch', bound(clock, path, rawBody, key, 'PUT'), 'method');
  await deny('signature_mismatch', bound(clock, path, `${rawBody} `, key), 'bodySha256');
  await deny('signature_mismatch', bound(clock, path, '', key), 'bodySha256');
  await deny('signature_mismatch', legacy(clock, key, { ip: '192.168.1.11' }), 'ip');
  await deny('signature_mismatch', legacy(clock, key, {}), 'ip');
  await deny('signature_mismatch', legacy(clock, key, { ip: '192.168.1.10', IP: 'x' }), 'IP');
  await refused(
    house,
    'signature_mismatch',
    'command.reboot',
    { signature: legacy(clock, key, {}) },
    'username',
  );

  const now = clock.now();
  for (const off of [-21, 21, -60 * 24 * 365, 60 * 24 * 365]) {
    const at = now + off * minute;
    await deny('signature_expired', signLegacy(key, { now: at, body }));
    const request = { now: at, method: 'POST', path, rawBody, nodeId };
    await deny('signature_expired', signBound(key, { ...request, lifetime: 5 * minute - off * minute }));
  }
  const claims = { method: 'POST', path, rawBody, nodeId, now };
  await deny('signature_expired', signBound(key, { ...claims, lifetime: 11 * minute }));
  await deny('signature_expired', signBound(key, { ...claims, lifetime: -1 }));
  await deny('signature_mismatch', signBound(key, { ...claims, nodeId: nodeId.replace('0', '1') }), 'nodeId');

  await deny('not_owner', bound(clock, path, rawBody, stranger));
  await deny('not_owner', bound(clock, path, rawBody, { ...key, name: 'mallory@example.com' }));
  await deny('unproven', bound(clock, path, rawBody, { ...other, name: key.name }), 'kid');
  await deny('unproven', bound(clock, path, rawBody, { ...other, name: key.name, did: key.did }));

  const payload = {
    did: key.did,
    name: key.name,
    time: String(now),
    domain: '',
    challenge: 'challenge',
    body,
  };
  const otherAlg = key.privateJwk.kty === 'EC' ? 'EdDSA' : 'ES256K';
  for (const alg of [otherAlg, 'none', 'HS256', 'ES256', 'eddsa', '', null, ['EdDSA']]) {
    await deny('unproven', signClaims(key, payload, { alg }));
  }
  await deny('unproven', signClaims(key, payload, { crit: ['b64'], b64: false }), 'crit');
  for (const kid of [
    other.did,
    `${key.did}#other`,
    `${key.did}#`,
    `${key.did}x`,
    '',
    7,
    null,
    `#${key.did}`,
  ]) {
    await deny('unproven', signClaims(key, payload, { kid }));
  }
  await deny('unproven', signClaims(key, { ...payload, did: other.did }), 'did');
  for (const time of [Number(now), `${now}.0`, `0${now}`, `-${now}`, '', null, '1e12']) {
    await deny('unproven', signClaims(key, { ...payload, time }), 'time');
  }
  for (const name of [key.name.toUpperCase(), `${key.name} `, `${key.name}\n`, 'alice', '@', '', 7]) {
    await deny('unproven', signClaims(key, { ...payload, name }), 'name');
  }
  await deny('unproven', signClaims(key, { ...payload, challenge: 'x'.repeat(8192) }));
  const half = { ...payload, nodeId };
  await deny('signature_mismatch', signClaims(key, half));
  await deny('signature_mismatch', signClaims(key, { ...payload, expiresAt: null }));
}

for (const kind of ['Ed25519', 'secp256k1'] as const) {
  test(`every abuse of a ${kind} signature is refused, also after a restart`, async (t) => {
    const key = createKey({ kind });
    const { house, clock, dataDir } = open(t);
    own(house, key);
    await everyAbuseIsRefused(house, clock, key);
    const carried = bound(clock, '/command/reboot', '', key);
    await call(house, 'command.reboot', { signature: carried });
    const again = open(t, { dataDir, clock }).house;
    await refused(again, 'signature_reused', 'command.reboot', { signature: carried });
    await clock.advance(1);
    await everyAbuseIsRefused(again, clock, key);
  });
}

test('a refusal for skew tells the time of the node', async (t) => {
  const { house, clock } = openOwned(t);
  const signature = signLegacy(owner, { now: clock.now() - 21 * minute, body: username });
  await assert.rejects(call(house, 'command.reboot', { signature }), {
    code: 'signature_expired',
    details: { serverTime: new Date(clock.now()).toISOString() },
  });
});

test('a legacy signature covers keys in any case on specified routes, and nested values in any order', async (t) => {
  const { house, clock } = openOwned(t);
  const signature = legacy(clock, owner, { IP: '192.168.1.10', extra: 1 });
  assert.equal(
    (await call(house, 'command.changeHost', { signature, body: { ip: '192.168.1.10' } })).class,
    'owner',
  );
  const items = [{ ip: '10.0.0.1', host: 'a' }];
  const swapped = legacy(clock, owner, { items: [{ host: 'a', ip: '10.0.0.1' }] });
  assert.equal(
    (await call(house, 'system.setHostsFile', { signature: swapped, body: { items } })).class,
    'owner',
  );
  const deep = JSON.parse(`${'['.repeat(2000)}${']'.repeat(2000)}`) as unknown;
  const nested = legacy(clock, owner, { items: deep });
  await refused(house, 'signature_mismatch', 'system.setHostsFile', {
    signature: nested,
    body: { items: deep },
  });
});

test('keys that mean something to JavaScript mean nothing in a signature', async (t) => {
  const { house, clock } = openOwned(t);
  const body = JSON.parse('{"username":"alice","__proto__":{"admin":true},"constructor":1}') as Record<
    string,
    unknown
  >;
  assert.equal(
    (await call(house, 'command.reboot', { signature: legacy(clock, owner, body), body })).class,
    'owner',
  );
  const other = JSON.parse('{"username":"alice","__proto__":{"admin":false}}') as Record<string, unknown>;
  await refused(house, 'signature_mismatch', 'command.reboot', {
    signature: legacy(clock, owner, body),
    body: other,
  });
  assert.equal(({} as Record<string, unknown>)['admin'], undefined);
});

test('a domain that is an address has to be ours', async (t) => {
  const { house, clock } = openOwned(t);
  const sign = (domain: string) => signLegacy(owner, { now: clock.now(), domain, body: username });
  for (const domain of [
    'http://192.168.1.11:18088',
    'http://[fe80::1]:18088',
    'https://8.8.8.8',
    '192.168.1.11',
    '192.168.1.11:18088',
    ' 192.168.1.11 ',
    '192.168.1.11/path',
    '//192.168.1.11:18088/',
    'alice@192.168.1.11:18088',
    'fe80::1',
    '[fe80::1]:18088',
    'http:192.168.1.11',
  ]) {
    await refused(house, 'signature_mismatch', 'command.reboot', { signature: sign(domain) }, 'domain');
  }
  for (const domain of [
    `http://${ownAddress}:18088`,
    ownAddress,
    `${ownAddress}:18088`,
    'http://127.0.0.1:1',
    '[::1]:18088',
    '::1',
    'http://beos.local',
    'beos.local:18088',
    'olares',
    '',
  ]) {
    assert.equal((await call(house, 'command.reboot', { signature: sign(domain) })).class, 'owner', domain);
    await clock.advance(1);
  }
});

test('legacy signatures can be switched off', async (t) => {
  const { house, clock } = openOwned(t, { authenticator: { legacySignatures: false } });
  await refused(house, 'bound_form_required', 'command.reboot', { signature: legacy(clock) });
  assert.equal(
    (await call(house, 'command.reboot', { signature: bound(clock, '/command/reboot') })).class,
    'owner',
  );
});

test('while nobody owns the node any valid signer is a signer; a made-up fingerprint is not', async (t) => {
  const { house, clock } = open(t);
  const caller = await call(house, 'command.install', { signature: legacy(clock, stranger), body: username });
  assert.equal(caller.class, 'signer');
  const posing = { ...stranger, name: owner.name };
  await refused(
    house,
    'unproven',
    'command.install',
    { signature: legacy(clock, posing), body: username },
    'name',
  );
});

test('a stranger makes so many signatures a minute; others, and an owner, are not held up by it', async (t) => {
  const { house, clock } = open(t);
  const reboot = async (key: SigningKey, from: string) => {
    await clock.advance(1);
    return await call(house, 'command.reboot', { signature: legacy(clock, key), from });
  };
  const forged = { signature: `${legacy(clock, stranger).slice(0, -8)}AAAAAAAA`, from: '192.168.1.66' };
  for (let i = 0; i < 100; i++) await refused(house, 'unproven', 'command.reboot', forged);
  for (let i = 0; i < 60; i++) await reboot(stranger, '192.168.1.66');
  const body = { signature: legacy(clock, createKey()), from: '::ffff:192.168.1.66' };
  await refused(house, 'too_many_requests', 'command.reboot', body);
  assert.equal((await reboot(stranger, '192.168.1.77')).class, 'signer');
  own(house, owner);
  for (let i = 0; i < 70; i++) assert.equal((await reboot(owner, '192.168.1.66')).class, 'owner');
});

test('a claim needs an address on the link, and the code where one is set', async (t) => {
  const { house, clock } = open(t, { authenticator: { claimCode: '7319-2204' } });
  const install = (from: string, headers: Record<string, string> = {}) => {
    const signature = legacy(clock, stranger);
    return { signature, body: username, from, headers };
  };
  await refused(house, 'not_on_link', 'command.install', install('10.8.0.2'));
  await refused(house, 'claim_code_required', 'command.install', install('192.168.1.5'));
  await refused(
    house,
    'claim_code_required',
    'command.install',
    install('192.168.1.5', { 'x-claim-code': '1' }),
  );
  const signature = legacy(clock, stranger);
  const right = { signature, body: username, headers: { 'x-claim-code': '7319-2204' } };
  assert.equal((await call(house, 'command.install', right)).class, 'signer');
  for (let i = 0; i < 9; i++) {
    await call(house, 'command.install', install('192.168.1.5', { 'x-claim-code': `${i}` })).catch(
      () => undefined,
    );
  }
  await refused(
    house,
    'too_many_requests',
    'command.install',
    install('192.168.1.5', { 'x-claim-code': '1' }),
  );
});

test('who guesses at the claim code leaves the tries of others alone', async (t) => {
  const { house, clock } = open(t, { authenticator: { claimCode: '7319-2204' } });
  const codes: string[] = [];
  const guess = async (from: string, code: string) => {
    await clock.advance(1);
    const sent = { signature: legacy(clock, stranger), body: username, headers: { 'x-claim-code': code } };
    return await call(house, 'command.install', { ...sent, from });
  };
  for (let i = 0; i < 30; i++) {
    await guess('192.168.1.66', `${i}`).catch((error: { code: string }) => codes.push(error.code));
  }
  assert.equal(codes.filter((code) => code === 'claim_code_required').length, 4);
  assert.equal((await guess('192.168.1.77', '7319-2204')).class, 'signer');
});

test('a provisional claim yields to another install only while that is open; a confirmed one never', async (t) => {
  let isOpen = true;
  const { house, clock } = open(t, { owner: { claimIsOpen: () => isOpen } });
  const install = (key: SigningKey) => ({ signature: legacy(clock, key), body: username });
  const first = await call(house, 'command.install', install(stranger));
  house.owners.claim(first);
  await refused(house, 'not_owner', 'command.reboot', { signature: legacy(clock) });
  isOpen = false;
  await refused(house, 'not_owner', 'command.install', install(owner));
  isOpen = true;
  const second = await call(house, 'command.install', install(owner));
  assert.equal(second.class, 'signer');
  assert.equal(house.owners.claim(second).name, owner.name);
  await clock.advance(1);
  await refused(house, 'not_owner', 'command.reboot', { signature: legacy(clock, stranger) });
  house.owners.confirm();
  await refused(house, 'not_owner', 'command.install', install(stranger));
});

test('when the owner cannot be read nobody is signer', async (t) => {
  const dataDir = mkdtempSync(join(tmpdir(), 'beosd-auth-'));
  writeFileSync(join(dataDir, 'owner.json'), '{"owner":{"name":"alice@exam');
  const { house, clock } = open(t, { dataDir });
  await refused(house, 'store_unavailable', 'command.install', { signature: legacy(clock), body: username });
  const silent = open(t, { owner: { releaseName: () => unknown('release', 0, 'EIO') } });
  await refused(silent.house, 'store_unavailable', 'command.reboot', { signature: legacy(silent.clock) });
});

test('the first valid signature of the name in the release file pins its key', async (t) => {
  const named = { releaseName: () => known(owner.name, 'release', 0) };
  const { house, clock } = open(t, { owner: named });
  await refused(house, 'not_owner', 'command.reboot', { signature: legacy(clock, stranger) });
  assert.equal((await call(house, 'command.reboot', { signature: legacy(clock) })).class, 'owner');
  const now = house.owners.current();
  assert.equal(now.kind, 'pinned');
  assert.equal(now.kind === 'pinned' && now.owner.via, 'release-file');
});
