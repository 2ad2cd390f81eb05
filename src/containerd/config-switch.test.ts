import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
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
import { join } from 'node:path';
import { test } from 'node:test';
import { fault } from '#api/errors.ts';
import { readRegistryConfig, switchToCertsDir } from '#containerd/config-toml.ts';
import { storedJournal } from '#containerd/journal.ts';
import { KeyValues } from '#store/kv.ts';
import { Store } from '#store/store.ts';
import { mirrorsIn } from '../../tests/support/fake-containerd.ts';

const old = `# a machine
version = 2
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
endpoint = ["https://one"]
[plugins."io.foreign"] # theirs
x = 1.0
`;

function machine(config: string | undefined = old) {
  const made = mirrorsIn();
  if (config !== undefined) writeFileSync(made.place.configFile, config);
  return made;
}

const put = (made: ReturnType<typeof machine>) => made.store.put('quay.io', { endpoints: ['https://q'] });

test('a runtime that does not answer with the new configuration gets the old one back, byte for byte', async () => {
  const made = machine();
  made.fake.accepts = (config) => config === old;
  await assert.rejects(put(made), { code: 'runtime_rolled_back', message: /answers again with the old one/ });
  assert.equal(readFileSync(made.place.configFile, 'utf8'), old);
  assert.equal(made.fake.loaded, old, 'it runs with the old one again');
  assert.equal(made.journal.mark, undefined);
  assert.equal(
    (await made.store.list()).find((each) => each.registry === 'docker.io')?.source,
    'config.toml',
  );
});

test('one that does not answer with either is told so, and the old one stands', async () => {
  const made = machine();
  made.fake.accepts = () => false;
  await assert.rejects(put(made), { code: 'runtime_rolled_back', message: /still does not/ });
  assert.equal(readFileSync(made.place.configFile, 'utf8'), old);
});

test('a configuration that was not there is made, and goes again when the runtime does not take it', async () => {
  const made = machine(undefined);
  rmSync(made.place.configFile, { force: true });
  await put(made);
  assert.deepEqual(readRegistryConfig(readFileSync(made.place.configFile, 'utf8')).roots, [
    made.place.certsDir,
  ]);
  const other = mirrorsIn();
  other.fake.accepts = (config) => config === undefined;
  await assert.rejects(other.store.put('quay.io', { endpoints: ['https://q'] }), {
    code: 'runtime_rolled_back',
  });
  assert.ok(!existsSync(other.place.configFile));
});

test('a broken configuration is refused with its place, and stays', async () => {
  for (const broken of ['version = 2\n[plugins\n', 'version = 1\n[plugins.cri]\n']) {
    const made = machine(broken);
    await assert.rejects(put(made), { code: 'runtime_config_damaged', message: /config\.toml/ });
    assert.equal(readFileSync(made.place.configFile, 'utf8'), broken);
    assert.deepEqual(readdirSync(join(made.folder, 'etc')), ['config.toml']);
  }
});

test('a configuration that is not UTF-8 throughout is refused, every byte as it was', async () => {
  const made = machine();
  const latin = Buffer.from(old.replace('# a machine', '# für Jörg'), 'latin1');
  writeFileSync(made.place.configFile, latin);
  await assert.rejects(put(made), { code: 'runtime_config_damaged', message: /not UTF-8/ });
  assert.deepEqual(readFileSync(made.place.configFile), latin);
  assert.equal(made.fake.restarts, 0);
});

test("Docker's containerd, whose CRI is switched off, is never restarted for a mirror", async () => {
  for (const disabled of [
    'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
    'version = 2\ndisabled_plugins = ["cri"]\n',
  ]) {
    const made = machine(disabled);
    assert.deepEqual(await made.store.list(), []);
    await assert.rejects(put(made), { code: 'impossible', message: /CRI/ });
    assert.equal(made.fake.restarts, 0);
    assert.equal(readFileSync(made.place.configFile, 'utf8'), disabled);
  }
});

