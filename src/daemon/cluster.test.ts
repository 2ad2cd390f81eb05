import assert from 'node:assert/strict';
import { test } from 'node:test';
import { comesFromLan, marksIn, podNameOf } from '#daemon/cluster.ts';
import { version } from '#daemon/identity.ts';
import { Files } from '#host/files.ts';
import { known } from '#lib/observed.ts';
import type { Link, LinkKind } from '#state/facts.ts';
import { initialFacts } from '#state/observatory.ts';

const condition = (code: string) =>
  ({ code, severity: 'error', message: `${code}!`, remedy: '', fixedBy: [] }) as const;

test('the node object says nothing of mounts that nobody has looked at', () => {
  assert.deepEqual(marksIn({ reported: {}, mountsTried: true }), {
    version,
    mountsReady: undefined,
    mounts: undefined,
  });
});

test('the node object says nothing of mounts while some of them are still being tried', () => {
  const marks = marksIn({ reported: { storage: [] }, mountsTried: false });
  assert.deepEqual(marks, { version, mountsReady: undefined, mounts: undefined });
});

test('mounts are ready unless one is dead or could not be made; which one is told', () => {
  const marks = (...codes: string[]) =>
    marksIn({ reported: { storage: codes.map(condition) }, mountsTried: true });
  assert.deepEqual(marks(), { version, mountsReady: true, mounts: undefined });
  assert.deepEqual(marks('mount_read_only'), { version, mountsReady: true, mounts: undefined });
  assert.deepEqual(marks('mount_dead', 'mount_failed'), {
    version,
    mountsReady: false,
    mounts: 'mount_dead! mount_failed!',
  });
});

test('a pod is named by the uid that its cgroup shows, as long as the cluster has told of it', () => {
  const pod = { uid: 'u1', namespace: 'os-framework', name: 'files-0', serviceAccount: 'files' };
  const rest = { addresses: [], hostNetwork: false, running: true, terminating: false, images: [] };
  const watch = { localPods: new Map([['os-framework/files-0', { ...pod, ...rest }]]) };
  assert.equal(podNameOf(watch, 'u1'), 'os-framework/files-0');
  assert.equal(podNameOf(watch, 'u2'), undefined);
});

/** A machine with a pod network, a LAN and a tunnel. */
class Routed extends Files {
  override readText(path: string): string | undefined {
    if (path !== '/proc/net/route') return undefined;
    const row = (device: string, net: string, mask: string) =>
      `${device}\t${net}\t00000000\t0001\t0\t0\t0\t${mask}\t0\t0\t0`;
    return [
      row('eth0', '00000000', '00000000'),
      row('eth0', '0001A8C0', '00FFFFFF'),
      row('cni0', '00002A0A', '00FFFFFF'),
      row('tailscale0', '00004064', '0000FFFF'),
      row('odd0', '0000630A', '0000FFFF'),
    ].join('\n');
  }
}

const link = (name: string, kind: LinkKind): Link => ({
  ...{ name, kind, up: true, carrier: true, mtu: 1500, mac: '', master: undefined, addresses: [] },
});

for (const [address, lan] of [
  ['10.42.0.7', false],
  ['192.168.1.7', true],
  ['100.64.0.7', true],
  ['8.8.8.8', true],
  ['10.99.0.7', true],
] as const) {
  test(`${address} ${lan ? 'comes from outside' : 'comes from a pod'}`, () => {
    const links = [link('eth0', 'ethernet'), link('cni0', 'container'), link('tailscale0', 'tunnel')];
    const network = known({ links, defaultRoutes: [] }, 'test', 0);
    assert.equal(comesFromLan(new Routed(), { ...initialFacts(0), network }, address), lan);
  });
}

test('while the links are not known nobody comes from a pod', () => {
  assert.equal(comesFromLan(new Routed(), initialFacts(0), '10.42.0.7'), true);
});
