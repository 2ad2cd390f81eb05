import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeConfigSource } from '#cluster/kube/kubeconfig-source.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';

const kubeconfig = (token: string) => `current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://h"}}]
users: [{name: u, user: {token: ${token}}}]
`;

/** A kubeconfig that is rewritten right after it was read for the given time. */
class Rewritten extends Files {
  reads = 0;
  readonly #after: number;

  constructor(after: number) {
    super();
    this.#after = after;
  }

  override readText(path: string): string | undefined {
    if (path !== '/nowhere/config') return undefined;
    return kubeconfig(++this.reads <= this.#after ? 'old' : 'new');
  }
}

for (const after of [0, 1, 2, 3]) {
  test(`a kubeconfig that changes after read ${after} of its loading is not missed`, async () => {
    const stop = new AbortController();
    let changes = 0;
    const source = new KubeConfigSource({
      clock: new FakeClock(),
      files: new Rewritten(after),
      paths: ['/nowhere/config'],
      onChange: () => changes++,
    });
    const config = await source.load();
    const running = source.run(stop.signal);
    stop.abort();
    await running;
    assert.ok(config?.token === 'new' || changes > 0);
  });
}
