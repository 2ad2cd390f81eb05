import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { whyNoKube } from '../support/kube-apiserver.ts';

const run = promisify(execFile);
const prefix = `beosd${process.pid}`;
const [node, lan, podA, podB] = ['node', 'lan', 'a', 'b'].map((name) => `${prefix}-${name}`) as [
  string,
  string,
  string,
  string,
];

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

const inside = (namespace: string, ...args: string[]) => ip('-n', namespace, ...args);

function connect(one: string, oneLink: string, other: string, otherLink: string): void {
  inside(one, 'link', 'add', oneLink, 'type', 'veth', 'peer', 'name', otherLink, 'netns', other);
  inside(one, 'link', 'set', oneLink, 'up');
  inside(other, 'link', 'set', otherLink, 'up');
}

/** A node with a LAN, a tailnet and a pod network of two pods, each in a namespace of its own. */
function lay(): void {
  for (const namespace of [node, lan, podA, podB]) {
    ip('netns', 'add', namespace);
    inside(namespace, 'link', 'set', 'lo', 'up');
  }
  connect(node, 'eth0', lan, 'eth0');
  inside(node, 'address', 'add', '192.168.77.1/24', 'dev', 'eth0');
  for (const address of ['192.168.77.2/24', '10.42.0.12/32', '10.99.0.12/32']) {
    inside(lan, 'address', 'add', address, 'dev', 'eth0');
  }
  inside(node, 'route', 'add', 'default', 'via', '192.168.77.2');
  connect(node, 'tailscale0', lan, 'tailscale0');
  inside(node, 'address', 'add', '100.64.0.1/24', 'dev', 'tailscale0');
  inside(lan, 'address', 'add', '100.64.0.5/24', 'dev', 'tailscale0');
  inside(node, 'link', 'add', 'cni0', 'type', 'bridge');
  inside(node, 'address', 'add', '10.42.0.1/24', 'dev', 'cni0');
  inside(node, 'link', 'set', 'cni0', 'up');
  for (const [pod, address] of [
    [podA, '10.42.0.10/24'],
    [podB, '10.42.0.11/24'],
  ] as const) {
    const link = `veth${pod.at(-1)}`;
    connect(node, link, pod, 'eth0');
    inside(node, 'link', 'set', link, 'master', 'cni0');
    inside(pod, 'address', 'add', address, 'dev', 'eth0');
    inside(pod, 'route', 'add', 'default', 'via', '10.42.0.1');
  }
}

async function whyNot(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  try {
    ip('netns', 'add', `${prefix}-try`);
    ip('netns', 'del', `${prefix}-try`);
  } catch (error) {
    return `no network namespaces here: ${error instanceof Error ? error.message.split('\n')[0] : error}`;
  }
  return await whyNoKube();
}

/** What contract §5 says of each caller of GET /system/hosts-file (workload), through the whole daemon. */
const expected: Readonly<Record<string, string>> = {
  'pod of a trusted namespace': '200',
  'pod, temp_signature': '200',
  'pod, a cookie as signature': '200',
  'pod, read through a proxy': '200',
  'pod, write': '200',
  'pod, write through a proxy': '403',
  'pod, write with Via': '403',
  'pod, a route of ours': '401',
  'pod of another namespace': '403',
  'hostNetwork pod': '403',
  loopback: '403',
  'loopback, metrics': '200',
  'LAN host': '403',
  'LAN host, metrics': '401',
  'LAN host, says it is forwarded for a pod': '403',
  // The answer to its SYN goes to the pod network: there is no connection at all.
  'LAN host from the address of a pod': 'timeout',
  'LAN host from an address that only the pod list knows': '403',
  tailnet: '403',
  token: '200',
  'token of a pod': '200',
  'token for another audience': '403',
  'token of another namespace': '403',
  'token that has expired': '403',
  'token that nobody signed': '403',
  'token of a deleted account': '403',
  'token before its pod goes': '200',
  'token after its pod has gone': '403',
  'pod that has gone': '403',
  'token, kept before the API server went': '200',
  'API server down: token that is kept': '200',
  'API server down: token that is new': '503',
  'API server down: pod that was known': '200',
  'API server down: LAN host': '403',
};

describe('callers in network namespaces, with a real API server', { skip: await whyNot() }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-callers-'));
  let results: Readonly<Record<string, string | number>> = {};

  before(async () => {
    lay();
    const driver = join(import.meta.dirname, '../support/netns-callers.ts');
    const argv = ['netns', 'exec', node, process.execPath, driver, dir, lan, podA, podB];
    const { stdout } = await run('ip', argv, { timeout: 180_000, maxBuffer: 2 ** 24 });
    results = JSON.parse(stdout.trim().split('\n').at(-1) ?? '{}');
  });

  after(() => {
    for (const namespace of [node, lan, podA, podB]) ip('netns', 'del', namespace);
    rmSync(dir, { recursive: true, force: true });
  });

  for (const [caller, status] of Object.entries(expected)) {
    test(`${caller}: ${status}`, () => assert.equal(results[caller], status));
  }

  test('a pod that has gone loses its rights within a second', (context) => {
    const ms = Number(results['ms until both were refused']);
    context.diagnostic(`both proofs asked and refused ${ms} ms after the removal`);
    assert.ok(ms < 1000, `${ms} ms`);
  });
});
