import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { settled, TestContainerd, theContainerd, until, whyNot } from '../support/containerd.ts';
import { ask, askAsRoot, startDaemonProcess } from '../support/daemon-process.ts';
import { makeImage } from '../support/oci.ts';
import { SseReader } from '../support/sse.ts';

interface Image {
  readonly id: string;
  readonly repo_tags: string[];
  readonly size: number;
}

/** A daemon of the sandbox over a real containerd; what it writes for the runtime is what the runtime reads. */
async function daemonOver(containerd: TestContainerd) {
  const dataDir = join(containerd.folder, 'data');
  mkdirSync(join(dataDir, 'root', 'etc'), { recursive: true });
  symlinkSync(join(containerd.folder, 'etc'), join(dataDir, 'root', 'etc', 'containerd'));
  const env = { CONTAINERD_ADDRESS: `unix://${containerd.socket}` };
  const daemon = await startDaemonProcess({ dataDir, env });
  await settled(daemon);
  return daemon;
}

test('images over HTTP, as ctr sees them: list, registries, delete by any spelling, prune', {
  skip: whyNot(1),
}, async () => {
  await using containerd = new TestContainerd(theContainerd(1));
  await containerd.start();
  await containerd.import({
    'docker.io/library/one:1': makeImage('one'),
    'lab.local/deep/er/two:2': makeImage('two'),
    'lab.local/three:3': makeImage('three'),
    'lab.local/sandbox:1': makeImage('sandbox'),
  });
  await using daemon = await daemonOver(containerd);
  const list = async () => (await askAsRoot(daemon, 'GET', '/containerd/images/')).json.data as Image[];
  const images = await list();
  assert.equal(images.length, 4);
  assert.equal(
    images.find((each) => each.repo_tags[0] === 'docker.io/library/one:1')?.id,
    makeImage('one').id,
  );
  assert.ok(images.every(({ size }) => typeof size === 'number' && size > 0));
  const registries = await askAsRoot(daemon, 'GET', '/containerd/registries');
  assert.deepEqual(
    (registries.json.data as { name: string; image_count: number }[]).map((each) => [
      each.name,
      each.image_count,
    ]),
    [
      ['docker.io', 1],
      ['lab.local', 3],
    ],
  );
  // An image younger than the grace period is not pruned; the dry run says so of each.
  const dry = await askAsRoot(daemon, 'POST', '/containerd/images/prune?dryRun=true');
  const plan = dry.json.data as { allowed: boolean; count: number; kept: { reasons: string[] }[] };
  assert.equal(plan.allowed, true);
  assert.equal(plan.count, 0);
  assert.equal(plan.kept.length, 4);
  assert.ok(plan.kept.every(({ reasons }) => reasons.some((reason) => /minutes ago|sandbox/.test(reason))));
  const run = await askAsRoot(daemon, 'POST', '/containerd/images/prune', {});
  assert.deepEqual(run.json.data, { images: [], count: 0, size: 0 });
  for (const spelling of ['one:1', 'lab.local/deep/er/two:2', encodeURIComponent('lab.local/three:3')]) {
    const gone = await askAsRoot(daemon, 'DELETE', `/containerd/images/${spelling}`);
    assert.equal(gone.status, 200, `${spelling}: ${gone.text}`);
  }
  const kept = await askAsRoot(daemon, 'DELETE', '/containerd/images/lab.local/sandbox:1');
  assert.equal(kept.status, 409);
  assert.match(kept.json.message, /sandbox image/);
  assert.equal((await askAsRoot(daemon, 'DELETE', '/containerd/images/one:1')).status, 404);
  assert.deepEqual(
    (await list()).map(({ repo_tags }) => repo_tags),
    [['lab.local/sandbox:1']],
  );
  assert.ok(!containerd.ctr('images', 'list', '-q').includes('one'));
});

test('a runtime that comes back is noticed; an image that goes is an event', {
  skip: whyNot(1),
}, async () => {
  await using containerd = new TestContainerd(theContainerd(1));
  await using daemon = await daemonOver(containerd);
  const status = async () => (await askAsRoot(daemon, 'GET', '/containerd/images/')).status;
  assert.equal(await status(), 503);
  await containerd.start();
  await until(async () => (await status()) === 200, 10_000);
  await containerd.import({ 'lab.local/a:1': makeImage('a') });
  const events = new SseReader(join(daemon.dataDir, 'beosd.sock'), 0);
  assert.equal((await askAsRoot(daemon, 'DELETE', '/containerd/images/lab.local/a:1')).status, 200);
  await events.until(({ event, data }) => event === 'image' && data['image'] === makeImage('a').id);
  events.cut();
});

test('the sandbox never restarts a runtime: a configuration without certs.d is refused untouched', {
  skip: whyNot(1),
}, async () => {
  await using containerd = new TestContainerd(theContainerd(1));
  await containerd.start();
  await using daemon = await daemonOver(containerd);
  const before = readFileSync(containerd.configFile);
  const answer = await askAsRoot(daemon, 'PUT', '/containerd/registry/mirrors/docker.io', {
    endpoint: ['https://m.invalid'],
  });
  assert.equal(answer.status, 403, answer.text);
  assert.equal(answer.json.error?.['code'], 'sandbox');
  assert.deepEqual(readFileSync(containerd.configFile), before);
  writeFileSync(containerd.configFile, 'version = 2\n[plugins\n');
  const broken = await askAsRoot(daemon, 'GET', '/containerd/registry/mirrors/');
  assert.equal(broken.status, 503);
  assert.match(broken.json.message, /config\.toml/);
  assert.equal((await ask(daemon.port, { path: '/system/status' })).status, 200);
});
