import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { SystemSecrets } from '#host/sealing.ts';

function secrets(useSystemd = false) {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-sealing-'));
  const places = { keyFile: join(dir, 'etc/secret.key'), runDir: join(dir, 'run'), useSystemd };
  return { dir, places, secrets: new SystemSecrets(new SystemExec(), new Files(), places) };
}

const canary = 'c4nary, "with" \'quotes\' and ü';

test('what is sealed does not show, opens under its own name only, and not on another machine', async () => {
  const { secrets: here, places } = secrets();
  const sealed = await here.seal('smb://nas/a', canary);
  assert.ok(!sealed.includes('c4nary') && !Buffer.from(sealed.slice(4), 'base64').includes('c4nary'));
  assert.equal(await here.open('smb://nas/a', sealed), canary);
  await assert.rejects(() => here.open('smb://nas/b', sealed));
  await assert.rejects(() => secrets().secrets.open('smb://nas/a', sealed));
  assert.equal(statSync(places.keyFile).mode & 0o777, 0o600);
  assert.equal(readFileSync(places.keyFile).length, 32);
});

test('a file with a secret is for root alone and gone afterwards, also when its use fails', async () => {
  const { secrets: here, places } = secrets();
  const path = await here.withFile(canary, async (file) => {
    assert.equal(readFileSync(file, 'utf8'), canary);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(statSync(places.runDir).mode & 0o777, 0o700);
    return file;
  });
  assert.ok(!existsSync(path));
  await assert.rejects(() => here.withFile(canary, () => Promise.reject(new Error('no'))), /no/);
  assert.deepEqual(readdirSync(places.runDir), []);
});

const systemd = existsSync('/usr/bin/systemd-creds') && process.getuid?.() === 0;

test('systemd-creds seals where the machine has it', {
  skip: systemd ? false : 'needs root and systemd-creds',
}, async () => {
  const { secrets: here } = secrets(true);
  const sealed = await here.seal('smb://nas/a', canary);
  assert.match(sealed, /^systemd:/);
  assert.equal(await here.open('smb://nas/a', sealed), canary);
  await assert.rejects(() => here.open('smb://nas/b', sealed));
});
