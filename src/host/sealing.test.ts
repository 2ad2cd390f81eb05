import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { type Exec, ExecError, SystemExec } from '#host/exec.ts';
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

test('a key that is gone is said to be gone, and no other is put in its place', async () => {
  const { secrets: here, places } = secrets();
  const sealed = await here.seal('smb://nas/a', canary);
  const key = readFileSync(places.keyFile);
  rmSync(places.keyFile);
  await assert.rejects(here.open('smb://nas/a', sealed), /the key that it was sealed with is gone/);
  assert.ok(!existsSync(places.keyFile));
  writeFileSync(places.keyFile, key);
  assert.equal(await here.open('smb://nas/a', sealed), canary);
});

test('a key that could not be written whole leaves nothing that the next one would stumble over', async () => {
  class FullDisk extends Files {
    override replace(): void {
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    }
  }
  const { secrets: here, places } = secrets();
  const full = new SystemSecrets(new SystemExec(), new FullDisk(), places);
  await assert.rejects(full.seal('smb://nas/a', canary), /ENOSPC/);
  assert.deepEqual(readdirSync(dirname(places.keyFile)), []);
  assert.equal(await here.open('smb://nas/a', await here.seal('smb://nas/a', canary)), canary);
});

test('what systemd-creds had printed when it failed is in no error', async () => {
  const fails = (init: Partial<ExecError>): Exec => ({
    run: (file, args) =>
      Promise.reject(
        new ExecError({
          ...{ file, args, reason: 'exit', exitCode: 1, stdout: canary, stderr: '' },
          ...init,
        }),
      ),
    lines: () => assert.fail('no listener'),
    started: 0,
  });
  for (const [init, words] of [
    [{ reason: 'timeout', exitCode: null }, /ended by timeout/],
    [{ stderr: 'Failed to read host key' }, /Failed to read host key/],
  ] as const) {
    const broken = new SystemSecrets(fails(init), new Files(), { ...secrets().places, useSystemd: true });
    await assert.rejects(broken.open('smb://nas/a', 'systemd:xxx'), (error) => {
      assert.match(inspect(error, { depth: 9 }), words);
      assert.doesNotMatch(inspect(error, { depth: 9 }), /c4nary/);
      return true;
    });
  }
});

test('what a crash left is swept, also beside something that cannot go', async () => {
  const { secrets: here, places } = secrets();
  await here.seal('smb://nas/a', canary);
  here.sweep();
  mkdirSync(join(places.runDir, 'a-folder'), { recursive: true });
  const temp = join(dirname(places.keyFile), '.secret.key.0123456789ab.tmp');
  for (const path of [join(places.runDir, 'b'), temp]) writeFileSync(path, canary);
  assert.throws(() => here.sweep());
  assert.deepEqual(readdirSync(places.runDir), ['a-folder']);
  assert.deepEqual(readdirSync(dirname(places.keyFile)), ['secret.key']);
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
