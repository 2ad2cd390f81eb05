import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { runtimePlace } from '#containerd/address.ts';
import { Files } from '#host/files.ts';

test("the runtime is the one that was named, else containerd's own, else that of k3s", () => {
  const root = mkdtempSync(join(tmpdir(), 'beosd-place-'));
  const files = new Files(root);
  const own = join(root, 'run/containerd/containerd.sock');
  const k3s = join(root, 'run/k3s/containerd/containerd.sock');
  const touch = (path: string) => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '');
  };
  assert.equal(runtimePlace(files, undefined).socket, own, 'what a person expects, when neither is there');
  touch(k3s);
  const embedded = runtimePlace(files, undefined);
  assert.deepEqual(
    [embedded.socket, embedded.k3s, embedded.configFile],
    [k3s, true, join(root, 'var/lib/rancher/k3s/agent/etc/containerd/config.toml')],
  );
  touch(own);
  const plain = runtimePlace(files, undefined);
  assert.deepEqual(
    [plain.socket, plain.k3s, plain.certsDir],
    [own, false, join(root, 'etc/containerd/certs.d')],
  );
  assert.equal(runtimePlace(files, 'unix:///elsewhere/c.sock').socket, '/elsewhere/c.sock');
  assert.equal(runtimePlace(files, '/elsewhere/c.sock').socket, '/elsewhere/c.sock');
});
