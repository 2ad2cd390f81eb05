import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { settled, until } from '../support/containerd.ts';
import { ask, askAsRoot, type DaemonProcess, startDaemonProcess } from '../support/daemon-process.ts';
import { TestRegistry } from '../support/registry.ts';

/** A sandboxed daemon whose runtime has certs.d configured, but does not run. */
async function daemonWithoutRuntime() {
  const dataDir = mkdtempSync(join(tmpdir(), 'beosd-ctd-http-'));
  const etc = join(dataDir, 'root', 'etc', 'containerd');
  mkdirSync(etc, { recursive: true });
  const certsDir = join(etc, 'certs.d');
  const config = `version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${certsDir}"\n`;
  writeFileSync(join(etc, 'config.toml'), config);
  const socket = join(dataDir, 'no-runtime.sock');
  const daemon = await startDaemonProcess({ dataDir, env: { CONTAINERD_ADDRESS: socket } });
  await settled(daemon);
  return { daemon, etc, certsDir, config, socket };
}

/** The daemon looks at the runtime by itself soon after its start. */
async function withCondition(daemon: DaemonProcess, code: string) {
  let found: { code: string; message: string } | undefined;
  await until(async () => {
    const { json } = await askAsRoot(daemon, 'GET', '/system/conditions');
    found = (json.data as { code: string; message: string }[]).find((each) => each.code === code);
    return found !== undefined;
  }, 20_000);
  assert.ok(found);
  return found;
}

test('a runtime that is down: 503 with its socket on every route that needs it, a condition, and /readyz says so', async () => {
  const { daemon, socket } = await daemonWithoutRuntime();
  await using _daemon = daemon;
  const needed = [
    ['GET', '/containerd/images/'],
    ['GET', '/containerd/images'],
    ['GET', '/containerd/registries'],
    ['POST', '/containerd/images/prune'],
    ['DELETE', '/containerd/images/nginx'],
  ] as const;
  for (const [method, path] of needed) {
    const { status, json } = await askAsRoot(daemon, method, path);
    assert.equal(status, 503, `${method} ${path}: ${JSON.stringify(json)}`);
    assert.equal(json.error?.['code'], 'runtime_unavailable');
    assert.ok(json.message.includes(socket), json.message);
  }
  const condition = await withCondition(daemon, 'runtime_unavailable');
  assert.ok(condition.message.includes(socket));
  const ready = await askAsRoot(daemon, 'GET', '/readyz');
  assert.equal(ready.status, 503);
  assert.match(JSON.stringify(ready.json.data), /runtime does not answer/);
});

test('mirrors over HTTP: set, read, list, delete; with and without the slash at the end', async () => {
  const { daemon, certsDir, etc, config } = await daemonWithoutRuntime();
  await using _daemon = daemon;
  await using registry = await TestRegistry.start();
  const mirrors = '/containerd/registry/mirrors';
  const endpoint = [`http://${registry.host}`, 'https://outside.invalid'];
  const set = await askAsRoot(daemon, 'PUT', `${mirrors}/docker.io`, { Endpoint: endpoint });
  assert.equal(set.status, 200, set.text);
  const data = set.json.data as { endpoint: string[]; warnings: string[]; probes: { reachable: boolean }[] };
  assert.deepEqual(data.endpoint, endpoint);
  assert.deepEqual(
    data.probes.map(({ reachable }) => reachable),
    [true, false],
  );
  assert.match(data.warnings.join(), /outside\.invalid: not asked/);
  assert.deepEqual(registry.asked, ['GET /v2/']);
  for (const path of [mirrors, `${mirrors}/`]) {
    const list = await askAsRoot(daemon, 'GET', path);
    assert.deepEqual(list.json.data, { 'docker.io': { endpoint } }, path);
  }
  assert.deepEqual((await askAsRoot(daemon, 'GET', `${mirrors}/docker.io`)).json.data, { endpoint });
  assert.match(readFileSync(join(certsDir, 'docker.io', 'hosts.toml'), 'utf8'), /registry-1\.docker\.io/);
  const required = await askAsRoot(daemon, 'PUT', `${mirrors}/quay.io?requireReachable=true`, { endpoint });
  assert.equal(required.status, 422);
  assert.equal((await askAsRoot(daemon, 'GET', `${mirrors}/quay.io`)).status, 404);
  const dry = await askAsRoot(daemon, 'DELETE', `${mirrors}/docker.io?dryRun=true`);
  assert.equal((dry.json.data as { allowed: boolean }).allowed, true);
  assert.ok(existsSync(join(certsDir, 'docker.io')));
  assert.equal((await askAsRoot(daemon, 'DELETE', `${mirrors}/docker.io`)).status, 200);
  assert.equal((await askAsRoot(daemon, 'DELETE', `${mirrors}/docker.io`)).status, 404);
  assert.deepEqual(readdirSync(certsDir), []);
  assert.equal(readFileSync(join(etc, 'config.toml'), 'utf8'), config);
});

