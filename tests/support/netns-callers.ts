/** Runs inside the network namespace of a node: real API server, whole daemon, callers from namespaces beside it. */
import { execFile } from 'node:child_process';
import { createPrivateKey, createSign } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { readConfig } from '#daemon/config.ts';
import { startDaemon } from '#daemon/daemon.ts';
import { systemClock } from '#host/clock.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { KubeApiServer } from './kube-apiserver.ts';
import { KubeWorld } from './kube-world.ts';

const run = promisify(execFile);
const [dir = '', lan = '', podA = '', podB = ''] = process.argv.slice(2);
const trusted = 'os-framework';
const nodeAddress = '192.168.77.1';

interface Sent {
  readonly from?: string;
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly localAddress?: string;
  readonly to?: string;
}

/** One request out of a namespace (or ours); the status, or why there is none. */
async function call(port: number, sent: Sent = {}): Promise<string> {
  const script = `
    const [to, port, method, path, headers, localAddress] = JSON.parse(process.argv[1]);
    const body = method === 'POST' ? JSON.stringify({ items: [] }) : undefined;
    const request = require('node:http').request(
      { host: to, port, method, path, timeout: 5000, ...(localAddress ? { localAddress } : {}),
        headers: { ...headers, ...(body ? { 'content-type': 'application/json' } : {}) } },
      (response) => { response.resume(); console.log(response.statusCode); });
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', (error) => console.log(error.code ?? error.message));
    request.end(body);`;
  const {
    method = 'GET',
    path = '/system/hosts-file',
    headers = {},
    localAddress = '',
    to = nodeAddress,
  } = sent;
  const node = [
    process.execPath,
    '-e',
    script,
    JSON.stringify([to, port, method, path, headers, localAddress]),
  ];
  const argv = sent.from === undefined ? node : ['ip', 'netns', 'exec', sent.from, ...node];
  const { stdout } = await run(argv[0] ?? '', argv.slice(1), { timeout: 30_000 });
  return stdout.trim();
}

function sign(server: KubeApiServer, claims: Record<string, unknown>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'RS256' })}.${part({ iss: 'https://kubernetes.default.svc', aud: ['beosd'], ...claims })}`;
  const key = createPrivateKey(readFileSync(join(server.dir, 'sa.key')));
  return `${text}.${createSign('sha256').update(text).sign(key).toString('base64url')}`;
}

async function account(server: KubeApiServer, namespace: string, name: string): Promise<string> {
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts`;
  const made = await server.must('POST', path, {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name },
  });
  return (made as { metadata: { uid: string } }).metadata.uid;
}

async function uidOf(server: KubeApiServer, path: string): Promise<string> {
  return ((await server.must('GET', path)) as { metadata: { uid: string } }).metadata.uid;
}

