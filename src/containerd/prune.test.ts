import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Call, Input } from '#api/operation.ts';
import type { Operations } from '#api/operations.ts';
import { containerdHandlers } from '#containerd/handlers.ts';
import { ImageManager } from '#containerd/images.ts';
import type { ImageRecord, Runtime, RuntimeContainer, RuntimeImage } from '#containerd/runtime.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { known, type Observed, unknown } from '#lib/observed.ts';

const now = Date.UTC(2026, 10, 23, 12);
const graceMs = 600_000;

/** A runtime in memory: images go when they are told to. */
class MemoryRuntime implements Runtime {
  images_: readonly RuntimeImage[];
  records: readonly ImageRecord[] = [];
  containers_: readonly RuntimeContainer[] = [];
  sandboxImage: string | undefined = 'lab.local/sandbox:1';
  versionText = '1.6.20';
  beforeRemoval: (id: string) => void = () => undefined;

  constructor(images: readonly RuntimeImage[]) {
    this.images_ = images;
  }
  address = () => '/run/test.sock';
  version = async () => ({ name: 'containerd', version: this.versionText });
  status = async () => ({ ready: true, sandboxImage: this.sandboxImage });
  images = async () => this.images_;
  imageRecords = async () => this.records;
  containers = async () => this.containers_;
  imageFilesystems = async () => [];
  removeImage = async (id: string) => {
    this.beforeRemoval(id);
    this.images_ = this.images_.filter((image) => image.id !== id);
  };
}

interface State {
  readonly images: readonly RuntimeImage[];
  readonly records: readonly ImageRecord[];
  readonly containers: readonly RuntimeContainer[];
  readonly references: readonly string[];
  readonly lastUsed: ReadonlyMap<string, number>;
  readonly freeBytes: number | undefined;
}

const idOf = (n: number) => `sha256:${n.toString(16).padStart(64, '0')}`;
const digestOf = (n: number) => `sha256:${(n + 1000).toString(16).padStart(64, 'f')}`;
const names = [
  'docker.io/library/app',
  'ghcr.io/org/app',
  'host:5000/app',
  'registry.k8s.io/pause',
  'lab.local/sandbox',
];

const nameOf = fc.constantFrom(...names);
/** How people and machines write what the runtime calls `docker.io/library/app:1`. */
const spellings = (name: string) =>
  name.startsWith('docker.io/library/') ? [name, name.slice(10), name.slice(18), `index.${name}`] : [name];

const image = (n: number) =>
  fc
    .record({
      tags: fc.uniqueArray(fc.tuple(nameOf, fc.constantFrom('1', '2', 'latest')), { maxLength: 2 }),
      digestNames: fc.uniqueArray(nameOf, { maxLength: 2 }),
      size: fc.integer({ min: 1, max: 1000 }),
      pinned: fc.boolean(),
    })
    .map(
      ({ tags, digestNames, size, pinned }): RuntimeImage => ({
        id: idOf(n),
        tags: tags.map(([name, tag]) => `${name}:${tag}`),
        digests: digestNames.map((name) => `${name}@${digestOf(n)}`),
        size,
        uid: undefined,
        username: '',
        spec: undefined,
        pinned: pinned && size > 800,
      }),
    );

const reference = fc
  .tuple(nameOf, fc.constantFrom('1', '2', 'latest', undefined), fc.option(fc.nat(7)), fc.nat(3))
  .map(([name, tag, digest, spelling]) => {
    const spelt = spellings(name)[spelling % spellings(name).length];
    return `${spelt}${tag === undefined ? '' : `:${tag}`}${digest === null ? '' : `@${digestOf(digest)}`}`;
  });

const container = fc
  .tuple(fc.oneof(reference, fc.nat(9).map(idOf)), fc.nat(99))
  .map(([text, n]): RuntimeContainer => ({ id: `c${n}`, images: [text], label: `pod ns/p${n}` }));