test('100 parallel PUTs to different registries and 100 to one: each answer is true, no update is lost', async () => {
  const { daemon, certsDir, etc, config } = await daemonWithoutRuntime();
  await using _daemon = daemon;
  const mirrors = '/containerd/registry/mirrors';
  const put = async (registry: string, body: Record<string, unknown>) => {
    const { status, json, text } = await askAsRoot(daemon, 'PUT', `${mirrors}/${registry}`, body);
    assert.equal(status, 200, text);
    return (json.data as { endpoint: string[] }).endpoint;
  };
  const mirror = async (registry: string) =>
    (await askAsRoot(daemon, 'GET', `${mirrors}/${registry}`)).json.data as { endpoint: string[] };
  const numbers = Array.from({ length: 100 }, (_, n) => n);
  // A setting that only the first PUT names has to outlive all that come after it.
  await put('quay.io', { endpoint: ['https://kept.invalid'], override_path: true });
  const answers = await Promise.all(
    numbers.flatMap((n) => [
      put(`r${n}.example:${5000 + n}`, { endpoint: [`https://m${n}.invalid`] }),
      put('quay.io', {
        endpoint: [`https://m${n}.invalid`, 'https://kept.invalid', `https://n${n}.invalid`],
      }),
    ]),
  );
  for (const n of numbers) {
    const endpoint = [`https://m${n}.invalid`];
    assert.deepEqual(answers[2 * n], endpoint);
    assert.deepEqual(await mirror(`r${n}.example:${5000 + n}`), { endpoint });
  }
  const { endpoint: last } = await mirror('quay.io');
  assert.ok(
    numbers.some((n) => isDeepStrictEqual(last, answers[2 * n + 1])),
    `one PUT whole: ${last}`,
  );
  const hosts = readFileSync(join(certsDir, 'quay.io', 'hosts.toml'), 'utf8');
  assert.equal(hosts.split('override_path = true').length, 2, hosts);
  const all = (await askAsRoot(daemon, 'GET', mirrors)).json.data as object;
  assert.equal(Object.keys(all).length, 101);
  const strays = readdirSync(certsDir, { recursive: true }).filter(
    (name) => !/(^[^/]+|hosts\.toml)$/.test(String(name)),
  );
  assert.deepEqual(strays, []);
  assert.equal(readFileSync(join(etc, 'config.toml'), 'utf8'), config);
});

const tricks = [
  '..',
  '%2e%2e',
  '%2e%2e%2f',
  '..%2f..%2fetc',
  '%2e%2e%2f%2e%2e%2fhosts',
  '%00',
  'a%2fb',
  '.',
  '%20',
];

test('path tricks in :registry and :image are 4xx and touch nothing', async () => {
  const { daemon, etc, config } = await daemonWithoutRuntime();
  await using _daemon = daemon;
  const before = readdirSync(etc);
  const socket = join(daemon.dataDir, 'beosd.sock');
  const body = JSON.stringify({ endpoint: ['https://m.invalid'] });
  const headers = { 'content-type': 'application/json' };
  for (const trick of [...tricks, '', 'x'.repeat(10_240), '_x', 'a:b:c', '..;/x']) {
    for (const method of ['PUT', 'GET', 'DELETE']) {
      if (method === 'GET' && trick === '') continue; // that is the list
      const path = `/containerd/registry/mirrors/${trick}`;
      const answer = await ask(socket, { method, path, ...(method === 'PUT' ? { body, headers } : {}) });
      assert.ok(
        answer.status >= 400 && answer.status < 500,
        `${method} ${path.slice(0, 60)}: ${answer.status}`,
      );
    }
    if (trick === 'a%2fb' || trick === 'a:b:c') continue; // the first is an image, and the runtime is down
    const answer = await ask(socket, { method: 'DELETE', path: `/containerd/images/${trick}` });
    assert.ok(
      answer.status >= 400 && answer.status < 500,
      `DELETE image ${trick.slice(0, 60)}: ${answer.status}`,
    );
  }
  assert.deepEqual(readdirSync(etc), before);
  assert.equal(readFileSync(join(etc, 'config.toml'), 'utf8'), config);
});

test('who is nobody changes nothing', async () => {
  const { daemon, etc } = await daemonWithoutRuntime();
  await using _daemon = daemon;
  const headers = { 'content-type': 'application/json' };
  const body = JSON.stringify({ endpoint: ['https://m.invalid'] });
  const calls = [
    { method: 'PUT', path: '/containerd/registry/mirrors/docker.io', headers, body },
    { method: 'DELETE', path: '/containerd/registry/mirrors/docker.io' },
    { method: 'DELETE', path: '/containerd/images/nginx' },
    { method: 'POST', path: '/containerd/images/prune' },
    { method: 'GET', path: '/containerd/images/' },
  ];
  for (const each of calls) assert.equal((await ask(daemon.port, each)).status, 403, each.path);
  assert.deepEqual(readdirSync(etc), ['config.toml']);
});