test('a program that is older than the configuration is not believed what it leaves out', async () => {
  const made = machine(undefined);
  const table = '[plugins."io.containerd.cri.v1.images".registry]';
  const older = async () => ({ exitCode: 0, stdout: 'version = 2\n', stderr: '' });
  made.fake.run = older;
  writeFileSync(made.place.configFile, `version = 3\n${table}\nconfig_path = "${made.place.certsDir}"\n`);
  await put(made);
  assert.equal((await made.store.get('quay.io'))?.source, 'certs.d');
  assert.equal(made.fake.restarts, 0);
  const unset = machine('version = 3\n');
  unset.fake.run = older;
  await assert.rejects(put(unset), {
    code: 'runtime_config_damaged',
    message: /older than the configuration/,
  });
  assert.equal(readFileSync(unset.place.configFile, 'utf8'), 'version = 3\n');
});

test('a configuration of the first version is read as the program explains it, and not edited', async () => {
  const first = '# as Docker packages it\ndisabled_plugins = []\n';
  const made = machine(first);
  const table = '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]';
  made.fake.run = async () => ({
    exitCode: 0,
    stdout: `version = 2\n${table}\nendpoint = ["https://m"]\n`,
    stderr: '',
  });
  assert.equal((await made.store.get('docker.io'))?.source, 'config.toml');
  await assert.rejects(put(made), { code: 'runtime_config_damaged', message: /config migrate/ });
  assert.equal(readFileSync(made.place.configFile, 'utf8'), first);
});

test('when the real binary reads something else than intended, nothing is written', async () => {
  const made = machine();
  const { run } = made.fake;
  made.fake.run = async (file, args) => {
    const said = await run.call(made.fake, file, args);
    const candidate = args[1]?.endsWith('candidate') === true;
    return candidate ? { ...said, stdout: `${said.stdout}\n[plugins.imported]\nx = 1\n` } : said;
  };
  await assert.rejects(put(made), {
    code: 'runtime_config_damaged',
    message: /more than the intended change/,
  });
  assert.equal(readFileSync(made.place.configFile, 'utf8'), old);
  assert.equal(made.fake.restarts, 0);
});

test('mode and owner stay; the copy of the old bytes is for root alone', async () => {
  const made = machine();
  chmodSync(made.place.configFile, 0o640);
  await put(made);
  assert.equal(statSync(made.place.configFile).mode & 0o777, 0o640);
  assert.equal(statSync(`${made.place.configFile}.beosd-backup`).mode & 0o777, 0o600);
});

const crashes = process.env['BEOSD_SOAK'] === undefined ? 8 : 200;

test(`killed at ${crashes} random moments: the old bytes or the new ones, and the next start ends it well`, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-crash-'));
  const etc = join(folder, 'etc');
  const expected = switchToCertsDir(old, join(etc, 'certs.d'));
  const seen = { old: 0, new: 0 };
  const lifeMs = await measure(folder);
  for (let n = 0; n < crashes; n++) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(etc, { recursive: true });
    writeFileSync(join(etc, 'config.toml'), old);
    await killDuringPut(folder, Math.random() * lifeMs * 1.1);
    const after = readFileSync(join(etc, 'config.toml'), 'utf8');
    assert.ok(after === old || after === expected, `neither old nor new: ${after}`);
    seen[after === old ? 'old' : 'new']++;
    await recoverAndCheck(folder, after, expected);
  }
  rmSync(folder, { recursive: true, force: true });
  if (crashes >= 100) assert.ok(seen.old > 0 && seen.new > 0, 'the moments lay on both sides of the edit');
  t.diagnostic(`old bytes ${seen.old} times, new bytes ${seen.new} times`);
});

