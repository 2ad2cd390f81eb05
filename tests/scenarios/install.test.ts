import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createKey, signLegacy } from '#client/sign.ts';
import { ask } from '../support/daemon-process.ts';
import { InstallNode } from '../support/install-node.ts';
import { SseReader } from '../support/sse.ts';

const install = { username: 'alice', domain: 'example.com', password: 'canary-4711-secret' };

test('a signed install runs to 100 %: progress only rises, the signer owns the node, the state follows', async () => {
  const node = new InstallNode();
  node.play('success', 0.15);
  await using daemon = await node.start();
  const events = new SseReader(daemon.port, 0); // from the first event on, however late it connects
  assert.equal((await node.status()).owned, false);
  const answer = await node.signedLegacy('POST', '/command/install', install);
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.json.message, 'start to install');
  const { jobId } = answer.json.data as { jobId: string };
  await events.until(
    ({ event, data }) => event === 'job' && data['id'] === jobId && data['state'] === 'succeeded',
  );
  const percents = events.events
    .filter(({ event, data }) => event === 'job' && data['id'] === jobId)
    .map(({ data }) => Number(data['percent'] ?? 0));
  assert.deepEqual(
    percents,
    percents.toSorted((a, b) => a - b),
  );
  assert.equal(percents.at(-1), 100);
  assert.ok(new Set(percents).size >= 4, `real steps in between: ${percents.join(' ')}`);
  const states = events.events.filter(({ event }) => event === 'state').map(({ data }) => data['state']);
  assert.ok(states.includes('installing'), states.join(' '));
  assert.ok(!states.includes('install-failed'));
  const status = await node.status();
  assert.equal(status.owned, true);
  assert.notEqual(status.terminusState, 'installing');
  assert.notEqual(status.terminusState, 'not-installed');
  assert.equal(status.installingProgress, '100%');
  assert.deepEqual(node.left('seen'), ['file 600']);
  events.cut();
});

test('the password is nowhere afterwards: not in the data dir, the journal, the log, or an answer', async () => {
  const node = new InstallNode();
  await using daemon = await node.start();
  const answer = await node.signedBound('POST', '/command/install', install);
  const { jobId } = answer.json.data as { jobId: string };
  assert.equal((await node.ended(jobId)).state, 'succeeded');
  const log = await ask(join(daemon.dataDir, 'beosd.sock'), { path: `/jobs/${jobId}/log` });
  assert.ok((log.json.data as { lines: string[] }).lines.length > 5, log.text);
  assert.doesNotMatch(log.text, /canary/);
  assert.doesNotMatch(daemon.log(), /canary/);
  await daemon.stop();
  for (const name of readdirSync(daemon.dataDir, { recursive: true, encoding: 'utf8' })) {
    const path = join(daemon.dataDir, name);
    if (statSync(path).isFile()) assert.ok(!readFileSync(path).includes('canary-4711'), path);
  }
});

test('a missing password is generated, told once, and not kept for the Idempotency-Key', async () => {
  const node = new InstallNode();
  await using daemon = await node.start();
  const { nodeId } = await node.status();
  const { signBound } = await import('#client/sign.ts');
  const send = async () => {
    const rawBody = JSON.stringify({ username: 'alice' });
    const jws = signBound(node.key, {
      now: Date.now(),
      method: 'POST',
      path: '/command/install',
      rawBody,
      nodeId,
    });
    const headers = { 'x-signature': jws, 'content-type': 'application/json', 'idempotency-key': 'once' };
    return await ask(daemon.port, { method: 'POST', path: '/command/install', headers, body: rawBody });
  };
  const first = (await send()).json.data as { jobId: string; initialPassword?: string };
  assert.match(first.initialPassword ?? '', /^\S{32}$/);
  await node.ended(first.jobId);
  const second = await send();
  assert.deepEqual(second.json.data, { jobId: first.jobId }, second.text);
  assert.equal(node.left('starts').length, 1);
});

