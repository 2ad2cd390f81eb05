import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { OperationName } from '#api/operations.ts';
import { publicKeyOf } from '#client/sign.ts';
import { didOfJwk } from '#lib/did-key.ts';
import { call, legacy, open, openOwned, owner, refused, stranger } from '../../tests/support/asking.ts';
import { ownAddress, type SentRequest } from '../../tests/support/gatehouse.ts';

const minute = 60_000;

test('what is the same for all looks at no proof and spends none', async (t) => {
  const { house, clock } = openOwned(t);
  const signature = legacy(clock);
  for (const operation of [
    'system.status',
    'system.interfaces',
    'system.live',
    'system.openapi',
    'system.docs',
  ] as const) {
    const caller = await call(house, operation, { signature: 'a.b.c' });
    assert.deepEqual(caller, { class: 'public', proof: 'none', address: '192.168.1.77' });
    await call(house, operation, { signature });
  }
  assert.equal((await call(house, 'command.reboot', { signature })).class, 'owner');
});

test('an X-Signature that is none of ours is as if absent, one that is meant as such is proved or refused', async (t) => {
  const { house } = openOwned(t);
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const cookie = `${part({ alg: 'HS512', typ: 'JWT' })}.${part({ sub: 'alice' })}.c2ln`;
  for (const signature of ['temp_signature', '', 'a.b', 'a..c', 'a.b.c.d', cookie]) {
    assert.equal((await call(house, 'jobs.list', { signature })).class, 'public', signature);
  }
  const keyed = `${part({ alg: 'HS512', kid: owner.did })}.${part({ sub: 'alice' })}.c2ln`;
  for (const signature of ['a.b.c', keyed, `${part({ alg: 'EdDSA' })}.e30.c2ln`, `${'a'.repeat(9000)}.b.c`]) {
    await refused(house, 'unproven', 'jobs.list', { signature });
  }
});

test('addresses: our own are loopback, a pod is a workload only where today’s pods call and no proxy speaks', async (t) => {
  const pod = { namespace: 'os-platform', pod: 'files-0' };
  const workloads = {
    byToken: (token: string) => Promise.resolve(token === 'good' ? { namespace: 'os-system' } : undefined),
    byAddress: (address: string) => Promise.resolve(address === '10.233.64.7' ? pod : undefined),
  };
  const { house } = openOwned(t, { authenticator: { workloads } });
  const classOf = async (operation: OperationName, sent: SentRequest) =>
    (await call(house, operation, sent)).class;
  const from = '::ffff:10.233.64.7';
  assert.equal(await classOf('system.hostsFile', { from: '127.0.0.1' }), 'loopback');
  assert.equal(await classOf('system.hostsFile', { from: `::ffff:${ownAddress}` }), 'loopback');
  assert.equal(await classOf('system.hostsFile', { from: '100.64.0.9' }), 'public');
  assert.equal(await classOf('system.hostsFile', { from, signature: 'temp_signature' }), 'workload');
  assert.equal(await classOf('jobs.list', { from }), 'public');
  assert.equal(await classOf('command.reboot', { from }), 'public');
  const body = { items: [] };
  assert.equal(await classOf('system.setHostsFile', { from, body }), 'workload');
  for (const name of ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-proto']) {
    const headers = { [name]: 'x' };
    assert.equal(await classOf('system.setHostsFile', { from, body, headers }), 'public', name);
    assert.equal(await classOf('system.hostsFile', { from, headers }), 'workload', name);
  }
  assert.equal(await classOf('jobs.list', { headers: { authorization: 'bearer good' } }), 'workload');
  await refused(house, 'unproven', 'jobs.list', { headers: { authorization: 'Bearer bad' } });
});

