import assert from 'node:assert/strict';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fault } from '#api/errors.ts';
import { readRegistryConfig, switchToCertsDir } from '#containerd/config-toml.ts';
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