test('a failed install says so, keeps its owner for the uninstall, and uninstall frees the node', async () => {
  const node = new InstallNode();
  node.play('fail');
  await using _daemon = await node.start();
  const { jobId } = (await node.signedLegacy('POST', '/command/install', install)).json.data as {
    jobId: string;
  };
  const job = await node.ended(jobId);
  assert.equal(job.state, 'failed');
  assert.match(job.error?.message ?? '', /ended with code 1\b/);
  assert.equal((await node.status()).terminusState, 'install-failed');
  node.play('success');
  const answer = await node.signedLegacy('POST', '/command/uninstall', {}, { username: 'alice' });
  assert.equal(answer.status, 200, answer.text);
  const { jobId: second } = answer.json.data as { jobId: string };
  assert.equal((await node.ended(second)).state, 'succeeded');
  const status = await node.status();
  assert.equal(status.terminusState, 'not-installed');
  assert.equal(status.owned, false);
  assert.equal(status.installingProgress, '');
});

test('somebody else cannot take over a node that is being installed, and uninstall stops a running install', async () => {
  const node = new InstallNode();
  node.play('hang');
  await using _daemon = await node.start();
  const { jobId } = (await node.signedLegacy('POST', '/command/install', install)).json.data as {
    jobId: string;
  };
  await node.started(1);
  const stranger = new InstallNode();
  Object.defineProperty(stranger, 'daemon', { get: () => node.daemon });
  const refused = await stranger.signedLegacy('POST', '/command/uninstall', {}, { username: 'mallory' });
  assert.equal(refused.status, 403);
  assert.equal(refused.json.error?.['code'], 'not_owner');
  const again = await node.signedLegacy('POST', '/command/install', install);
  assert.equal(again.status, 403, again.text);
  assert.equal(again.json.error?.['code'], 'state_forbids');
  node.play('success');
  const answer = await node.signedLegacy('POST', '/command/uninstall', {}, { username: 'alice' });
  const { jobId: uninstall } = answer.json.data as { jobId: string };
  assert.equal((await node.ended(uninstall, 60_000)).state, 'succeeded', answer.text);
  assert.equal((await node.job(jobId)).state, 'cancelled');
  assert.equal(node.left('starts').length, 2);
});

test('an old log that already ends in "All done" does not count', async () => {
  const node = new InstallNode();
  node.play('success', 0.2);
  await using _daemon = await node.start();
  const { mkdirSync, writeFileSync } = await import('node:fs');
  const logs = join(node.dir, 'base', 'versions', 'v0.1.0', 'logs');
  mkdirSync(logs, { recursive: true });
  writeFileSync(
    join(logs, 'install.log'),
    '2026-01-01T00:00:00.000Z\tInstallation wizard is complete\n2026\tAll done\n',
  );
  const { jobId } = (await node.signedLegacy('POST', '/command/install', install)).json.data as {
    jobId: string;
  };
  const early = await node.job(jobId);
  assert.equal(early.state, 'running');
  assert.ok((early.percent ?? 0) < 50, String(early.percent));
  assert.equal((await node.ended(jobId)).state, 'succeeded');
});

test('a failed install is remembered across a restart: the node is not free for the next one who comes', async () => {
  const node = new InstallNode();
  node.play('fail');
  await node.start();
  const answer = await node.signedBound('POST', '/command/install', { username: 'alice', password: 'x' });
  await node.ended((answer.json.data as { jobId: string }).jobId);
  await node.daemon.stop();
  await using _daemon = await node.start();
  const status = await node.status();
  assert.equal(status.terminusState, 'install-failed');
  const neighbour = createKey();
  const jws = signLegacy(neighbour, { now: Date.now(), body: { username: 'mallory' }, domain: '' });
  const taken = await ask(node.daemon.port, {
    method: 'POST',
    path: '/command/install',
    headers: { 'x-signature': jws, 'content-type': 'application/json' },
    body: JSON.stringify({ username: 'mallory' }),
  });
  assert.equal(taken.status, 403, taken.text);
  assert.equal(taken.json.error?.['code'], 'not_owner');
});
