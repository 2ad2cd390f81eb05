import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeRequest } from '#cluster/kube/connection.ts';
import {
  labelValue,
  marksOf,
  NodeLabels,
  type NodeMarks,
  type NodeMarksSeen,
} from '#cluster/kube/node-labels.ts';
import { FakeClock } from '#host/fake/clock.ts';

const prefix = 'beosd.example.com';

function scene(seen: Partial<NodeMarksSeen> = {}) {
  const clock = new FakeClock();
  const state = {
    wanted: { version: '1.2.3', mountsReady: true, mounts: 'usb 2' } as NodeMarks,
    seen: { node: 'node-1', labels: {}, annotations: {}, ...seen } as NodeMarksSeen | undefined,
    fails: false,
  };
  const requests: KubeRequest[] = [];
  const errors: string[] = [];
  const labels = new NodeLabels({
    clock,
    prefix,
    request: async (request) => {
      requests.push(request);
      if (state.fails) throw new Error('no');
    },
    seen: () => state.seen,
    wanted: () => state.wanted,
    onError: (message) => errors.push(message),
  });
  return { clock, state, requests, errors, labels };
}

test('what differs is applied under our own name, by server-side apply', async () => {
  const { labels, requests } = scene();
  assert.equal(await labels.apply(), true);
  const [request] = requests;
  assert.equal(request?.method, 'PATCH');
  assert.equal(request.path, '/api/v1/nodes/node-1?fieldManager=beosd&force=true');
  assert.equal(request.contentType, 'application/apply-patch+yaml');
  assert.deepEqual(request.body, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: 'node-1',
      labels: { [`${prefix}/version`]: '1.2.3', [`${prefix}/mounts-ready`]: 'true' },
      annotations: { [`${prefix}/mounts`]: 'usb 2' },
    },
  });
});

test('what is as it should be is not written, nor a node that is not known', async () => {
  const { labels, state, requests } = scene();
  state.seen = { node: 'node-1', ...marksOf(state.wanted, prefix) };
  assert.equal(await labels.apply(), false);
  state.seen = undefined;
  assert.equal(await labels.apply(), false);
  assert.deepEqual(requests, []);
});

test('what we no longer say is taken back', async () => {
  const { labels, state, requests } = scene();
  state.seen = { node: 'node-1', ...marksOf(state.wanted, prefix) };
  state.wanted = { version: '1.2.3', mountsReady: undefined, mounts: undefined };
  await labels.apply();
  assert.deepEqual(requests[0]?.body, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: 'node-1',
      labels: { [`${prefix}/version`]: '1.2.3' },
      annotations: {},
    },
  });
});

test('whoever fights over a label gets one answer in 30 s', async () => {
  const { labels, clock, requests } = scene();
  const stop = new AbortController();
  const running = labels.run(stop.signal);
  for (let count = 0; count < 10; count++) {
    labels.stir();
    await clock.advance(100);
  }
  assert.equal(requests.length, 1);
  await clock.advance(30_000);
  assert.equal(requests.length, 2);
  stop.abort();
  await clock.advance(30_000);
  await running;
});

test('a failure is told and tried again', async () => {
  const { labels, state, errors } = scene();
  state.fails = true;
  assert.equal(await labels.apply(), true);
  assert.match(errors[0] ?? '', /labels of node node-1 could not be written: no/);
});

for (const [version, value] of [
  ['1.2.3', '1.2.3'],
  ['1.2.3+build.7', '1.2.3_build.7'],
  ['-rc1-', 'rc1'],
  ['v'.repeat(80), 'v'.repeat(63)],
] as const) {
  test(`the version ${version.slice(0, 16)} is a label value`, () =>
    assert.equal(labelValue(version), value));
}