function startChild(folder: string) {
  const script = join(import.meta.dirname, '..', '..', 'tests', 'support', 'switch-child.ts');
  return spawn(process.execPath, [script, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
}

/** How long the whole change takes when nobody interferes, ms. */
async function measure(folder: string): Promise<number> {
  mkdirSync(join(folder, 'etc'), { recursive: true });
  writeFileSync(join(folder, 'etc', 'config.toml'), old);
  const child = startChild(folder);
  await once(child.stdout, 'data'); // "go"
  const began = performance.now();
  await once(child.stdout, 'data'); // "done"
  const took = performance.now() - began;
  await once(child, 'exit');
  return took;
}

async function killDuringPut(folder: string, afterMs: number): Promise<void> {
  const child = startChild(folder);
  const ended = once(child, 'exit');
  await once(child.stdout, 'data'); // "go"
  await new Promise((resolve) => setTimeout(resolve, afterMs)); // the moment of the crash, not a wait for anything
  child.kill('SIGKILL');
  await ended;
}

/** What the daemon does at its next start: afterwards the runtime runs with what stands in the file. */
async function recoverAndCheck(folder: string, after: string, expected: string): Promise<void> {
  const store = new Store(join(folder, 'store'), Date.now);
  const journal = storedJournal(store, new KeyValues(store));
  const made = mirrorsIn(folder, journal);
  made.fake.loaded = old;
  const interrupted = journal.get() !== undefined;
  await made.store.recover();
  assert.equal(journal.get(), undefined);
  assert.equal(readFileSync(made.place.configFile, 'utf8'), after);
  if (interrupted && after === expected)
    assert.equal(made.fake.loaded, expected, 'the restart was caught up on');
  const strays = readdirSync(join(folder, 'etc')).filter((name) => /candidate|tmp$/.test(name));
  assert.deepEqual(strays, []);
  await made.store.put('quay.io', { endpoints: ['https://again'] });
  assert.equal(readFileSync(made.place.configFile, 'utf8'), expected);
  const mirrors = (await made.store.list()).map(({ registry, source }) => [registry, source]);
  assert.deepEqual(mirrors, [
    ['docker.io', 'certs.d'],
    ['quay.io', 'certs.d'],
  ]);
  store.close();
}

test('recovery after a crash rolls back when the runtime does not come up', async () => {
  const made = machine();
  await made.store.list();
  writeFileSync(`${made.place.configFile}.beosd-backup`, old);
  writeFileSync(made.place.configFile, switchToCertsDir(old, made.place.certsDir));
  made.journal.set({ existed: true });
  made.fake.accepts = (config) => config === old;
  await assert.rejects(made.store.recover(), { code: 'runtime_rolled_back' });
  assert.equal(readFileSync(made.place.configFile, 'utf8'), old);
  assert.equal(made.journal.mark, undefined);
});

test('a crash after the old file was put back, before the restart: the runtime gets it at the next start', async () => {
  for (const existed of [true, false]) {
    const made = machine(existed ? old : undefined);
    if (existed) writeFileSync(`${made.place.configFile}.beosd-backup`, old);
    else rmSync(made.place.configFile, { force: true });
    made.journal.set({ existed });
    made.fake.loaded = 'the edit that it did not take';
    made.fake.accepts = (config) => config === (existed ? old : undefined);
    await made.store.recover();
    assert.equal(made.fake.restarts, 1);
    assert.equal(made.fake.loaded, existed ? old : undefined);
    assert.equal(made.journal.mark, undefined);
  }
});

test('recovery where the runtime may not be restarted leaves file and mark to one that may', async () => {
  const made = machine();
  const edited = switchToCertsDir(old, made.place.certsDir);
  writeFileSync(`${made.place.configFile}.beosd-backup`, old);
  writeFileSync(made.place.configFile, edited);
  made.journal.set({ existed: true });
  made.fake.refusal = fault('sandbox', 'not here');
  await assert.rejects(made.store.recover(), { code: 'sandbox' });
  assert.equal(made.fake.restarts, 0);
  assert.equal(readFileSync(made.place.configFile, 'utf8'), edited);
  assert.deepEqual(made.journal.mark, { existed: true });
});

test('what an imported file says counts at once: no second look into a memory of it', async () => {
  const config = 'version = 2\nimports = ["conf.d/registry.toml"]\n';
  const made = machine(config);
  let imported = '';
  const { run } = made.fake;
  made.fake.run = async (file, args) => {
    const said = await run.call(made.fake, file, args);
    return { ...said, stdout: `${said.stdout}${imported}` };
  };
  assert.deepEqual(await made.store.list(), []);
  const table = '[plugins."io.containerd.grpc.v1.cri".registry]';
  imported = `${table}\nconfig_path = "${made.place.certsDir}"\n`;
  await put(made);
  assert.equal(made.fake.restarts, 0);
  assert.equal(readFileSync(made.place.configFile, 'utf8'), config);
});

test('a crash before the edit: a runtime that answers is not restarted', async () => {
  const made = machine();
  writeFileSync(`${made.place.configFile}.beosd-backup`, old);
  made.journal.set({ existed: true });
  made.fake.loaded = old;
  made.fake.accepts = (config) => config === old;
  await made.store.recover();
  assert.equal(made.fake.restarts, 0);
  assert.equal(made.journal.mark, undefined);
});

const noMounts = process.getuid?.() === 0 ? false : 'mounting a small tmpfs needs root';

/** A tmpfs of a few pages; unmounted and removed at the end whatever happens. */
function onTmpfs(options: string, work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-tmpfs-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', folder]);
  return work(folder).finally(() => {
    execFileSync('umount', [folder]);
    rmSync(folder, { recursive: true });
  });
}

test('a read-only disk: refused by name, the old bytes stay', { skip: noMounts }, async () => {
  await onTmpfs('size=1m', async (folder) => {
    const made = mirrorsIn(folder);
    writeFileSync(made.place.configFile, old);
    execFileSync('mount', ['-o', 'remount,ro', folder]);
    await assert.rejects(put(made), { code: 'file_not_written', message: /EROFS/ });
    assert.equal(readFileSync(made.place.configFile, 'utf8'), old);
    assert.equal(made.fake.restarts, 0);
  });
});

test('a full disk, from the first byte to the last: the old bytes or exactly the new ones', {
  skip: noMounts,
}, async (t) => {
  let refusals = 0;
  let successes = 0;
  // 4 KiB pages: each round leaves one page more than the one before, until everything fits.
  for (let pages = 0; pages <= 12; pages++) {
    await onTmpfs('size=256k,nr_inodes=1000', async (folder) => {
      const made = mirrorsIn(folder);
      writeFileSync(made.place.configFile, old);
      fillUp(folder, pages);
      const failure: unknown = await put(made).then(
        () => undefined,
        (error: unknown) => error,
      );
      const after = readFileSync(made.place.configFile, 'utf8');
      if (failure === undefined) {
        successes++;
        assert.equal(after, switchToCertsDir(old, made.place.certsDir));
      } else {
        refusals++;
        assert.ok(failure instanceof Error && 'code' in failure, String(failure));
        assert.equal(failure.code, 'file_not_written', String(failure));
        assert.equal(after, old);
        assert.equal(made.fake.restarts, 0);
      }
      assert.equal(made.journal.mark, undefined);
    });
  }
  t.diagnostic(`${refusals} refusals, ${successes} successes`);
  assert.ok(refusals > 0 && successes > 0);
});

function fillUp(folder: string, freePages: number): void {
  const page = Buffer.alloc(4096, 1);
  let written = 0;
  try {
    for (;;) writeFileSync(join(folder, `filler-${written++}`), page);
  } catch {
    rmSync(join(folder, `filler-${written - 1}`), { force: true });
  }
  for (let n = 0; n < freePages; n++) rmSync(join(folder, `filler-${n}`), { force: true });
}