const state: fc.Arbitrary<State> = fc.nat(8).chain((count) =>
  fc.record({
    images: fc.tuple(...Array.from({ length: count }, (_, n) => image(n))),
    records: fc
      .array(fc.integer({ min: -3 * graceMs, max: graceMs }), { minLength: count, maxLength: count })
      .map((ages) =>
        ages.map((age, n) => ({ name: idOf(n), digest: digestOf(n), changedAt: now + age - graceMs })),
      ),
    containers: fc.array(container, { maxLength: 3 }),
    references: fc.array(fc.oneof(reference, fc.constant('Not A Reference')), { maxLength: 3 }),
    lastUsed: fc
      .array(fc.tuple(fc.nat(8).map(idOf), fc.nat(1e6)), { maxLength: 4 })
      .map((pairs) => new Map(pairs.map(([id, ago]) => [id, now - ago]))),
    freeBytes: fc.option(fc.integer({ min: 1, max: 3000 }), { nil: undefined }),
  }),
);

function open(runtime: MemoryRuntime, given: Omit<State, 'freeBytes'>, facts?: Observed<readonly string[]>) {
  runtime.records = given.records;
  runtime.containers_ = given.containers;
  return new ImageManager({
    runtime,
    clock: new FakeClock(now),
    config: async () => ({ sandboxImage: undefined }),
    protectedReferences: () => facts ?? known(given.references, 'test', now),
    lastUsed: () => given.lastUsed,
    graceMs,
  });
}

const handlersOf = (images: ImageManager) =>
  containerdHandlers({
    images,
    mirrors: () => Promise.reject(new Error('not asked for here')),
    probe: () => Promise.reject(new Error('not asked for here')),
    admit: () => undefined,
    publish: () => undefined,
  });

const call = (dryRun: boolean): Call => ({
  caller: { class: 'root', proof: 'socket' },
  signal: new AbortController().signal,
  requestId: 'test',
  dryRun,
});

type PruneInput = Input<Operations['containerd.prune']>;
const input = (freeBytes: number | undefined): PruneInput =>
  ({ params: {}, query: freeBytes === undefined ? {} : { freeBytes }, body: undefined }) as PruneInput;

/** Written apart from the code under test: every way of naming an image, compared as plain text. */
function mayNeverGo(image: RuntimeImage, given: State): boolean {
  const spelt = (full: string) => {
    const untagged = full.endsWith(':latest') ? [full.slice(0, -7)] : [];
    return [full, ...untagged].flatMap(spellings);
  };
  const own = new Set([image.id, ...image.tags.flatMap(spelt), ...image.digests.flatMap(spelt)]);
  const meant = (text: string) => {
    const [tagged, digest] = text.split('@');
    const name = tagged?.replace(/:(1|2|latest)$/, '') ?? '';
    const byDigest = digest !== undefined && own.has(`${name}@${digest}`);
    // With a digest, a tag beside it may still be what somebody runs: both count. Without a tag only the digest does.
    const byTag = (digest === undefined || tagged !== name) && own.has(tagged ?? '');
    return own.has(text) || byTag || byDigest;
  };
  const used = [...given.references, ...given.containers.flatMap((each) => each.images)].some(meant);
  const sandbox = [...image.tags, ...image.digests].some((name) =>
    /pause[:@]|^lab\.local\/sandbox:1$/.test(name),
  );
  const came = given.records.find(({ name }) => name === image.id)?.changedAt ?? Number.POSITIVE_INFINITY;
  return image.pinned || used || sandbox || now - came < graceMs;
}

test('1,000 random states: nothing protected goes, and the run does exactly what the dry run said', async () => {
  let removals = 0;
  await fc.assert(
    fc.asyncProperty(state, async (given) => {
      const runtime = new MemoryRuntime(given.images);
      const handlers = handlersOf(open(runtime, given));
      const dry = await handlers['containerd.prune'](input(given.freeBytes), call(true));
      assert.ok('plan' in dry && 'kept' in dry.plan && 'images' in dry.plan);
      const { kept, images, count, size } = dry.plan as unknown as {
        kept: { id: string; reasons: string[] }[];
        images: unknown[];
        count: number;
        size: number;
      };
      assert.deepEqual(runtime.images_, given.images, 'a dry run changes nothing');
      const run = await handlers['containerd.prune'](input(given.freeBytes), call(false));
      assert.ok('data' in run);
      assert.deepEqual(run.data, { images, count, size });
      const gone = given.images.filter((each) => !runtime.images_.includes(each));
      assert.deepEqual(gone.map(({ id }) => id).sort(), run.data.images.map(({ id }) => id).sort());
      assert.equal(count, gone.length);
      assert.deepEqual(kept.map(({ id }) => id).sort(), runtime.images_.map(({ id }) => id).sort());
      assert.ok(
        kept.every(({ reasons }) => reasons.length > 0),
        'every keep is explained',
      );
      for (const each of gone) assert.ok(!mayNeverGo(each, given), `${each.id} was protected`);
      if (given.freeBytes === undefined) {
        for (const each of runtime.images_) assert.ok(mayNeverGo(each, given), `${each.id} could have gone`);
      } else if (gone.length > 0) {
        // No more than needed: without the last one it would not have been enough.
        const last = run.data.images.at(-1)?.size ?? 0;
        assert.ok(size - last < given.freeBytes);
      }
      removals += gone.length;
    }),
    {
      numRuns: process.env['BEOSD_SOAK'] === undefined ? 1000 : 20_000,
      seed: Number(process.env['BEOSD_SEED'] ?? 20_261_123),
    },
  );
  assert.ok(removals > 300, `the states were worth the while (${removals} removals)`);
});

