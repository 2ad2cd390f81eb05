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

test('a folder that containerd reads for no registry is no mirror, in the list as little as by name', async () => {
  const text = '[host."https://m"]\n';
  const { store } = written({ 'GHCR.io': text, 'index.docker.io': text, 'a b': text, 'quay.io': text });
  assert.deepEqual(
    (await store.list()).map(({ registry }) => registry),
    ['quay.io'],
  );
  for (const registry of ['ghcr.io', 'docker.io']) assert.equal(await store.get(registry), undefined);
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
