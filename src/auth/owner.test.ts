import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import { type OwnerChange, OwnerFile, type OwnerOptions } from '#auth/owner.ts';
import { createKey, publicKeyOf, type SigningKey } from '#client/sign.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import { known } from '#lib/observed.ts';

const alice = createKey({ name: 'alice@example.com' });
const bob = createKey({ name: 'bob@example.com' });
const keyOf = (key: SigningKey) => ({ did: key.did, keyId: '#key-0', jwk: publicKeyOf(key) });
const signer = (key: SigningKey): Caller => ({
  class: 'signer',
  proof: 'signature-legacy',
  name: key.name,
  key: keyOf(key),
});

function open(options: Partial<OwnerOptions> = {}) {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'beosd-owner-'));
  const changes: OwnerChange[] = [];
  const owners = new OwnerFile({
    dataDir,
    files: new Files(),
    clock: new FakeClock(),
    releaseName: () => known(undefined, 'release', 0),
    claimIsOpen: () => false,
    changed: (change) => changes.push(change),
    ...options,
  });
  return { owners, dataDir, changes, path: join(dataDir, 'owner.json') };
}

const nameNow = (owners: OwnerFile) => {
  const now = owners.current();
  return now.kind === 'pinned' ? now.owner.name : now.kind === 'named' ? `named ${now.name}` : now.kind;
};

test('a claim is provisional, private, and kept across a restart until it is confirmed', () => {
  const { owners, dataDir, path, changes } = open();
  assert.equal(nameNow(owners), 'none');
  const owner = owners.claim(signer(alice));
  assert.deepEqual(owner, {
    ...keyOf(alice),
    name: alice.name,
    since: '2026-11-23T12:00:00.000Z',
    provisional: true,
    via: 'claim',
  });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok(!readFileSync(path, 'utf8').includes(alice.privateJwk.d));
  const again = open({ dataDir }).owners;
  assert.deepEqual(again.current(), { kind: 'pinned', owner });
  again.confirm();
  again.confirm();
  assert.deepEqual(open({ dataDir }).owners.current(), {
    kind: 'pinned',
    owner: { ...owner, provisional: false },
  });
  assert.deepEqual(changes, [{ what: 'claimed', name: alice.name, before: undefined }]);
});

test('nobody claims a node that has an owner, provisional or not', () => {
  const { owners } = open();
  const owner = owners.claim(signer(alice));
  assert.throws(() => owners.claim(signer(bob)), { code: 'not_owner' });
  assert.deepEqual(owners.claim(signer(alice)), owner);
  assert.throws(() => owners.claim({ class: 'root', proof: 'socket' }), { code: 'unproven' });
});

test('a provisional claim lapses or gives way while that is open; a confirmed one does neither', () => {
  const { owners, changes } = open({ claimIsOpen: () => true });
  owners.claim(signer(alice));
  owners.lapse();
  owners.lapse();
  assert.equal(nameNow(owners), 'none');
  owners.claim(signer(alice));
  owners.claim(signer(bob));
  owners.confirm();
  owners.lapse();
  assert.throws(() => owners.claim(signer(alice)), { code: 'not_owner' });
  assert.equal(nameNow(owners), bob.name);
  assert.deepEqual(
    changes.map(({ what, name, before }) => `${what} ${name} ${before ?? '-'}`),
    [
      `claimed ${alice.name} -`,
      `lapsed ${alice.name} ${alice.name}`,
      `claimed ${alice.name} -`,
      `claimed ${bob.name} ${alice.name}`,
      `confirmed ${bob.name} ${bob.name}`,
    ],
  );
});

test('a claim for an install that does not begin is undone, to whoever had the node before', async () => {
  const { owners, changes } = open({ claimIsOpen: () => true });
  const fails = () => Promise.reject(new Error('no disk'));
  await assert.rejects(owners.claimFor(signer(alice), fails), /no disk/);
  assert.equal(nameNow(owners), 'none');
  assert.equal(await owners.claimFor(signer(alice), () => Promise.resolve(1)), 1);
  await assert.rejects(owners.claimFor(signer(bob), fails), /no disk/);
  assert.equal(nameNow(owners), alice.name);
  await assert.rejects(owners.claimFor(signer(alice), fails), /no disk/);
  assert.equal(nameNow(owners), alice.name, 'who had it already keeps it');
  assert.deepEqual(
    changes.map(({ what, name }) => `${what} ${name}`),
    [
      `claimed ${alice.name}`,
      `lapsed ${alice.name}`,
      `claimed ${alice.name}`,
      `claimed ${bob.name}`,
      `lapsed ${bob.name}`,
    ],
  );
});