test('who guesses at tokens soon asks the cluster no more, and keeps no pod from showing its own', async (t) => {
  let asked = 0;
  let isDown = false;
  const byToken = (token: string) => {
    asked++;
    if (isDown) return Promise.reject(fault('cluster_unavailable', 'The token cannot be checked.'));
    return Promise.resolve(token === 'good' ? { namespace: 'os-system' } : undefined);
  };
  const workloads = { byToken, byAddress: () => Promise.resolve(undefined) };
  const { house, clock } = openOwned(t, { authenticator: { workloads } });
  const bearer = (token: string, from: string) => ({ from, headers: { authorization: `Bearer ${token}` } });
  for (let n = 0; n < 100; n++) await call(house, 'jobs.list', bearer('good', '10.233.64.7'));
  isDown = true;
  for (let n = 0; n < 100; n++)
    await refused(house, 'cluster_unavailable', 'jobs.list', bearer('x', '10.0.0.66'));
  isDown = false;
  asked = 0;
  for (let n = 0; n < 20; n++) await refused(house, 'unproven', 'jobs.list', bearer(`bad-${n}`, '10.0.0.66'));
  for (let n = 0; n < 20; n++)
    await refused(house, 'too_many_requests', 'jobs.list', bearer('x', '::ffff:10.0.0.66'));
  assert.equal(asked, 20);
  assert.equal((await call(house, 'jobs.list', bearer('good', '10.233.64.7'))).class, 'workload');
  await clock.advance(minute);
  await refused(house, 'unproven', 'jobs.list', bearer('bad', '10.0.0.66'));
});

test('a session reads for the owner from one address for 15 minutes, and survives a restart', async (t) => {
  const { house, clock, dataDir } = openOwned(t);
  const { token, expiresAt } = house.sessions.issue(owner.name, '192.168.1.77');
  const headers = { authorization: `Bearer ${token}` };
  assert.match(token, /^beos_s_[A-Za-z0-9_-]{43}$/);
  assert.equal(expiresAt, clock.now() + 15 * minute);
  const caller = await call(house, 'jobs.list', { headers });
  assert.deepEqual([caller.class, caller.proof, caller.name], ['owner', 'session', owner.name]);
  const again = open(t, { dataDir, clock }).house;
  assert.equal((await call(again, 'jobs.list', { headers })).proof, 'session');
  await refused(house, 'unproven', 'jobs.list', { headers, from: '192.168.1.78' });
  await refused(house, 'unproven', 'jobs.list', { headers: { authorization: `${headers.authorization}x` } });
  const stored = house.store.read((db) => JSON.stringify(db.all('SELECT * FROM sessions')));
  assert.ok(!stored.includes(token) && !stored.includes(token.slice(7)));
  clock.setWallClock(clock.now() - minute);
  await refused(house, 'unproven', 'jobs.list', { headers });
  clock.setWallClock(clock.now() + 16 * minute);
  await refused(house, 'unproven', 'jobs.list', { headers });
});

test('a proof holds as long as a session lasts, and as the node belongs to that name and key', async (t) => {
  const { house, clock } = openOwned(t);
  const { authenticator } = house;
  const headers = { authorization: `Bearer ${house.sessions.issue(owner.name, '192.168.1.77').token}` };
  const session = await call(house, 'events.stream', { headers });
  const signed = await call(house, 'events.stream', { signature: legacy(clock) });
  const others = ['root', 'workload', 'public'].map((each) => ({ class: each, proof: 'none' }) as Caller);
  const holding = () => [session, signed].map((each) => authenticator.stillHolds(each));
  await clock.advance(15 * minute - 1);
  assert.deepEqual(holding(), [true, true]);
  await clock.advance(1);
  assert.deepEqual(holding(), [false, true]);
  const jwk = publicKeyOf(stranger);
  const newPhone = { did: didOfJwk(jwk), jwk };
  house.owners.transfer(owner.name, newPhone);
  assert.deepEqual(holding(), [false, false], 'the key of a lost phone');
  house.owners.transfer(stranger.name, newPhone);
  assert.deepEqual(holding(), [false, false]);
  house.owners.release();
  assert.deepEqual(holding(), [false, false]);
  for (const other of others) assert.ok(authenticator.stillHolds(other));
});

test('a session ends with the ownership that it was begun in', async (t) => {
  const { house } = openOwned(t);
  const headers = { authorization: `Bearer ${house.sessions.issue(owner.name, '192.168.1.77').token}` };
  const jwk = publicKeyOf(stranger);
  house.owners.transfer(stranger.name, { did: didOfJwk(jwk), jwk });
  await refused(house, 'unproven', 'jobs.list', { headers });
});
