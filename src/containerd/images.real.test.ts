import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { TestContainerd, theContainerd, until, whyNot } from '../../tests/support/containerd.ts';
import { call, none, pull, serviceOver } from '../../tests/support/containerd-service.ts';
import { makeImage, makeIndex, waitingProgram } from '../../tests/support/oci.ts';
import { TestPod } from '../../tests/support/pods.ts';
import { TestRegistry } from '../../tests/support/registry.ts';

/** What ctr says: names with the digest they point at, images with the exact bytes of their parts. */
function byCtr(containerd: TestContainerd) {
  const rows = containerd
    .ctr('images', 'list')
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '')
    .map((line) => line.split(/\s+/));
  const digests = new Map(rows.map(([name = '', , digest = '']) => [name, digest]));
  const sizes = new Map(
    containerd
      .ctr('content', 'list')
      .split('\n')
      .slice(1)
      .filter((line) => line.trim() !== '')
      .map((line) => [line.split(/\s+/)[0] ?? '', line]),
  );
  return { digests, blobs: sizes };
}

function describedByCtr(containerd: TestContainerd, digest: string) {
  const manifest = JSON.parse(containerd.ctr('content', 'get', digest)) as {
    config: { digest: string; size: number };
    layers: { size: number }[];
  };
  const own = Buffer.byteLength(containerd.ctr('content', 'get', digest));
  const size = own + manifest.config.size + manifest.layers.reduce((sum, layer) => sum + layer.size, 0);
  return { id: manifest.config.digest, size };
}

interface Wire {
  readonly id: string;
  readonly repo_tags: string[];
  readonly repo_digests: string[];
  readonly size: number;
  readonly pinned: boolean;
}

