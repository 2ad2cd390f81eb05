import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { InstallNode } from '../support/install-node.ts';
import { randomFrom } from '../support/random.ts';

const install = { username: 'alice', domain: 'example.com', password: 'canary-4711-secret' };

/** An install that takes about two seconds, the daemon killed `after` ms from the answer and started again. */
async function installWithKill(mode: 'success' | 'fail', after: number) {
  const node = new InstallNode();
  node.play(mode, 0.1);
  await node.start();
  const answer = await node.signedLegacy('POST', '/command/install', install);
  assert.equal(answer.status, 200, answer.text);
  const { jobId } = answer.json.data as { jobId: string };
  await pause(after);
  await node.daemon.kill();
  await using _daemon = await node.start();
  const job = await node.ended(jobId);
  return { node, job, starts: node.left('starts').length, status: await node.status() };
}

test('kill -9 at 20 random moments of an install: never killed, never started twice, the true result', async (context) => {
  const random = randomFrom(context, 20261123);
  for (let round = 0; round < 20; round++) {
    const mode = round % 4 === 3 ? 'fail' : 'success';
    const after = Math.floor(random() * (mode === 'fail' ? 900 : 2400));
    const { job, starts, status } = await installWithKill(mode, after);
    const where = `round ${round}: ${mode}, killed after ${after} ms`;
    assert.equal(starts, 1, where);
    assert.equal(job.state, mode === 'success' ? 'succeeded' : 'failed', `${where}: ${JSON.stringify(job)}`);
    if (mode === 'success') assert.equal(job.percent, 100, where);
    else assert.match(job.error?.message ?? '', /ended with code 1\b/, `${where}: its own end, not a signal`);
    assert.equal(status.owned, true, where);
  }
});

test('a signature that was used before a kill -9 is refused after it', async () => {
  const node = new InstallNode();
  node.play('hang');
  await node.start();
  const { signLegacy } = await import('#client/sign.ts');
  const { ask } = await import('../support/daemon-process.ts');
  const jws = signLegacy(node.key, { now: Date.now(), body: install });
  const headers = { 'x-signature': jws, 'content-type': 'application/json' };
  const send = () =>
    ask(node.daemon.port, {
      method: 'POST',
      path: '/command/install',
      headers,
      body: JSON.stringify(install),
    });
  const first = await send();
  assert.equal(first.status, 200, first.text);
  await node.daemon.kill();
  await node.start();
  const second = await send();
  assert.equal(second.status, 403);
  assert.equal(second.json.error?.['code'], 'signature_reused', second.text);
  const { jobId } = (await node.signedLegacy('POST', '/command/uninstall', {}, { username: 'alice' })).json
    .data as { jobId: string };
  node.play('success');
  await node.ended(jobId, 60_000);
  await node.daemon.stop();
});

test('an install that has failed is still known as failed by the next start, and can be uninstalled', async () => {
  const node = new InstallNode();
  node.play('fail');
  await node.start();
  const { jobId } = (await node.signedLegacy('POST', '/command/install', install)).json.data as {
    jobId: string;
  };
  assert.equal((await node.ended(jobId)).state, 'failed');
  await node.daemon.kill();
  await using _daemon = await node.start();
  assert.equal((await node.status()).terminusState, 'install-failed');
  node.play('success');
  const answer = await node.signedLegacy('POST', '/command/uninstall', {}, { username: 'alice' });
  assert.equal(answer.status, 200, answer.text);
  const { jobId: uninstall } = answer.json.data as { jobId: string };
  assert.equal((await node.ended(uninstall)).state, 'succeeded');
  await node.daemon.kill();
  await using _again = await node.start();
  assert.equal((await node.status()).terminusState, 'not-installed');
});
