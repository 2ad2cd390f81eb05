import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Status } from '#api/status.ts';
import { profiles } from '#daemon/profiles.ts';
import { ask } from '../support/daemon-process.ts';
import { KubeFake } from '../support/kube-fake.ts';
import { Helper } from '../support/kube-helper.ts';
import { KubeWorld } from '../support/kube-world.ts';
import { SseReader } from '../support/sse.ts';

const names = profiles.beos.kube;
const withinMs = 5000;

function token(fake: KubeFake, account: string, audience = 'beosd'): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const sub = `system:serviceaccount:os-framework:${account}`;
  const made = `${part({ alg: 'RS256' })}.${part({ aud: [audience], sub, exp: Date.now() / 1000 + 600 })}.c2ln`;
  fake.tokens.set(made, { authenticated: true, audiences: [audience], user: { username: sub } });
  return made;
}

describe('the whole daemon with a cluster', () => {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-kube-daemon-'));
  let fake: KubeFake;
  let world: KubeWorld;
  let daemon: Helper;
  let port = 0;

  before(async () => {
    fake = await KubeFake.start();
    world = new KubeWorld(fake);
    await world.define(names);
    await world.node(hostname(), { address: '203.0.113.1' });
    await world.pod('os-framework', 'app-service');
    writeFileSync(join(dir, 'kubeconfig'), fake.kubeconfig());
    mkdirSync(join(dir, 'data/base'), { recursive: true });
    writeFileSync(join(dir, 'data/base/.installed'), '1.12.0 k3s');
    const hourAgo = Date.now() / 1000 - 3600;
    utimesSync(join(dir, 'data/base/.installed'), hourAgo, hourAgo);
    daemon = new Helper('kube-daemon.ts', [dir, join(dir, 'kubeconfig')]);
    ({ port } = await daemon.line<{ port: number }>());
  });

  after(async () => {
    await daemon?.end();
    await fake?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  /** The status, as soon as it is as it should be. */
  async function status(what: string, fits: (status: Status) => boolean): Promise<Status> {
    const deadline = performance.now() + withinMs;
    for (;;) {
      const now = (await ask(port, { path: '/system/status' })).json.data as Status;
      if (fits(now)) return now;
      if (performance.now() > deadline) throw new Error(`${what}: ${JSON.stringify(now)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  test('a daemon that starts beside a cluster that is well never says that something is broken', async () => {
    const reader = new SseReader(join(dir, 'data/beosd.sock'), 0);
    await reader.until(({ data }) => data['state'] === 'invalid-ip-address');
    reader.cut();
    const states = reader.events.flatMap(({ event, data }) => (event === 'state' ? [data['state']] : []));
    // The node object has an address that is none of ours, and that is all there is to say.
    assert.deepEqual(states, ['invalid-ip-address']);
  });

  test('release, owner and pressures are in the status', async () => {
    await world.system(names, '1.12.7');
    await world.user(names, 'alice', { wizard: 'completed' });
    const now = await status('the owner', ({ terminusName }) => terminusName === 'alice@example.com');
    assert.equal(now.terminusVersion, '1.12.7');
    assert.equal(typeof now.installedTime, 'number');
  });

  test('a sick key pod is a condition that names it', async () => {
    await world.pod('os-framework', 'suspect', { waiting: 'CrashLoopBackOff' });
    await status('the condition', ({ conditions }) => conditions.includes('pod_unhealthy'));
    const { json } = await ask(join(dir, 'data/beosd.sock'), { path: '/system/conditions' });
    assert.match(JSON.stringify(json.data), /os-framework\/suspect \(CrashLoopBackOff\)/);
    await world.removePod('os-framework', 'suspect');
    await status('no condition', ({ conditions }) => !conditions.includes('pod_unhealthy'));
  });

  test('a token proves a workload, and the audit names its account', async () => {
    const headers = { authorization: `Bearer ${token(fake, 'files')}` };
    assert.equal((await ask(port, { path: '/system/hosts-file', headers })).status, 200);
    assert.equal((await ask(port, { path: '/system/hosts-file' })).status, 403);
    const other = { authorization: `Bearer ${token(fake, 'files', 'elsewhere')}` };
    assert.equal((await ask(port, { path: '/system/hosts-file', headers: other })).status, 403);
    const body = JSON.stringify({ items: [{ ip: '192.0.2.7', host: 'nas.example' }] });
    const sent = { ...headers, 'content-type': 'application/json' };
    const answer = await ask(port, { method: 'POST', path: '/system/hosts-file', headers: sent, body });
    assert.equal(answer.status, 200, answer.text);
    const audit = await ask(join(dir, 'data/beosd.sock'), { path: '/audit' });
    assert.match(audit.text, /"caller":"workload os-framework\/files","proof":"token"/);
  });

  test('with the API server away a new token is 503 and names what is missing, a known one still counts', async () => {
    const known = { authorization: `Bearer ${token(fake, 'files')}` };
    const fresh = { authorization: `Bearer ${token(fake, 'fresh')}` };
    assert.equal((await ask(port, { path: '/system/hosts-file', headers: known })).status, 200);
    await fake.stop();
    await status('unreachable', ({ conditions }) => conditions.includes('cluster_unreachable'));
    const answer = await ask(port, { path: '/system/hosts-file', headers: fresh });
    assert.equal(answer.status, 503);
    assert.equal(answer.json.error?.['code'], 'cluster_unavailable');
    assert.equal((await ask(port, { path: '/system/hosts-file', headers: known })).status, 200);
    const now = (await ask(port, { path: '/system/status' })).json.data as Status;
    assert.equal(now.terminusName, 'alice@example.com', 'the last truth stays');
    await fake.relisten();
    await world.system(names, '1.12.8');
    await status('back', ({ terminusVersion }) => terminusVersion === '1.12.8');
    assert.equal((await ask(port, { path: '/system/hosts-file', headers: fresh })).status, 200);
  });
});