const plain = (n: number, size = 100): RuntimeImage => ({
  id: idOf(n),
  tags: [`docker.io/library/i${n}:1`],
  digests: [],
  size,
  uid: undefined,
  username: '',
  spec: undefined,
  pinned: false,
});
const old = (n: number, ago: number): ImageRecord => ({
  name: idOf(n),
  digest: digestOf(n),
  changedAt: now - ago,
});
const nothing = { images: [], containers: [], references: [], lastUsed: new Map<string, number>() };

test('the least recently used go first, and no more than asked for', async () => {
  const runtime = new MemoryRuntime([plain(1), plain(2), plain(3)]);
  const records = [old(1, 9e6), old(2, 8e6), old(3, 7e6)];
  const manager = open(runtime, { ...nothing, records, lastUsed: new Map([[idOf(1), now - 1e6]]) });
  const { removed } = await manager.prune(150);
  assert.deepEqual(
    removed.map(({ id }) => id),
    [idOf(2), idOf(3)],
  );
});

test('an image that a pod begins to use during the run stays', async () => {
  const runtime = new MemoryRuntime([plain(1), plain(2)]);
  const manager = open(runtime, { ...nothing, records: [old(1, 9e6), old(2, 8e6)] });
  runtime.beforeRemoval = () => {
    runtime.containers_ = [{ id: 'c', images: [idOf(2)], label: 'pod ns/late' }];
  };
  const { removed } = await manager.prune(undefined);
  assert.deepEqual(
    removed.map(({ id }) => id),
    [idOf(1)],
  );
  assert.deepEqual(
    runtime.images_.map(({ id }) => id),
    [idOf(2)],
  );
});

test('an image that got a name, a pin or a newer record during the run stays', async () => {
  const change: ((runtime: MemoryRuntime, records: ImageRecord[]) => void)[] = [
    (runtime) => {
      runtime.images_ = runtime.images_.map((each) => ({
        ...each,
        tags: [...each.tags, 'ghcr.io/late/app:1'],
      }));
    },
    (runtime) => {
      runtime.images_ = runtime.images_.map((each) => ({ ...each, pinned: true }));
    },
    (_runtime, records) => {
      records.push(old(2, 0));
    },
  ];
  for (const late of change) {
    const runtime = new MemoryRuntime([plain(1), plain(2)]);
    const records = [old(1, 9e6), old(2, 8e6)];
    const references = ['ghcr.io/late/app:1'];
    const manager = open(runtime, { ...nothing, references, records });
    runtime.beforeRemoval = () => late(runtime, records);
    const { removed } = await manager.prune(undefined);
    assert.deepEqual(
      removed.map(({ id }) => id),
      [idOf(1)],
    );
  }
});

