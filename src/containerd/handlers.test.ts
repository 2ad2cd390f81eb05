import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import { containerdHandlers } from '#containerd/handlers.ts';
import { ImageManager } from '#containerd/images.ts';
import type { Mirror } from '#containerd/mirrors.ts';
import type { Probe, ProbeOptions } from '#containerd/probe.ts';
import type { RuntimeImage } from '#containerd/runtime.ts';
import { mergeRegistries } from '#containerd/wire.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { unknown } from '#lib/observed.ts';
import { mirrorsIn } from '../../tests/support/fake-containerd.ts';

const workload: Caller = { class: 'workload', proof: 'token', namespace: 'os-system' };
const owner: Caller = { class: 'owner', proof: 'signature-bound', name: 'alice@example.com' };
const root: Caller = { class: 'root', proof: 'socket' };

function routes() {
  const made = mirrorsIn();
  const table = '[plugins."io.containerd.grpc.v1.cri".registry]';
  writeFileSync(made.place.configFile, `version = 2\n${table}\nconfig_path = "${made.place.certsDir}"\n`);
  const probed: { url: string; options: ProbeOptions }[] = [];
  const dead = new Set<string>();
  /** What others do while an endpoint is being asked. */
  const meanwhile: { work?: () => Promise<unknown> } = {};
  const gate: { refusal?: Error } = {};
  const probe: Probe = async (endpoint, options) => {
    probed.push({ url: endpoint, options });
    await meanwhile.work?.();
    const reachable = !dead.has(endpoint);
    return { endpoint, reachable, reason: reachable ? 'answers' : 'ECONNREFUSED' };
  };
  const never = () => Promise.reject(new Error('the runtime is not asked for mirrors'));
  const images = new ImageManager({
    runtime: {
      address: () => '',
      ...{ version: never, status: never, images: never, imageRecords: never, containers: never },
      ...{ imageFilesystems: never, removeImage: never },
    },
    clock: new FakeClock(),
    config: never,
    protectedReferences: () => unknown('test', 0, 'not needed'),
    lastUsed: () => new Map(),
    graceMs: 0,
  });
  const handlers = containerdHandlers({
    ...{ images, probe },
    mirrors: async () => made.store,
    admit: () => {
      if (gate.refusal !== undefined) throw gate.refusal;
    },
    publish: () => undefined,
  });
  const put = async (
    caller: Caller,
    body: { endpoint: string[]; skipVerify?: boolean; override_path?: boolean; ca?: string },
    more: { registry?: string; requireReachable?: boolean; dryRun?: boolean } = {},
  ) =>
    await handlers['containerd.setMirror'](
      {
        params: { registry: more.registry ?? 'docker.io' },
        query: more.requireReachable === undefined ? {} : { requireReachable: more.requireReachable },
        body,
      },
      { caller, dryRun: more.dryRun ?? false, signal: new AbortController().signal, requestId: 't' },
    );
  return { ...made, handlers, probed, dead, meanwhile, gate, put };
}

test('only the owner makes the node trust a mirror that TLS does not vouch for', async () => {
  const { put, place } = routes();
  const wishes = [
    { endpoint: ['http://m'] },
    { endpoint: ['https://m', 'http://n:5000'] },
    { endpoint: ['https://m'], skipVerify: true },
    { endpoint: ['https://m'], ca: '' },
  ];
  for (const body of wishes) {
    await assert.rejects(put(workload, body), { code: 'forbidden' }, JSON.stringify(body));
    assert.ok(!existsSync(join(place.certsDir, 'docker.io')));
  }
  await put(workload, { endpoint: ['https://m'] });
  for (const body of wishes) {
    await put(owner, body);
    await put(root, body);
  }
});

test('what the owner has trusted a workload may keep and sort, not extend', async () => {
  const { put, store } = routes();
  await put(owner, { endpoint: ['http://nas:5000', 'https://m'], skipVerify: true });
  await put(workload, { endpoint: ['https://new', 'http://nas:5000'] });
  const mirror = await store.get('docker.io');
  assert.deepEqual(
    mirror?.file.endpoints.map(({ url, settings }) => [url, settings['skip_verify'] ?? false]),
    [
      ['https://new', false],
      ['http://nas:5000', true],
    ],
  );
  await assert.rejects(put(workload, { endpoint: ['http://other'] }), { code: 'forbidden' });
});

test('what the owner takes back while a workload is asking is not put back by it', async () => {
  const { put, store, meanwhile } = routes();
  await put(owner, { endpoint: ['http://nas:5000'] });
  meanwhile.work = () => store.put('docker.io', { endpoints: ['https://m'] });
  await assert.rejects(put(workload, { endpoint: ['http://nas:5000'] }), { code: 'forbidden' });
  const mirror = await store.get('docker.io');
  assert.deepEqual(
    mirror?.file.endpoints.map(({ url }) => url),
    ['https://m'],
  );
});

test('what the state of the node has come to forbid meanwhile is not done', async () => {
  const { put, handlers, store, meanwhile, gate } = routes();
  await put(owner, { endpoint: ['https://m'] });
  meanwhile.work = async () => {
    gate.refusal = fault('state_forbids', 'an install has begun');
  };
  await assert.rejects(put(owner, { endpoint: ['https://n'] }), { code: 'state_forbids' });
  const input = { params: { registry: 'docker.io' }, query: {}, body: undefined };
  const call = { caller: owner, dryRun: false, signal: new AbortController().signal, requestId: 't' };
  await assert.rejects(async () => await handlers['containerd.deleteMirror'](input, call), {
    code: 'state_forbids',
  });
  assert.deepEqual(
    (await store.get('docker.io'))?.file.endpoints.map(({ url }) => url),
    ['https://m'],
  );
});

