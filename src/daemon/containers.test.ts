import assert from 'node:assert/strict';
import { test } from 'node:test';
import { imagesOfPods } from '#daemon/containers.ts';
import { FakeClock } from '#host/fake/clock.ts';

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
