import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { parse as parseToml } from 'smol-toml';
import { fault } from '#api/errors.ts';
import { endpointUrl } from '#containerd/endpoint.ts';
import { causeChain } from '#lib/fault.ts';
import { mirrorsIn } from '../../tests/support/fake-containerd.ts';

const registryTable = '[plugins."io.containerd.grpc.v1.cri".registry]';

/** A configuration that points at certs.d already. */
function ready() {
  const made = mirrorsIn();
  writeFileSync(
    made.place.configFile,
    `version = 2\n${registryTable}\nconfig_path = "${made.place.certsDir}"\n`,
  );
  return made;
}

/** With ordinary prototypes, so that it compares with literals. */
const parse = (text: string): unknown => JSON.parse(JSON.stringify(parseToml(text)));

const hostsOf = (certsDir: string, registry: string) =>
  readFileSync(join(certsDir, registry, 'hosts.toml'), 'utf8');

/** Every file below a folder with its content. */
function contents(folder: string): Record<string, string> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((each) =>
    each.isFile(),
  );
  return Object.fromEntries(
    entries.map((each) => {
      const path = join(each.parentPath, each.name);
      return [path.slice(folder.length + 1), readFileSync(path, 'utf8')];
    }),
  );
}

test('docker.io is served as registry-1.docker.io, order kept, capabilities pull and resolve', async () => {
  const { store, place, fake } = ready();
  await store.put('docker.io', { endpoints: ['https://b', 'https://a'], skipVerify: true });
  assert.deepEqual(parse(hostsOf(place.certsDir, 'docker.io')), {
    server: 'https://registry-1.docker.io',
    host: {
      'https://b': { capabilities: ['pull', 'resolve'], skip_verify: true },
      'https://a': { capabilities: ['pull', 'resolve'], skip_verify: true },
    },
  });
  const mirror = await store.get('docker.io');
  assert.deepEqual(
    mirror?.file.endpoints.map(({ url }) => url),
    ['https://b', 'https://a'],
  );
  assert.equal(fake.restarts, 0);
});

test('a PUT and a DELETE change only the folder of their registry', async () => {
  const { store, place, folder, fake } = ready();
  await store.put('ghcr.io', { endpoints: ['https://g'] });
  await store.put('host:5000', { endpoints: ['https://h'] });
  const before = contents(folder);
  await store.put('quay.io', { endpoints: ['https://q'] });
  const { 'etc/certs.d/quay.io/hosts.toml': added, ...others } = contents(folder);
  assert.ok(added?.includes('https://q'));
  assert.deepEqual(others, before);
  await store.delete('quay.io');
  assert.deepEqual(contents(folder), before);
  assert.ok(!existsSync(join(place.certsDir, 'quay.io')));
  assert.deepEqual(
    (await store.list()).map(({ registry }) => registry),
    ['ghcr.io', 'host:5000'],
  );
  assert.equal(fake.restarts, 0);
});

test('what others keep in the folder stays: certificates, settings of endpoints, unknown keys', async () => {
  const { store, place } = ready();
  const folder = join(place.certsDir, 'quay.io');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'their.crt'), 'x');
  writeFileSync(
    join(folder, 'hosts.toml'),
    'server = "https://elsewhere"\n[host."https://q/"]\nskip_verify = true\nca = "their.crt"\n[host."https://q/".header]\nx = ["1"]\n',
  );
  await store.put('quay.io', { endpoints: ['https://new', 'https://q'] });
  assert.deepEqual(parse(hostsOf(place.certsDir, 'quay.io')), {
    server: 'https://elsewhere',
    host: {
      'https://new': { capabilities: ['pull', 'resolve'] },
      'https://q': {
        capabilities: ['pull', 'resolve'],
        skip_verify: true,
        ca: 'their.crt',
        header: { x: ['1'] },
      },
    },
  });
  await store.put('quay.io', { endpoints: ['https://q'], skipVerify: false });
  assert.ok(!hostsOf(place.certsDir, 'quay.io').includes('skip_verify'));
  await store.delete('quay.io');
  assert.deepEqual(readdirSync(folder), ['their.crt']);
});

test("containerd's other spelling of a port is found, kept and removed", async () => {
  const { store, place } = ready();
  mkdirSync(join(place.certsDir, 'host_5000_'), { recursive: true });
  writeFileSync(join(place.certsDir, 'host_5000_', 'hosts.toml'), '[host."https://m"]\n');
  assert.equal((await store.get('host:5000'))?.file.endpoints[0]?.url, 'https://m');
  await store.put('host:5000', { endpoints: ['https://n'] });
  assert.deepEqual(readdirSync(place.certsDir), ['host_5000_']);
  await store.delete('host:5000');
  assert.equal(await store.get('host:5000'), undefined);
});

