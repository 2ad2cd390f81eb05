import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse as parseToml } from 'smol-toml';
import { mirrorsIn } from '../../tests/support/fake-containerd.ts';

const registryTable = '[plugins."io.containerd.grpc.v1.cri".registry]';

/** certs.d is configured, and somebody else has written there: hosts.toml by folder. */
function written(byOthers: Readonly<Record<string, string>>) {
  const made = mirrorsIn();
  const { certsDir, configFile } = made.place;
  writeFileSync(configFile, `version = 2\n${registryTable}\nconfig_path = "${certsDir}"\n`);
  for (const [folder, text] of Object.entries(byOthers)) {
    mkdirSync(join(certsDir, folder), { recursive: true });
    writeFileSync(join(certsDir, folder, 'hosts.toml'), text);
  }
  return { ...made, certsDir };
}

/** With ordinary prototypes, so that it compares with literals. */
const hostsOf = (certsDir: string, folder: string): unknown =>
  JSON.parse(JSON.stringify(parseToml(readFileSync(join(certsDir, folder, 'hosts.toml'), 'utf8'))));

test('a number among the settings of an endpoint is kept like any other, and the PUT says that it was made', async () => {
  const { store, certsDir } = written({ 'quay.io': '[host."https://q"]\nretries = 3\nratio = 0.5\n' });
  await store.put('quay.io', { endpoints: ['https://q', 'https://r'] });
  assert.deepEqual(hostsOf(certsDir, 'quay.io'), {
    host: {
      'https://q': { capabilities: ['pull', 'resolve'], retries: 3, ratio: 0.5 },
      'https://r': { capabilities: ['pull', 'resolve'] },
    },
  });
});

test('DELETE takes the mirrors; how the registry itself is verified stays', async () => {
  const own = 'ca = "own.pem"\nserver = "https://nas:5000"\n[header]\nx = ["1"]\n';
  for (const folder of ['nas:5000', 'nas_5000_']) {
    const { store, certsDir } = written({ [folder]: `${own}[host."https://m"]\n` });
    await store.delete('nas:5000');
    assert.deepEqual(readdirSync(certsDir), [folder]);
    assert.deepEqual(hostsOf(certsDir, folder), {
      ca: 'own.pem',
      server: 'https://nas:5000',
      header: { x: ['1'] },
      host: {},
    });
    await assert.rejects(store.delete('nas:5000'), { code: 'not_found' });
    assert.ok(existsSync(join(certsDir, folder, 'hosts.toml')), 'what is no mirror is not deleted as one');
  }
});

test('DELETE of an inline mirror keeps how the configuration has verified the registry itself', async () => {
  const { store, place, fake } = mirrorsIn();
  const inline = (path: string) => registryTable.replace(']', `.${path}]`);
  writeFileSync(
    place.configFile,
    `version = 2\n${inline('mirrors."nas:5000"')}\nendpoint = ["https://m"]\n${inline('configs."nas:5000".tls')}\nca_file = "/ca.pem"\n`,
  );
  await store.delete('nas:5000');
  assert.equal(fake.restarts, 1);
  assert.deepEqual(hostsOf(place.certsDir, 'nas:5000'), { ca: '/ca.pem', host: {} });
});

/** An inline mirror, and in certs.d, where nobody looks yet, what somebody has laid ready. */
function beforeTheSwitch() {
  const made = mirrorsIn();
  const { certsDir, configFile } = made.place;
  const mirrors = registryTable.replace(']', '.mirrors."docker.io"]');
  const inline = `version = 2\n${mirrors}\nendpoint = ["https://one"]\n`;
  writeFileSync(configFile, inline);
  made.fake.loaded = inline;
  for (const registry of ['quay.io', 'docker.io']) {
    mkdirSync(join(certsDir, registry), { recursive: true });
    writeFileSync(join(certsDir, registry, 'hosts.toml'), `# ready for ${registry}\n`);
  }
  return { ...made, certsDir, configFile, inline };
}

