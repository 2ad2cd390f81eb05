import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fault } from '#api/errors.ts';
import type { Runtime, RuntimeContainer, RuntimeImage } from '#containerd/runtime.ts';
import { imageSpace, RuntimeWatch, type SpaceUsage } from '#containerd/watch.ts';
import { FakeClock } from '#host/fake/clock.ts';
import type { ReportedCondition } from '#state/facts.ts';

const gib = 1024 ** 3;

test('image space: enough, little, hardly any', () => {
  const at = (free: number) =>
    imageSpace('/var/lib/containerd', 20 * gib, { totalBytes: 100 * gib, availableBytes: free * gib })
      ?.severity;
  assert.equal(at(50), undefined);
  assert.equal(at(15), undefined);
  assert.equal(at(14), 'warning');
  assert.equal(at(8), 'warning');
  assert.equal(at(7), 'error');
  assert.equal(at(0), 'error');
  assert.equal(imageSpace('/', 0, { totalBytes: 0, availableBytes: 0 }), undefined);
  const condition = imageSpace('/images', 3 * gib, { totalBytes: 10 * gib, availableBytes: gib });
  assert.match(condition?.message ?? '', /10 % \(1\.0 GiB\).*\/images.*3\.0 GiB/);
  assert.deepEqual(condition?.fixedBy, ['POST /containerd/images/prune']);
});

function watchOver(changes: Partial<Runtime>, expected = true, usage?: () => Promise<SpaceUsage>) {
  const reports: (readonly ReportedCondition[])[] = [];
  const notes: { used: readonly string[]; present: readonly string[] }[] = [];
  const clock = new FakeClock();
  const space = { totalBytes: 100, availableBytes: 90 };
  const runtime: Runtime = {
    address: () => '/run/c.sock',
    version: async () => ({ name: 'containerd', version: '1.6.20' }),
    status: async () => ({ ready: true, sandboxImage: undefined }),
    images: async () => [],
    imageRecords: async () => [],
    containers: async () => [],
    imageFilesystems: async () => [{ mountpoint: '/images', usedBytes: 5 }],
    removeImage: async () => undefined,
    ...changes,
  };
  const watch = new RuntimeWatch({
    ...{ runtime, clock },
    usage: usage ?? (async () => space),
    expected: () => expected,
    report: (conditions) => reports.push(conditions),
    noteUse: (used, present) => notes.push({ used, present }),
  });
  return { watch, reports, notes, clock, space };
}

test('a runtime that ought to be there and does not answer is a condition until it does', async () => {
  let up = false;
  const { watch, reports } = watchOver({
    version: async () => {
      if (!up) throw new Error('connect ENOENT');
      return { name: 'containerd', version: '2' };
    },
  });
  await watch.look();
  assert.deepEqual(
    reports[0]?.map(({ code, message }) => [code, message]),
    [['runtime_unavailable', 'The container runtime does not answer at /run/c.sock: connect ENOENT']],
  );
  assert.match(watch.trouble ?? '', /\/run\/c\.sock/);
  up = true;
  await watch.look();
  assert.deepEqual(reports[1], []);
  assert.equal(watch.trouble, undefined);
});

test('where no runtime is expected none is missed, or even asked', async () => {
  const { watch, reports } = watchOver({ version: () => Promise.reject(new Error('asked')) }, false);
  await watch.look();
  assert.deepEqual(reports, [[]]);
});

test('little space is reported, and no more when there is enough', async () => {
  const { watch, reports, space } = watchOver({});
  space.availableBytes = 5;
  await watch.look();
  space.availableBytes = 50;
  await watch.look();
  assert.deepEqual(
    reports.map((each) => each.map(({ code }) => code)),
    [['image_space'], []],
  );
});

test('space that cannot be measured is told as that, not as a runtime that is down', async () => {
  const { watch, reports } = watchOver({}, true, () => Promise.reject(new Error('EIO: i/o error, statfs')));
  await watch.look();
  assert.deepEqual(
    reports[0]?.map(({ code, message }) => [code, message]),
    [
      [
        'image_space',
        'How much space is left where images are kept (/images) cannot be told: EIO: i/o error, statfs',
      ],
    ],
  );
  assert.equal(watch.trouble, undefined);
});

test('what the runtime says of itself is told once, with its own remedy', async () => {
  const told = fault('runtime_unavailable', 'The container runtime refuses at /run/c.sock: no', {
    remedy: 'Do this.',
  });
  const { watch, reports } = watchOver({ version: () => Promise.reject(told) });
  await watch.look();
  assert.deepEqual(
    reports[0]?.map(({ message, remedy }) => [message, remedy]),
    [[told.message, 'Do this.']],
  );
});

test('images in use are noted every ten minutes, by whatever name their container calls them', async () => {
  const image = (id: string, tag: string): RuntimeImage => ({
    ...{ id, tags: [tag], digests: [], size: 1, uid: undefined, username: '', spec: undefined },
    pinned: false,
  });
  const container = (text: string): RuntimeContainer => ({ id: text, images: [text], label: 'pod a/b' });
  const { watch, notes, clock } = watchOver({
    images: async () => [image('sha256:1', 'a:1'), image('sha256:2', 'b:1'), image('sha256:3', 'c:1')],
    containers: async () => [container('sha256:1'), container('b:1')],
  });
  await watch.look();
  await watch.look();
  assert.equal(notes.length, 1);
  assert.deepEqual(notes[0], {
    used: ['sha256:1', 'sha256:2'],
    present: ['sha256:1', 'sha256:2', 'sha256:3'],
  });
  await clock.advance(600_000);
  await watch.look();
  assert.equal(notes.length, 2);
});