test('a CA is kept beside hosts.toml and goes with it', async () => {
  const { store, place } = ready();
  await store.put('quay.io', { endpoints: ['https://q'], ca: 'first' });
  await store.put('quay.io', { endpoints: ['https://q'], ca: 'second' });
  const names = readdirSync(join(place.certsDir, 'quay.io')).sort();
  assert.equal(names.length, 2);
  assert.match(names[0] ?? '', /^beosd-ca-[0-9a-f]{12}\.pem$/);
  assert.ok(hostsOf(place.certsDir, 'quay.io').includes(`"${names[0]}"`));
  const mirror = await store.get('quay.io');
  assert.equal(store.caOf(mirror, mirror?.file.endpoints[0]?.settings['ca']), 'second');
  await store.delete('quay.io');
  assert.deepEqual(readdirSync(place.certsDir), []);
});

test('100 parallel PUTs to different registries: every one is there', async () => {
  const { store } = ready();
  const names = Array.from({ length: 100 }, (_, n) => `r${n}.example:${5000 + n}`);
  await Promise.all(names.map((name, n) => store.put(name, { endpoints: [`https://m${n}`] })));
  const found = new Map((await store.list()).map((each) => [each.registry, each.file.endpoints[0]?.url]));
  assert.equal(found.size, 100);
  for (const [n, name] of names.entries()) assert.equal(found.get(name), `https://m${n}`);
});

test('100 parallel PUTs to one registry: the last one counts, whole', async () => {
  const { store, place } = ready();
  await Promise.all(
    Array.from({ length: 100 }, (_, n) =>
      store.put('docker.io', { endpoints: [`https://m${n}`, `https://n${n}`], overridePath: n % 2 === 1 }),
    ),
  );
  const mirror = await store.get('docker.io');
  assert.deepEqual(
    mirror?.file.endpoints.map(({ url }) => url),
    ['https://m99', 'https://n99'],
  );
  assert.ok(mirror?.file.endpoints.every(({ settings }) => settings['override_path'] === true));
  assert.deepEqual(readdirSync(join(place.certsDir, 'docker.io')), ['hosts.toml']);
});

test('a link that leads out of certs.d is not followed', async () => {
  const { store, place, folder } = ready();
  const outside = join(folder, 'outside');
  mkdirSync(outside);
  mkdirSync(place.certsDir);
  writeFileSync(join(outside, 'hosts.toml'), 'precious');
  symlinkSync(outside, join(place.certsDir, 'quay.io'));
  await assert.rejects(store.put('quay.io', { endpoints: ['https://q'] }), { code: 'impossible' });
  await assert.rejects(store.delete('quay.io'), { code: 'impossible' });
  assert.equal(readFileSync(join(outside, 'hosts.toml'), 'utf8'), 'precious');
});

test('a damaged hosts.toml is told, does not hide the others, and is mended by a PUT', async () => {
  const { store, place } = ready();
  await store.put('ghcr.io', { endpoints: ['https://g'] });
  mkdirSync(join(place.certsDir, 'quay.io'));
  writeFileSync(join(place.certsDir, 'quay.io', 'hosts.toml'), 'not = = toml');
  const list = await store.list();
  assert.deepEqual(
    list.map(({ registry }) => registry),
    ['ghcr.io', 'quay.io'],
  );
  assert.match(list[1]?.problem ?? '', /quay\.io\/hosts\.toml cannot be read/);
  await store.put('quay.io', { endpoints: ['https://q'] });
  assert.equal((await store.get('quay.io'))?.problem, undefined);
});

const inline = `version = 2
${registryTable.replace(']', '.mirrors."docker.io"]')}
endpoint = ["https://one", "http://two:5000"]
${registryTable.replace(']', '.mirrors."*"]')}
endpoint = ["https://all"]
${registryTable.replace(']', '.configs."two:5000".tls]')}
insecure_skip_verify = true
# the end
`;

test('inline mirrors are read, and migrated by the first write with one restart', async () => {
  const { store, place, fake, journal } = mirrorsIn();
  writeFileSync(place.configFile, inline);
  assert.deepEqual(
    (await store.list()).map((each) => [each.registry, each.source]),
    [
      ['_default', 'config.toml'],
      ['docker.io', 'config.toml'],
      ['two:5000', 'config.toml'],
    ],
  );
  await store.put('quay.io', { endpoints: ['https://q'] });
  assert.equal(fake.restarts, 1);
  assert.equal(journal.mark, undefined);
  assert.equal(readFileSync(`${place.configFile}.beosd-backup`, 'utf8'), inline);
  const text = readFileSync(place.configFile, 'utf8');
  assert.ok(!text.includes('registry.mirrors') && text.includes('# the end'));
  assert.deepEqual(parse(hostsOf(place.certsDir, 'docker.io')), {
    server: 'https://registry-1.docker.io',
    host: {
      'https://one': { capabilities: ['pull', 'resolve'] },
      'http://two:5000': { capabilities: ['pull', 'resolve'], skip_verify: true },
    },
  });
  // The empty table is what makes containerd 1.x read the line above it.
  assert.deepEqual(parse(hostsOf(place.certsDir, 'two:5000')), { skip_verify: true, host: {} });
  const sources = (await store.list()).map((each) => [each.registry, each.source]);
  assert.deepEqual(sources, [
    ['_default', 'certs.d'],
    ['docker.io', 'certs.d'],
    ['quay.io', 'certs.d'],
    ['two:5000', 'certs.d'],
  ]);
  await store.put('quay.io', { endpoints: ['https://r'] });
  await store.delete('docker.io');
  assert.equal(fake.restarts, 1, 'once for good');
});

