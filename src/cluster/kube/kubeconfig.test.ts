import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { loadKubeConfig } from '#cluster/kube/kubeconfig.ts';
import { Files } from '#host/files.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'beosd-kubeconfig-'));

function write(dir: string, cluster: string, user: string): string {
  const path = join(dir, 'config');
  writeFileSync(
    path,
    `apiVersion: v1
kind: Config
current-context: here
contexts: [{name: other, context: {cluster: x, user: x}}, {name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {${cluster}}}]
users: [{name: u, user: {${user}}}]
`,
  );
  return path;
}

test('data in the kubeconfig is decoded', async () => {
  const data = Buffer.from('PEM').toString('base64');
  const path = write(
    folder(),
    `server: "https://10.0.0.1:6443/", certificate-authority-data: ${data}, tls-server-name: kube`,
    `client-certificate-data: ${data}, client-key-data: ${data}`,
  );
  assert.deepEqual(await loadKubeConfig(new Files(), [path]), {
    server: 'https://10.0.0.1:6443',
    path: '',
    serverName: 'kube',
    ca: 'PEM',
    cert: 'PEM',
    key: 'PEM',
    files: [path],
  });
});

test('files are found beside the kubeconfig and are part of what is watched', async () => {
  const dir = folder();
  writeFileSync(join(dir, 'ca.crt'), 'CA');
  writeFileSync(join(dir, 'token'), 'secret\n');
  const path = write(dir, 'server: "https://[::1]:6443", certificate-authority: ca.crt', 'tokenFile: token');
  const config = await loadKubeConfig(new Files(), [join(dir, 'absent'), path]);
  assert.equal(config?.ca, 'CA');
  assert.equal(config?.token, 'secret');
  assert.deepEqual(config?.files, [path, join(dir, 'ca.crt'), join(dir, 'token')]);
});

test('no kubeconfig is not an error', async () => {
  assert.equal(await loadKubeConfig(new Files(), [join(folder(), 'none')]), undefined);
});

for (const [what, cluster, user, message] of [
  ['plain http to another machine', 'server: "http://10.0.0.1:8080"', 'token: t', /must be https/],
  ['no verification', 'server: "https://h", insecure-skip-tls-verify: true', 'token: t', /is refused/],
  ['a program to run', 'server: "https://h"', 'exec: {command: sh}', /exec is not supported/],
  ['a password', 'server: "https://h"', 'username: a', /username is not supported/],
  ['no server', 'foo: bar', 'token: t', /not a URL/],
  ['a missing file', 'server: "https://h", certificate-authority: gone', 'token: t', /does not exist/],
] as const) {
  test(`${what} is refused by name`, async () => {
    await assert.rejects(loadKubeConfig(new Files(), [write(folder(), cluster, user)]), message);
  });
}

test('half a file is told as such', async () => {
  const path = join(folder(), 'config');
  writeFileSync(path, 'clusters: [{name: c, clus');
  await assert.rejects(loadKubeConfig(new Files(), [path]), /not YAML|not a kubeconfig|no entry/);
  writeFileSync(path, 'current-context: here\n');
  await assert.rejects(loadKubeConfig(new Files(), [path]), /no entry "here" in contexts/);
});

test('nothing of a broken kubeconfig is quoted, neither in the error nor in a warning', async (t) => {
  const path = join(folder(), 'config');
  const warned = t.mock.method(process, 'emitWarning', () => undefined);
  for (const text of ['a: 1\ntoken: "s3cret" more\n', 'token: *s3cret\n', 'token: !!odd s3cret\n']) {
    writeFileSync(path, text);
    await assert.rejects(loadKubeConfig(new Files(), [path]), (error: unknown) => {
      assert.ok(!inspect(error).includes('s3cret'), inspect(error));
      return true;
    });
  }
  assert.equal(warned.mock.callCount(), 0);
});
