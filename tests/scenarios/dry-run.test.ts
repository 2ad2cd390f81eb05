import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { DryRun } from '#api/operation.ts';
import { operationNames, specOf } from '#api/operations.ts';
import { settled } from '../support/containerd.ts';
import { askAsRoot, startDaemonProcess } from '../support/daemon-process.ts';
import { InstallNode } from '../support/install-node.ts';

const share = { smbPath: '//192.0.2.1/media', user: 'a', password: 'b' };

/** What they act on is named in the request; a thing that is not there is 404, in a dry run too. */
const onSomethingNamed: ReadonlySet<string> = new Set(
  operationNames.filter((name) => /^command\.umount|^storage\./.test(name)),
);

const bodies: Record<string, unknown> = {
  'command.install': { username: 'alice' },
  'command.changeHost': { ip: '10.0.0.1' },
  'system.setHostsFile': { items: [{ ip: '10.0.0.1', host: 'a.example' }] },
  'containerd.setMirror': { endpoint: ['https://mirror.example'] },
  'command.mountSamba': share,
  'command.mountSambaV2': share,
  'command.mountNfs': { server: '192.0.2.1', sharedPath: '/export', mountPath: 'export' },
  'storage.setPolicy': { policy: 'ignore' },
  'storage.provision': { filesystem: 'ext4', label: 'data', confirm: 'serial' },
  'owner.transfer': {
    name: 'bob@example.com',
    did: 'did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK',
  },
};

/** Paths with parameters, as a client fills them in. */
const paths: Record<string, string> = {
  'containerd.setMirror': '/containerd/registry/mirrors/docker.io',
  'containerd.deleteMirror': '/containerd/registry/mirrors/docker.io',
  'containerd.deleteImage': '/containerd/images/nginx:1',
};

const planned = operationNames.filter((name) => specOf(name).dryRun === true);

function requestOf(name: (typeof planned)[number], { dataDir }: { readonly dataDir: string }) {
  const { method, path } = specOf(name);
  const target = (paths[name] ?? path).replace(':id', 'nothing');
  const absolute = /Incluster$/.test(name) ? 'stick' : join(dataDir, 'share', 'stick');
  return {
    method,
    target,
    body: bodies[name] ?? (onSomethingNamed.has(name) ? { path: absolute } : undefined),
  };
}

test('what a sandbox refuses it also refuses in a dry run', async () => {
  await using daemon = await startDaemonProcess();
  await settled(daemon); // as long as it looks at the machine it refuses for that
  const refused: string[] = [];
  for (const name of planned) {
    const { method, target, body } = requestOf(name, daemon);
    const plan = (await askAsRoot(daemon, method, `${target}?dryRun=true`, body)).json.data;
    const act = await askAsRoot(daemon, method, target, body);
    if (act.json.error?.['code'] !== 'sandbox') continue;
    refused.push(name);
    assert.equal((plan as DryRun | undefined)?.allowed, false, `${name}: ${JSON.stringify(plan)}`);
  }
  assert.ok(refused.includes('command.mountNfs') && refused.includes('command.reboot'), refused.join());
});

test('a dry run prints steps and verdicts for every operation that has one, and changes nothing', async () => {
  const node = new InstallNode();
  await using daemon = await node.start();
  const before = (await askAsRoot(daemon, 'GET', '/jobs')).json.data;
  for (const name of planned) {
    const { method, target, body } = requestOf(name, daemon);
    const reply = await askAsRoot(daemon, method, `${target}?dryRun=true`, body);
    if (onSomethingNamed.has(name) && reply.status === 404) continue;
    assert.equal(reply.status, 200, `${name}: ${reply.text}`);
    const plan = reply.json.data as DryRun;
    assert.equal(typeof plan.allowed, 'boolean', name);
    assert.equal(
      plan.allowed,
      plan.preconditions.every(({ ok }) => ok),
      `${name}: ${reply.text}`,
    );
    assert.ok(plan.steps.length > 0 || !plan.allowed, `${name}: ${reply.text}`);
  }
  assert.deepEqual((await askAsRoot(daemon, 'GET', '/jobs')).json.data, before);
  assert.equal((await node.status()).terminusState, 'not-installed');
  assert.equal(node.left('starts').length, 0);
});

test('a dry run in a state that forbids the act says so as a verdict', async () => {
  await using daemon = await startDaemonProcess();
  const { json } = await askAsRoot(daemon, 'POST', '/command/uninstall?dryRun=true');
  const plan = json.data as DryRun;
  assert.equal(plan.allowed, false);
  const state = plan.preconditions.find(({ name }) => name === 'state');
  assert.equal(state?.ok, false);
  assert.match(state?.reason ?? '', /not-installed|checking/);
});

test('who asks for a dry run where there is none does not get the act', async () => {
  await using daemon = await startDaemonProcess();
  for (const spelling of ['dryRun=true', 'DryRun=true', 'dryrun=yes', 'dryRun=true&dryRun=true']) {
    const reply = await askAsRoot(daemon, 'DELETE', `/jobs/x?${spelling}`);
    assert.equal(reply.status, 400, spelling);
    assert.equal(reply.json.error?.['field'], 'dryRun', spelling);
  }
});
