import assert from 'node:assert/strict';
import { test } from 'node:test';
import { imagesOfPods, protectedReferences } from '#daemon/containers.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { known, unknown } from '#lib/observed.ts';
import type { Facts, InstallFacts } from '#state/facts.ts';

const pod = (name: string, ...images: string[]) => ({
  ...{ uid: name, namespace: 'shop', name, serviceAccount: 'default', addresses: [], images },
  ...{ hostNetwork: false, running: true, terminating: false },
});

test('images of pods are known only while the cluster tells them', () => {
  const localPods = new Map([
    ['shop/a', pod('a', 'app:1', 'init:1')],
    ['shop/b', pod('b', 'app:2')],
  ]);
  const clock = new FakeClock();
  const now = imagesOfPods({ localPods, localPodsAge: 0 }, clock);
  assert.deepEqual(now.known && now.value, ['app:1', 'init:1', 'app:2']);
  assert.equal(imagesOfPods({ localPods, localPodsAge: 1 }, clock).known, false);
  assert.equal(
    imagesOfPods({ localPods: new Map(), localPodsAge: Number.POSITIVE_INFINITY }, clock).known,
    false,
  );
});

test('what must stay is not known while nobody can say whether an upgrade is recorded', () => {
  const nothing = { installed: undefined, upgradeTarget: undefined, engineRunning: false };
  const install = known(nothing as InstallFacts, 'install-files', 1);
  const needed = { podImages: () => known(['app:1'], 'pods', 1) };
  const judged = (facts: Pick<Facts, 'clusterLink' | 'install'>) => protectedReferences(needed, facts, 2);
  const readable = judged({ clusterLink: 'connected', install });
  assert.deepEqual(readable.known && readable.stale === undefined && readable.value, ['app:1']);
  for (const clusterLink of ['connected', 'no-kubeconfig'] as const) {
    const unreadable = judged({ clusterLink, install: unknown('install-files', 1, 'input/output error') });
    assert.equal(unreadable.known, false, clusterLink);
    const stale = { since: 1, reason: 'input/output error' };
    const old = judged({ clusterLink, install: { ...install, stale } });
    assert.deepEqual(old.known && old.stale, stale, clusterLink);
  }
});
