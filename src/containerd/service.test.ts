import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ContainerdService } from '#containerd/service.ts';
import { systemClock } from '#host/clock.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { known } from '#lib/observed.ts';
import { MemoryJournal } from '../../tests/support/fake-containerd.ts';

/** A node with a configuration of containerd and no containerd that would answer. */
function withConfig(config: string | undefined) {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-service-'));
  const place = {
    socket: join(folder, 'no.sock'),
    k3s: false,
    configFile: join(folder, 'config.toml'),
    certsDir: join(folder, 'certs.d'),
    registriesYaml: join(folder, 'registries.yaml'),
  };
  if (config !== undefined) writeFileSync(place.configFile, config.replace('CERTS', place.certsDir));
  const service = new ContainerdService({
    ...{ files: new Files(), exec: new SystemExec(), clock: systemClock, journal: new MemoryJournal() },
    imageUse: { lastUsed: () => new Map(), note: () => undefined },
    unit: { check: async () => undefined, restart: async () => undefined },
    address: undefined,
    outside: false,
    protectedReferences: () => known([], 'test', 0),
    usage: async () => ({ totalBytes: 0, availableBytes: 0 }),
    installed: () => false,
    admit: () => undefined,
    publish: () => undefined,
    report: () => undefined,
    binary: join(folder, 'no-containerd'),
    place: () => place,
  });
  return { service, certsDir: place.certsDir };
}

const registry = '[plugins."io.containerd.grpc.v1.cri".registry]';

test('the hosts that images are pulled from are those of all mirrors, wherever they stand', async () => {
  const { service, certsDir } = withConfig(`version = 2\n${registry}\n  config_path = "CERTS"\n`);
  for (const [name, text] of [
    ['docker.io', '[host."http://mirror.lan:5000"]\n[host."https://hub.example.com/v2"]\n'],
    ['quay.io', '[host."http://MIRROR.lan"]\n'],
  ] as const) {
    mkdirSync(join(certsDir, name), { recursive: true });
    writeFileSync(join(certsDir, name, 'hosts.toml'), text);
  }
  assert.deepEqual((await service.mirrorHosts()).sort(), ['hub.example.com', 'mirror.lan']);
  const mirrors = 'mirrors."docker.io"]\n  endpoint = ["http://inline.lan:5000", "bare.lan"]\n';
  const inline = withConfig(`version = 2\n${registry.replace(']', '')}.${mirrors}`);
  assert.deepEqual((await inline.service.mirrorHosts()).sort(), ['bare.lan', 'inline.lan']);
});

test('without a runtime there are none; of a configuration that cannot be read nobody knows', async () => {
  assert.deepEqual(await withConfig(undefined).service.mirrorHosts(), []);
  await assert.rejects(withConfig('version = [').service.mirrorHosts(), /config\.toml/);
});