test('deleting an inline mirror migrates the others and leaves this one out', async () => {
  const { store, place, fake } = mirrorsIn();
  writeFileSync(place.configFile, inline);
  await store.delete('docker.io');
  assert.equal(fake.restarts, 1);
  assert.deepEqual(
    (await store.list()).map(({ registry }) => registry),
    ['_default', 'two:5000'],
  );
});

test('where no restart is possible nothing is touched', async () => {
  const { store, folder, place, fake } = mirrorsIn();
  writeFileSync(place.configFile, inline);
  fake.refusal = fault('sandbox', 'not here');
  const before = contents(folder);
  await assert.rejects(store.put('quay.io', { endpoints: ['https://q'] }), { code: 'sandbox' });
  assert.deepEqual(contents(folder), before);
});

test("k3s' registries.yaml is served, and not written over", async () => {
  const { open, place, folder } = ready();
  writeFileSync(place.registriesYaml, 'mirrors:\n  docker.io:\n    endpoint: ["https://k"]\n');
  const store = open({ k3s: true });
  assert.equal((await store.get('docker.io'))?.source, 'registries.yaml');
  const before = contents(folder);
  await assert.rejects(store.put('docker.io', { endpoints: ['https://q'] }), { code: 'mirror_managed' });
  await assert.rejects(store.delete('docker.io'), { code: 'mirror_managed' });
  assert.deepEqual(contents(folder), before);
  await store.put('quay.io', { endpoints: ['https://q'] });
  assert.equal((await open().get('docker.io'))?.source, 'registries.yaml');
});

test("what only k3s' registries.yaml says cannot be deleted here, and nobody is told that it was", async () => {
  const { open, place } = ready();
  writeFileSync(place.registriesYaml, 'mirrors:\n  docker.io:\n    endpoint: ["https://k"]\n');
  for (const k3s of [true, false]) {
    await assert.rejects(open({ k3s }).delete('docker.io'), { code: 'mirror_managed' }, `k3s: ${k3s}`);
  }
  const store = open();
  await store.put('docker.io', { endpoints: ['https://q'] });
  await store.delete('docker.io');
  assert.equal((await store.get('docker.io'))?.source, 'registries.yaml');
});

test('endpoints are http or https URLs of a host, without anything that hides something', () => {
  const good = ['https://m', 'http://10.0.0.1:5000', 'https://m.example/v2/proxy', 'https://[fd00::1]:5000'];
  for (const url of good) assert.equal(endpointUrl(url), url);
  assert.equal(endpointUrl('https://m/'), 'https://m');
  const bad = [
    '',
    'm',
    'ftp://m',
    'https://',
    'https://u:p@m',
    'https://m?x',
    'https://m#x',
    'https://m\n',
    'https://m"]',
  ];
  for (const url of [
    ...bad,
    'https://m:0',
    'https://m:99999',
    'javascript:x',
    'https://a b',
    `https://${'a'.repeat(3000)}`,
  ]) {
    assert.equal(endpointUrl(url), undefined, url.slice(0, 40));
  }
});

test('no error quotes a configuration: credentials may stand beside the fault', async () => {
  const { store, place } = ready();
  const secret = 's3cret';
  const places = [
    [place.configFile, `version = 2\n[a.auth]\npassword = "${secret}" more\n`],
    [place.registriesYaml, `mirrors: {}\nconfigs:\n  h:\n    auth:\n      password: "${secret}" more\n`],
    [join(place.certsDir, 'quay.io', 'hosts.toml'), `[header]\nauthorization = "${secret}" more\n`],
  ] as const;
  for (const [path, broken] of places) {
    const before = existsSync(path) ? readFileSync(path, 'utf8') : '';
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, broken);
    const said = await store.list().then(
      (list) => JSON.stringify(list),
      (error: unknown) => `${inspect(error)} ${causeChain(error)}`,
    );
    assert.match(said, /line \d+, column \d+/, path);
    assert.ok(!said.includes(secret), said);
    writeFileSync(path, before);
  }
});