test('an image that the runtime cannot remove keeps no other one; a runtime that is gone is not asked on', async () => {
  const refusal = 'rpc error: in use by a lease';
  const records = [old(1, 9e6), old(2, 8e6), old(3, 7e6)];
  const stubborn = new MemoryRuntime([plain(1), plain(2), plain(3)]);
  stubborn.beforeRemoval = (id) => {
    if (id === idOf(1)) throw new Error(refusal);
  };
  const { removed, failed } = await open(stubborn, { ...nothing, records }).prune(undefined);
  assert.deepEqual(
    removed.map(({ id }) => id),
    [idOf(2), idOf(3)],
  );
  assert.deepEqual(failed, [{ id: idOf(1), reason: refusal }]);
  stubborn.images_ = [plain(1)];
  await assert.rejects(open(stubborn, { ...nothing, records }).prune(undefined), { message: refusal });

  const dying = new MemoryRuntime([plain(1), plain(2), plain(3)]);
  let asked = 0;
  dying.beforeRemoval = () => {
    dying.containers = () => {
      asked++;
      return Promise.reject(new Error('connect ENOENT'));
    };
  };
  const ended = await open(dying, { ...nothing, records }).prune(undefined);
  assert.deepEqual(
    ended.failed.map(({ id, reason }) => [id, reason]),
    [
      [idOf(2), 'connect ENOENT'],
      [idOf(3), 'connect ENOENT'],
    ],
  );
  assert.equal(asked, 1);
});

test('a prune ends when the state of the node forbids it, a removal by name does not begin', async () => {
  const runtime = new MemoryRuntime([plain(1), plain(2), plain(3)]);
  const manager = open(runtime, { ...nothing, records: [old(1, 9e6), old(2, 8e6), old(3, 7e6)] });
  const check = () => {
    if (runtime.images_.length < 3) throw new Error('an install has begun');
  };
  const { removed, failed } = await manager.prune(undefined, check);
  assert.deepEqual(
    removed.map(({ id }) => id),
    [idOf(1)],
  );
  assert.equal(failed.length, 2);
  await assert.rejects(manager.remove('i2:1', check), { message: 'an install has begun' });
  assert.equal(runtime.images_.length, 2);
});

test('while it is not known what pods need, nothing goes: neither by prune nor by name', async () => {
  const facts: Observed<readonly string[]>[] = [
    unknown('kubernetes', now, 'the API does not answer'),
    { ...known([], 'kubernetes', now), stale: { since: now, reason: 'the watch broke' } },
  ];
  for (const fact of facts) {
    const runtime = new MemoryRuntime([plain(1)]);
    const manager = open(runtime, { ...nothing, records: [old(1, 9e6)] }, fact);
    await assert.rejects(manager.prune(undefined), { code: 'images_not_judged' });
    await assert.rejects(manager.remove('i1:1'), { code: 'images_not_judged' });
    const dry = await handlersOf(manager)['containerd.prune'](input(undefined), call(true));
    assert.ok('plan' in dry);
    assert.equal(dry.plan.allowed, false);
    assert.equal(runtime.images_.length, 1);
  }
});

test('a containerd 1.x that hides its sandbox image is not pruned; a 2.x pins its own', async () => {
  const runtime = new MemoryRuntime([plain(1)]);
  runtime.sandboxImage = undefined;
  const manager = open(runtime, { ...nothing, records: [old(1, 9e6)] });
  await assert.rejects(manager.prune(undefined), { code: 'images_not_judged' });
  runtime.versionText = 'v2.1.4';
  assert.equal((await manager.prune(undefined)).removed.length, 1);
});

test('one image: by id, short id, digest, reference; protected ones are refused by name of the user', async () => {
  const images = [plain(0xabc), { ...plain(2), digests: [`docker.io/library/i2@${digestOf(2)}`] }];
  const runtime = new MemoryRuntime(images);
  const containers = [{ id: 'c', images: ['i2:1'], label: 'pod shop/web' }];
  const manager = open(runtime, { ...nothing, records: [old(2, 9e6)], containers });
  for (const text of [
    idOf(2),
    idOf(2).slice(7),
    digestOf(2),
    `i2@${digestOf(2)}`,
    'i2:1',
    'docker.io/library/i2:1',
  ]) {
    assert.equal((await manager.find(text)).id, idOf(2), text);
    await assert.rejects(manager.remove(text), { code: 'image_in_use', message: /pod shop\/web/ });
  }
  await assert.rejects(manager.remove('i3:1'), { code: 'not_found' });
  for (const text of ['../../etc', '..', '%2e%2e%2f', 'x'.repeat(10_240), '', 'a b']) {
    await assert.rejects(manager.remove(text), { code: 'invalid_input' }, text.slice(0, 20));
  }
  assert.equal((await manager.remove(`sha256:${'0'.repeat(61)}abc`)).id, idOf(0xabc));
  assert.deepEqual(
    runtime.images_.map(({ id }) => id),
    [idOf(2)],
  );
});