for (const major of [1, 2] as const) {
  const skip = whyNot(major);

  describe(`a real containerd ${major}.x`, () => {
    // One test that says why: the runner counts tests, not suites.
    if (skip !== false) {
      test('all of this', { skip }, () => undefined);
      return;
    }
    test('images: ids, tags, digests and sizes are those of ctr', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      await using registry = await TestRegistry.start();
      await containerd.start();
      const pulled = makeImage('pulled');
      registry.add('team/app', '1', pulled);
      await containerd.import({
        'docker.io/library/one:1': makeImage('one'),
        'ghcr.io/org/two:2': makeImage('two'),
        'ghcr.io/org/again:2': makeImage('two'),
        'lab.local/sandbox:1': makeImage('sandbox'),
      });
      await pull(containerd, `${registry.host}/team/app:1`);
      const { handlers, service } = serviceOver(containerd);
      const { data } = (await handlers['containerd.images'](none, call())) as { data: Wire[] };
      const { digests } = byCtr(containerd);
      assert.equal(data.length, 4);
      for (const image of data) {
        for (const name of [...image.repo_tags, ...image.repo_digests]) {
          const digest = digests.get(name);
          assert.ok(digest !== undefined, `ctr knows ${name}`);
          assert.deepEqual({ id: image.id, size: image.size }, describedByCtr(containerd, digest), name);
        }
        for (const digest of image.repo_digests) assert.equal(digest.split('@')[1], digests.get(digest));
      }
      const named = new Set(data.flatMap((image) => [image.id, ...image.repo_tags, ...image.repo_digests]));
      assert.deepEqual(named, new Set(digests.keys()), 'no name more, no name less');
      const app = data.find(({ repo_tags }) => repo_tags.includes(`${registry.host}/team/app:1`));
      assert.deepEqual(app?.repo_digests, [`${registry.host}/team/app@${pulled.digest}`]);
      assert.equal(app?.id, pulled.id);
      assert.equal(app?.size, pulled.size);

      const only = (await handlers['containerd.images'](
        { ...none, query: { registry: 'ghcr.io' } },
        call(),
      )) as { data: { repo_tags: string[] }[] };
      assert.deepEqual(only.data.flatMap(({ repo_tags }) => repo_tags).sort(), [
        'ghcr.io/org/again:2',
        'ghcr.io/org/two:2',
      ]);
      const registries = await handlers['containerd.registries'](none, call());
      assert.deepEqual(registries.data, [
        { name: registry.host, endpoints: [], image_count: 1, image_size: pulled.size },
        { name: 'docker.io', endpoints: [], image_count: 1, image_size: makeImage('one').size },
        { name: 'ghcr.io', endpoints: [], image_count: 1, image_size: makeImage('two').size },
        { name: 'lab.local', endpoints: [], image_count: 1, image_size: makeImage('sandbox').size },
      ]);
      service.close();
    });

    test('images of several platforms, by digest alone and without a name are those of ctr, and go by each of them', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      await using registry = await TestRegistry.start();
      await containerd.start();
      const [index, bare, nameless] = [makeIndex('index'), makeImage('bare'), makeImage('nameless')];
      registry.add('team/bare', '1', bare);
      await containerd.import({
        'lab.local/index:1': index,
        'lab.local/same:2': index,
        'lab.local/lost:1': nameless,
      });
      const byDigest = `${registry.host}/team/bare@${bare.digest}`;
      await pull(containerd, byDigest);
      containerd.ctr('images', 'remove', '--sync', 'lab.local/lost:1');
      const { handlers, service } = serviceOver(containerd);
      const list = async () =>
        ((await handlers['containerd.images'](none, call())) as { data: Wire[] }).data.map(
          ({ id, repo_tags, repo_digests, size }) => ({
            id,
            tags: [...repo_tags].sort(),
            digests: repo_digests,
            size,
          }),
        );
      // CRI hears of what ctr does by events.
      await until(async () => !(await list()).some(({ tags }) => tags.includes('lab.local/lost:1')), 10_000);
      const images = await list();
      assert.equal(images.length, 3);
      assert.deepEqual(
        images.find(({ id }) => id === index.id),
        { id: index.id, tags: ['lab.local/index:1', 'lab.local/same:2'], digests: [], size: index.size },
      );
      assert.deepEqual(
        images.find(({ id }) => id === bare.id),
        { id: bare.id, tags: [], digests: [byDigest], size: bare.size },
      );
      assert.deepEqual(
        images.find(({ id }) => id === nameless.id),
        { id: nameless.id, tags: [], digests: [], size: nameless.size },
      );
      const { digests } = byCtr(containerd);
      assert.equal(digests.get('lab.local/index:1'), index.digest);
      assert.deepEqual(
        new Set(images.flatMap(({ id, tags, digests: named }) => [id, ...tags, ...named])),
        new Set(digests.keys()),
      );
      const registries = await handlers['containerd.registries'](none, call());
      assert.deepEqual(registries.data, [
        { name: registry.host, endpoints: [], image_count: 1, image_size: bare.size },
        { name: 'lab.local', endpoints: [], image_count: 1, image_size: index.size },
      ]);
      for (const image of [index.digest, byDigest, nameless.id.slice(7, 19)]) {
        await handlers['containerd.deleteImage']({ params: { image }, query: {}, body: undefined }, call());
      }
      assert.deepEqual(await list(), []);
      assert.deepEqual([...byCtr(containerd).digests.keys()], []);
      service.close();
    });

    test('delete: by digest, id and reference; used, protected and unknown ones are refused', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      await containerd.start();
      const images = { byId: makeImage('id'), byDigest: makeImage('digest'), byTag: makeImage('tag') };
      await containerd.import({
        'lab.local/id:1': images.byId,
        'lab.local/digest:1': images.byDigest,
        'lab.local/tag:1': images.byTag,
        'lab.local/used:1': makeImage('used'),
        'docker.io/library/wanted:1': makeImage('wanted'),
        'lab.local/sandbox:1': makeImage('sandbox'),
      });
      containerd.unpack('lab.local/used:1');
      containerd.ctr(
        'containers',
        'create',
        '--snapshotter',
        'native',
        'lab.local/used:1',
        'holder',
        '/wait',
      );
      const { handlers, service } = serviceOver(containerd, ['wanted:1']);
      const remove = async (image: string) =>
        await handlers['containerd.deleteImage']({ params: { image }, query: {}, body: undefined }, call());
      for (const image of ['lab.local/used:1', 'wanted:1', 'lab.local/sandbox:1']) {
        await assert.rejects(remove(image), { code: 'image_in_use' }, image);
      }
      await assert.rejects(remove('lab.local/none:1'), { code: 'not_found' });
      await remove(images.byId.id);
      await remove(images.byDigest.digest);
      await remove('lab.local/tag:1');
      const left = [...byCtr(containerd).digests.keys()].filter((name) => !name.startsWith('sha256:'));
      assert.deepEqual(left.sort(), [
        'docker.io/library/wanted:1',
        'lab.local/sandbox:1',
        'lab.local/used:1',
      ]);
      service.close();
    });

    test('prune: the dry run says what the run does, and ctr sees exactly that', async (t) => {
      await using containerd = new TestContainerd(theContainerd(major));
      await containerd.start();
      const program = waitingProgram();
      await containerd.import({
        'lab.local/old:1': makeImage('old'),
        'lab.local/older:1': makeImage('older'),
        'lab.local/running:1': makeImage(program ?? 'running'),
        'registry.k8s.io/pause:3.9': makeImage('pause'),
        'lab.local/sandbox:1': makeImage('sandbox'),
      });
      if (program === undefined)
        t.diagnostic('no program of ours for this CPU: the container is made, not run');
      runOrCreate(containerd, program !== undefined, t);
      const { handlers, service, published } = serviceOver(containerd);
      const dry = (await handlers['containerd.prune'](none, call({ dryRun: true }))) as unknown as {
        plan: { images: { id: string }[]; kept: { repo_tags: string[]; reasons: string[] }[] };
      };
      const reasons = Object.fromEntries(
        dry.plan.kept.map((each) => [each.repo_tags[0], each.reasons.join()]),
      );
      assert.match(reasons['lab.local/running:1'] ?? '', /used by container holder/);
      assert.match(reasons['registry.k8s.io/pause:3.9'] ?? '', /sandbox/);
      assert.match(reasons['lab.local/sandbox:1'] ?? '', /sandbox/);
      const run = (await handlers['containerd.prune'](none, call())) as {
        data: { images: { id: string }[]; count: number; size: number };
      };
      assert.deepEqual(run.data.images, dry.plan.images);
      assert.equal(run.data.count, 2);
      assert.equal(run.data.size, makeImage('old').size + makeImage('older').size);
      assert.equal(published.length, 2);
      const left = [...byCtr(containerd).digests.keys()].filter((name) => !name.startsWith('sha256:'));
      assert.deepEqual(left.sort(), [
        'lab.local/running:1',
        'lab.local/sandbox:1',
        'registry.k8s.io/pause:3.9',
      ]);
      service.close();
    });

    test('a pod keeps its image: named in the refusal, for as long as its container exists', async (t) => {
      await using containerd = new TestContainerd(theContainerd(major));
      const program = waitingProgram();
      if (program === undefined) return t.skip('no program of ours for this CPU');
      await containerd.start();
      await containerd.import({
        'docker.io/library/app:1': makeImage(Buffer.concat([program, Buffer.from('app')])),
        'lab.local/sandbox:1': makeImage(program),
      });
      const { service } = serviceOver(containerd);
      const found = await TestPod.run(containerd.socket, 'shop', 'web', 'app:1').catch(
        (error: unknown) => error,
      );
      if (!(found instanceof TestPod)) return t.skip(`no pod can run here: ${String(found).slice(0, 400)}`);
      {
        await using pod = found;
        const containers = await service.runtime.containers();
        const main = containers.find(({ id }) => id === pod.containerId);
        assert.equal(main?.label, 'pod shop/web');
        assert.ok(containers.length === 2 && containers.every(({ label }) => label === 'pod shop/web'));
        const stays = async () => {
          await assert.rejects(service.images.remove('app:1'), {
            code: 'image_in_use',
            message: /pod shop\/web/,
          });
          assert.deepEqual((await service.images.prune(undefined)).removed, []);
        };
        await stays();
        containerd.ctr('tasks', 'kill', '--signal', 'SIGKILL', pod.containerId);
        await until(() => !containerd.ctr('tasks', 'list', '-q').includes(pod.containerId), 10_000);
        await stays(); // one that is over is started again from its image
      }
      const { removed } = await service.images.prune(undefined);
      assert.deepEqual(
        removed.flatMap(({ tags }) => tags),
        ['docker.io/library/app:1'],
      );
      service.close();
    });

    test('a runtime that is down is a 503 that names the socket, and a condition; it comes back by itself', async () => {
      await using containerd = new TestContainerd(theContainerd(major));
      const { handlers, service, reported } = serviceOver(containerd);
      const list = async () => await handlers['containerd.images'](none, call());
      await assert.rejects(list(), { code: 'runtime_unavailable', message: new RegExp(containerd.socket) });
      await service.watch.look();
      assert.deepEqual(
        reported.at(-1)?.map(({ code }) => code),
        ['runtime_unavailable'],
      );
      await containerd.start();
      await list();
      await service.watch.look();
      assert.equal(service.watch.trouble, undefined);
      assert.ok(!reported.at(-1)?.some(({ code }) => code === 'runtime_unavailable'));
      await containerd.stop();
      await assert.rejects(list(), { code: 'runtime_unavailable' });
      await containerd.start();
      await until(
        () =>
          list().then(
            () => true,
            () => false,
          ),
        10_000,
      );
      service.close();
    });
  });
}

/** A container that runs, where this machine can run one; else one that is only made. Both use their image. */
function runOrCreate(
  containerd: TestContainerd,
  canRun: boolean,
  t: { diagnostic(text: string): void },
): void {
  const image = 'lab.local/running:1';
  containerd.unpack(image);
  if (canRun) {
    try {
      containerd.ctr('run', '--detach', '--snapshotter', 'native', image, 'holder', '/wait');
      const tasks = containerd.ctr('tasks', 'list');
      if (/holder\s+\d+\s+RUNNING/.test(tasks)) return;
      t.diagnostic(`the container did not stay up: ${tasks}`);
      return;
    } catch (error) {
      t.diagnostic(`containers cannot run here (${String(error).slice(-500)}); it is only made`);
    }
  }
  if (!containerd.ctr('containers', 'list', '-q').includes('holder')) {
    containerd.ctr('containers', 'create', '--snapshotter', 'native', image, 'holder', '/wait');
  }
}