test('a switch that is taken back leaves certs.d as it was: a later one brings nothing to life that was refused', async () => {
  const made = beforeTheSwitch();
  const text = (registry: string) => readFileSync(join(made.certsDir, registry, 'hosts.toml'), 'utf8');
  made.fake.accepts = (config) => config === made.inline;
  for (const registry of ['quay.io', 'ghcr.io']) {
    const refused = made.store.put(registry, { endpoints: ['http://refused'], ca: 'pem' });
    await assert.rejects(refused, { code: 'runtime_rolled_back' });
  }
  await assert.rejects(made.store.delete('docker.io'), { code: 'runtime_rolled_back' });
  assert.deepEqual(readdirSync(made.certsDir), ['docker.io', 'quay.io']);
  assert.equal(text('quay.io'), '# ready for quay.io\n');
  assert.equal(text('docker.io'), '# ready for docker.io\n');
});

test('a switch that could not be taken back keeps the mirrors where the new configuration looks for them', async () => {
  const made = beforeTheSwitch();
  made.fake.accepts = (config) => config === made.inline;
  const { replace } = made.files;
  let writes = 0;
  made.files.replace = (path, content, options) => {
    if (path === made.configFile && ++writes > 1) throw new Error('ENOSPC');
    replace.call(made.files, path, content, options);
  };
  await assert.rejects(made.store.put('ghcr.io', { endpoints: ['https://g'] }), { message: 'ENOSPC' });
  const found = await made.store.list();
  assert.deepEqual(
    found.map(({ registry, file }) => [registry, file.endpoints[0]?.url]),
    [
      ['docker.io', 'https://one'],
      ['ghcr.io', 'https://g'],
      ['quay.io', undefined],
    ],
  );
});

test('a folder that containerd reads for no registry is no mirror, in the list as little as by name', async () => {
  const text = '[host."https://m"]\n';
  const { store } = written({ 'GHCR.io': text, 'index.docker.io': text, 'a b': text, 'quay.io': text });
  assert.deepEqual(
    (await store.list()).map(({ registry }) => registry),
    ['quay.io'],
  );
  for (const registry of ['ghcr.io', 'docker.io']) assert.equal(await store.get(registry), undefined);
});

test("what k3s makes a hosts.toml of is k3s', whether it names endpoints or only TLS", async () => {
  const { open, place } = written({});
  const tls = 'configs:\n  "NAS:5000":\n    tls: {insecure_skip_verify: true}\n';
  writeFileSync(place.registriesYaml, tls);
  const store = open({ k3s: true });
  await assert.rejects(store.put('nas:5000', { endpoints: ['https://m'] }), { code: 'mirror_managed' });
  await store.put('quay.io', { endpoints: ['https://m'] });
});

test("a registries.yaml that no k3s reads gives nobody's endpoint its trust", async () => {
  const { store, place, certsDir } = written({});
  writeFileSync(
    place.registriesYaml,
    'mirrors:\n  quay.io:\n    endpoint: ["https://m"]\nconfigs:\n  m:\n    tls: {insecure_skip_verify: true}\n',
  );
  assert.equal((await store.get('quay.io'))?.source, 'registries.yaml');
  await store.put('quay.io', { endpoints: ['https://m'] }, (before) => assert.equal(before, undefined));
  assert.deepEqual(hostsOf(certsDir, 'quay.io'), {
    host: { 'https://m': { capabilities: ['pull', 'resolve'] } },
  });
});

test('several authorities of an endpoint are all told, from beside the file and from elsewhere', async () => {
  const { store, certsDir, folder } = written({
    'quay.io': '[host."https://q"]\nca = ["one.pem", "none.pem"]\n',
  });
  writeFileSync(join(certsDir, 'quay.io', 'one.pem'), 'first');
  writeFileSync(join(folder, 'two.pem'), 'second');
  const mirror = await store.get('quay.io');
  assert.equal(store.caOf(mirror, mirror?.file.endpoints[0]?.settings['ca']), 'first');
  assert.equal(store.caOf(mirror, ['one.pem', join(folder, 'two.pem')]), 'first\nsecond');
  assert.equal(store.caOf(undefined, ['one.pem']), undefined);
});