test('an endpoint that does not answer is a warning, or a refusal when asked for', async () => {
  const { put, dead, store } = routes();
  dead.add('https://b');
  await assert.rejects(put(owner, { endpoint: ['https://a', 'https://b'] }, { requireReachable: true }), {
    code: 'mirror_unreachable',
    message: 'https://b: ECONNREFUSED',
  });
  assert.equal(await store.get('docker.io'), undefined);
  const answer = await put(owner, { endpoint: ['https://a', 'https://b'] });
  assert.ok('data' in answer);
  assert.deepEqual(answer.data.warnings, ['https://b: ECONNREFUSED']);
  assert.deepEqual(
    answer.data.probes.map(({ reachable }) => reachable),
    [true, false],
  );
});

test('the probe asks with the settings that containerd will use', async () => {
  const { put, probed } = routes();
  await put(owner, { endpoint: ['https://a'], skipVerify: true, override_path: true });
  await put(workload, { endpoint: ['https://a', 'https://b'] });
  assert.deepEqual(
    probed.map(({ url, options }) => [url, options.skipVerify, options.overridePath]),
    [
      ['https://a', true, true],
      ['https://a', true, true],
      ['https://b', false, false],
    ],
  );
});

test('the probe trusts the authority that stands beside the hosts.toml that containerd reads', async () => {
  for (const name of ['host:5000', 'host_5000_']) {
    const { put, probed, place } = routes();
    const second = `${place.certsDir}-of-others`;
    const table = '[plugins."io.containerd.grpc.v1.cri".registry]';
    writeFileSync(place.configFile, `version = 2\n${table}\nconfig_path = "${second}:${place.certsDir}"\n`);
    mkdirSync(join(second, name), { recursive: true });
    writeFileSync(join(second, name, 'hosts.toml'), '[host."https://a"]\nca = "own.pem"\n');
    writeFileSync(join(second, name, 'own.pem'), 'their authority');
    await put(workload, { endpoint: ['https://a'] }, { registry: 'host:5000' });
    assert.deepEqual(
      probed.map(({ options }) => options.ca),
      ['their authority'],
    );
  }
});

test('a dry run says what would be written and writes nothing', async () => {
  const { put, dead, place } = routes();
  dead.add('https://a');
  const dry = await put(owner, { endpoint: ['https://a'] }, { dryRun: true });
  assert.ok('plan' in dry);
  assert.equal(dry.plan.allowed, true);
  assert.match(dry.plan.preconditions[0]?.reason ?? '', /only a warning/);
  assert.match(dry.plan.steps[0]?.does ?? '', /docker\.io\/hosts\.toml/);
  const strict = await put(owner, { endpoint: ['https://a'] }, { dryRun: true, requireReachable: true });
  assert.ok('plan' in strict && !strict.plan.allowed);
  assert.ok(!existsSync(place.certsDir));
});

test('bad endpoints and certificates are named', async () => {
  const { put } = routes();
  await assert.rejects(put(owner, { endpoint: ['https://a', 'ftp://b'] }), {
    code: 'invalid_input',
    details: { field: 'endpoint.1' },
  });
  await assert.rejects(put(owner, { endpoint: ['https://a', 'https://a/'] }), { code: 'invalid_input' });
  await assert.rejects(put(owner, { endpoint: ['https://a'], ca: 'no pem' }), {
    code: 'invalid_input',
    message: /ca is not a PEM certificate/,
  });
  await assert.rejects(put(owner, { endpoint: ['https://a'] }, { registry: '../x' }), {
    code: 'invalid_input',
    details: { field: 'registry' },
  });
});

test('registries: mirrors and images together; a host that only mirrors another is left out', () => {
  const image = (size: number, ...tags: string[]): RuntimeImage => ({
    ...{ id: `sha256:${size}`, tags, digests: [], size, uid: undefined, username: '', spec: undefined },
    pinned: false,
  });
  const mirrorOf = (registry: string, ...urls: string[]): Mirror => {
    const endpoints = urls.map((url) => ({ url, settings: {} }));
    return { registry, source: 'certs.d', file: { server: {}, endpoints } };
  };
  const merged = mergeRegistries(
    [
      {
        registry: 'docker.io',
        source: 'certs.d',
        file: { server: {}, endpoints: [{ url: 'https://m', settings: {} }] },
      },
      { registry: 'm', source: 'certs.d', file: { server: { skip_verify: true }, endpoints: [] } },
      mirrorOf('nas:5000', 'http://nas:5000'),
      mirrorOf('used:5000', 'https://used:5000/v2'),
      mirrorOf('alone:5000', 'https://alone:5000'),
      mirrorOf('gcr.io', 'http://NAS:5000', 'https://used:5000'),
    ],
    [
      image(10, 'docker.io/library/a:1', 'docker.io/library/b:1'),
      image(5, 'ghcr.io/a:1', 'quay.io/a:1'),
      { ...image(7), digests: [`ghcr.io/c@sha256:${'a'.repeat(64)}`] },
      image(3, 'used:5000/a:1'),
    ],
  );
  assert.deepEqual(merged, [
    { name: 'alone:5000', endpoints: ['https://alone:5000'], image_count: 0, image_size: 0 },
    { name: 'docker.io', endpoints: ['https://m'], image_count: 1, image_size: 10 },
    { name: 'gcr.io', endpoints: ['http://NAS:5000', 'https://used:5000'], image_count: 0, image_size: 0 },
    { name: 'ghcr.io', endpoints: [], image_count: 2, image_size: 12 },
    { name: 'quay.io', endpoints: [], image_count: 1, image_size: 5 },
    { name: 'used:5000', endpoints: ['https://used:5000/v2'], image_count: 1, image_size: 3 },
  ]);
});