test('while an install is being started nobody else claims, and a transfer meanwhile is not undone', async () => {
  const { owners } = open({ claimIsOpen: () => true });
  const begun = Promise.withResolvers<void>();
  const first = owners.claimFor(signer(alice), () => begun.promise);
  await assert.rejects(
    owners.claimFor(signer(bob), () => Promise.resolve()),
    { code: 'conflict' },
  );
  assert.equal(owners.current().kind, 'pinned');
  owners.transfer(bob.name, keyOf(bob));
  begun.reject(new Error('too late'));
  await assert.rejects(first, /too late/);
  assert.equal(nameNow(owners), bob.name);
});

test('what cannot be read is unknown, claims nothing, and is released by root', () => {
  for (const content of ['', '{', 'null', '[]', '{}', '{"owner":{}}', '{"owner":{"name":"a@b","did":"x"}}']) {
    const dataDir = mkdtempSync(join(tmpdir(), 'beosd-owner-'));
    writeFileSync(join(dataDir, 'owner.json'), content);
    const { owners } = open({ dataDir, claimIsOpen: () => true });
    assert.equal(owners.current().kind, 'unknown', content);
    assert.throws(() => owners.claim(signer(alice)), { code: 'store_unavailable' });
    owners.lapse();
    assert.equal(owners.current().kind, 'unknown', content);
    assert.equal(owners.release(), undefined);
    assert.equal(owners.current().kind, 'none', content);
  }
});

test('a file that was mended by hand is read again', () => {
  const { owners, path, dataDir } = open();
  owners.claim(signer(alice));
  const good = readFileSync(path, 'utf8');
  writeFileSync(path, 'half');
  const other = open({ dataDir }).owners;
  assert.equal(other.current().kind, 'unknown');
  writeFileSync(path, good);
  assert.equal(nameNow(other), alice.name);
});

test('the release file names the owner of a node that the ancestor installed; his first signature pins the key', () => {
  const { owners, dataDir, path } = open({ releaseName: () => known(alice.name, 'release', 0) });
  assert.equal(nameNow(owners), `named ${alice.name}`);
  assert.throws(() => owners.claim(signer(bob)), { code: 'not_owner' });
  owners.pinNamed(bob.name, keyOf(bob));
  assert.equal(nameNow(owners), `named ${alice.name}`);
  owners.pinNamed(alice.name, keyOf(alice));
  rmSync(path, { force: false });
  assert.equal(nameNow(owners), alice.name, 'what is known does not depend on the file any more');
  assert.equal(nameNow(open({ dataDir }).owners), 'none');
});

test('after a release the name in the release file counts no more, another one does', () => {
  let release = alice.name;
  const { owners, dataDir } = open({ releaseName: () => known(release, 'release', 0) });
  owners.pinNamed(alice.name, keyOf(alice));
  assert.equal(owners.release(), alice.name);
  assert.equal(nameNow(owners), 'none');
  const again = open({ dataDir, releaseName: () => known(release, 'release', 0) }).owners;
  assert.equal(nameNow(again), 'none');
  again.claim(signer(bob));
  again.lapse();
  assert.equal(nameNow(again), 'none', 'a claim that lapses does not bring the released owner back');
  release = bob.name;
  assert.equal(nameNow(again), `named ${bob.name}`);
});

test('a transfer pins the new owner for good', () => {
  const { owners, changes } = open();
  owners.claim(signer(alice));
  const owner = owners.transfer(bob.name, keyOf(bob));
  assert.deepEqual([owner.name, owner.provisional, owner.via], [bob.name, false, 'transfer']);
  assert.deepEqual(changes.at(-1), { what: 'transferred', name: bob.name, before: alice.name });
});

test('a change that cannot be written does not count', () => {
  const { owners, dataDir } = open();
  rmSync(dataDir, { recursive: true });
  assert.throws(() => owners.claim(signer(alice)), { code: 'store_unavailable' });
  assert.equal(nameNow(owners), 'none');
});