async function isAuthentic(server: KubeApiServer, token: string): Promise<boolean> {
  const review = await server.must('POST', '/apis/authentication.k8s.io/v1/tokenreviews', {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenReview',
    spec: { token, audiences: ['beosd'] },
  });
  return (review as { status: { authenticated?: boolean } }).status.authenticated === true;
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 15_000;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within 15 s: ${what}`);
    await delay(20);
  }
}

async function main(): Promise<void> {
  const server = await KubeApiServer.start();
  const world = new KubeWorld(server);
  await world.node('node-1', { address: nodeAddress });
  await world.pod(trusted, 'files', { ip: '10.42.0.10', serviceAccount: 'files' });
  await world.pod('default', 'other', { ip: '10.42.0.11' });
  await world.pod(trusted, 'host', { ip: nodeAddress, hostNetwork: true });
  await world.pod(trusted, 'spoofed', { ip: '10.42.0.12' });
  await world.pod(trusted, 'off-link', { ip: '10.99.0.12' });
  mkdirSync(join(dir, 'root/etc'), { recursive: true });
  writeFileSync(join(dir, 'root/etc/hosts'), '127.0.0.1 localhost\n');
  writeFileSync(join(dir, 'kubeconfig'), server.kubeconfig());
  const argv = ['--system', '--root', join(dir, 'root'), '--data-dir', join(dir, 'data'), '--port', '0'];
  const env = {
    KUBECONFIG: join(dir, 'kubeconfig'),
    BEOSD_LISTEN: '0.0.0.0',
    BEOSD_SOCKET: join(dir, 'sock'),
  };
  const listen = ['--listen', '0.0.0.0', '--socket', join(dir, 'sock')];
  const command = readConfig([...argv, ...listen], env, dir, () => undefined);
  if (command.kind !== 'run') throw new Error('no configuration');
  const quiet = () => undefined;
  const daemon = await startDaemon(command.config, {
    clock: systemClock,
    exec: new SystemExec(),
    files: new Files(command.config.root),
    log: {
      info: quiet,
      warn: quiet,
      error: (data, message) => console.error(message, JSON.stringify(data)),
      debug: quiet,
    },
    env,
  });
  const results: Record<string, string | number> = {};
  try {
    await matrix(server, world, daemon.port, results);
  } finally {
    await daemon.close();
    await server.stop();
  }
  console.log(JSON.stringify(results));
}

async function matrix(
  server: KubeApiServer,
  world: KubeWorld,
  port: number,
  results: Record<string, string | number>,
): Promise<void> {
  // The daemon has read the pods of its node when the first of them is served.
  await until('the pod is served', async () => (await call(port, { from: podA })) === '200');
  const forwarded = { 'x-forwarded-for': '10.42.0.10' };
  const post = { method: 'POST' };
  const note = async (name: string, sent: Sent) => {
    results[name] = await call(port, sent);
  };
  await note('pod of a trusted namespace', { from: podA });
  await note('pod, temp_signature', { from: podA, headers: { 'x-signature': 'temp_signature' } });
  await note('pod, a cookie as signature', { from: podA, headers: { 'x-signature': 'auth_token=abc' } });
  await note('pod, read through a proxy', { from: podA, headers: forwarded });
  await note('pod, write', { from: podA, ...post });
  await note('pod, write through a proxy', { from: podA, ...post, headers: forwarded });
  await note('pod, write with Via', { from: podA, ...post, headers: { via: '1.1 proxy' } });
  await note('pod, a route of ours', { from: podA, path: '/jobs' });
  await note('pod of another namespace', { from: podB });
  await note('hostNetwork pod', { to: nodeAddress, localAddress: nodeAddress });
  await note('loopback', { to: '127.0.0.1' });
  await note('loopback, metrics', { to: '127.0.0.1', path: '/metrics' });
  await note('LAN host', { from: lan });
  await note('LAN host, metrics', { from: lan, path: '/metrics' });
  await note('LAN host, says it is forwarded for a pod', { from: lan, headers: forwarded });
  await note('LAN host from the address of a pod', { from: lan, localAddress: '10.42.0.12' });
  await note('LAN host from an address that only the pod list knows', {
    from: lan,
    localAddress: '10.99.0.12',
  });
  await note('tailnet', { from: lan, localAddress: '100.64.0.5', to: '100.64.0.1' });
  await tokens(server, port, note);
  await goes(world, port, results);
  await down(server, port, note);
}

type Note = (name: string, sent: Sent) => Promise<void>;
const bearer = (token: string) => ({ from: lan, headers: { authorization: `Bearer ${token}` } });
let kept = '';

async function tokens(server: KubeApiServer, port: number, note: Note): Promise<void> {
  const uid = await account(server, trusted, 'files');
  const shortLived = await account(server, trusted, 'gone');
  await account(server, 'default', 'stranger');
  const pod = { name: 'files', uid: await uidOf(server, `/api/v1/namespaces/${trusted}/pods/files`) };
  const request = async (namespace: string, name: string, audience: string) => {
    const spec = { audiences: [audience], expirationSeconds: 600 };
    const body = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
    const made = await server.must(
      'POST',
      `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`,
      body,
    );
    return (made as { status: { token: string } }).status.token;
  };
  const now = Math.floor(Date.now() / 1000);
  const claims = (name: string, id: string, exp: number) => ({
    sub: `system:serviceaccount:${trusted}:${name}`,
    exp,
    nbf: now - 100,
    iat: now - 100,
    'kubernetes.io': { namespace: trusted, serviceaccount: { name, uid: id }, pod },
  });
  await note('token', bearer(await request(trusted, 'files', 'beosd')));
  kept = sign(server, claims('files', uid, now + 600));
  await note('token of a pod', bearer(kept));
  await note(
    'token for another audience',
    bearer(await request(trusted, 'files', 'https://kubernetes.default.svc')),
  );
  await note('token of another namespace', bearer(await request('default', 'stranger', 'beosd')));
  await note('token that has expired', bearer(sign(server, claims('files', uid, now - 5))));
  await note('token that nobody signed', bearer(`${kept.slice(0, kept.lastIndexOf('.'))}.AAAA`));
  const soon = sign(server, claims('gone', shortLived, now + 500));
  await server.must('DELETE', `/api/v1/namespaces/${trusted}/serviceaccounts/gone`);
  await until('the server knows of the removal', async () => {
    // Another token each time: the server remembers for a while what it has said of one.
    const jti = performance.now().toString();
    const token = sign(server, { ...claims('gone', shortLived, now + 500), jti });
    return !(await isAuthentic(server, token));
  });
  await note('token of a deleted account', bearer(soon));
  await call(port);
}

/** How fast a pod that has gone loses its rights, by address and by token. */
async function goes(world: KubeWorld, port: number, results: Record<string, string | number>): Promise<void> {
  results['token before its pod goes'] = await call(port, bearer(kept));
  await world.removePod(trusted, 'files');
  const gone = performance.now();
  results['token after its pod has gone'] = await call(port, bearer(kept));
  results['pod that has gone'] = await call(port, { from: podA });
  results['ms until both were refused'] = Math.round(performance.now() - gone);
}

async function down(server: KubeApiServer, port: number, note: Note): Promise<void> {
  const uid = await uidOf(server, `/api/v1/namespaces/${trusted}/serviceaccounts/files`);
  const now = Math.floor(Date.now() / 1000);
  const make = (jti: string) =>
    sign(server, {
      sub: `system:serviceaccount:${trusted}:files`,
      exp: now + 600,
      jti,
      'kubernetes.io': { namespace: trusted, serviceaccount: { name: 'files', uid } },
    });
  const [known, fresh] = [make('known'), make('fresh')];
  await note('token, kept before the API server went', bearer(known));
  const world = new KubeWorld(server);
  await world.pod(trusted, 'files-2', { ip: '10.42.0.10' });
  await until('the pod is served', async () => (await call(port, { from: podA })) === '200');
  await server.stopApi();
  await delay(300);
  await note('API server down: token that is kept', bearer(known));
  await note('API server down: token that is new', bearer(fresh));
  await note('API server down: pod that was known', { from: podA });
  await note('API server down: LAN host', { from: lan });
}

await main();
