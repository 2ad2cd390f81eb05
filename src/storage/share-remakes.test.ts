import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { pass, shares } from '../../tests/support/fake-shares.ts';
import { shareRoot } from '../../tests/support/fake-storage.ts';

const late = { args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;

/** Exports of one NFS server, mounted: what was mounted and unmounted since, and in what version each is there now. */
async function exports(...names: readonly string[]) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  const acts: string[] = [];
  /** What a call at a path waits for first. */
  const gates = new Map<string, PromiseWithResolvers<void>>();
  const gate = (call: 'mount' | 'mount vers=4.1' | 'usage', path: string) => {
    const made = Promise.withResolvers<void>();
    gates.set(`${call} ${path}`, made);
    return made;
  };
  const told = {
    ...mounts,
    mount: async (request) => {
      acts.push(`mount ${request.target}`);
      const version = request.options.filter((option) => option.startsWith('vers='));
      await gates.get(['mount', ...version, request.target].join(' '))?.promise;
      await mounts.mount(request);
      machine.dead.delete(request.target);
    },
    umount: (target, how) => {
      acts.push(`umount ${target}`);
      return mounts.umount(target, how);
    },
    usage: async (target, timeoutMs) => {
      await gates.get(`usage ${target}`)?.promise;
      return await mounts.usage(target, timeoutMs);
    },
  } satisfies typeof mounts;
  const parts = await shares({ machine, real: { mounts: told } });
  const volumes = new Map<string, FakeVolume>();
  const paths: string[] = [];
  for (const name of names) {
    const volume: FakeVolume = { fstype: 'nfs', uuid: name, label: '', files: new Map() };
    volumes.set(name, volume);
    machine.shares.set(`nas:/${name}`, volume);
    paths.push(await parts.storage.shares.mountNfs({ server: 'nas', path: `/${name}` }, undefined));
  }
  acts.length = 0;
  const entryOf = (path: string) => machine.entries().find((each) => each.target === path);
  const versions = () => paths.map((path) => entryOf(path)?.superOptions[0]);
  const kinds = () => acts.map((act) => act.split(' ')[0]);
  /** The server goes, and these mounts answer no more. */
  const lose = async (...dead: readonly string[]) => {
    machine.servers.delete('nas');
    for (const path of dead) machine.dead.add(path);
    await pass(parts.clock, 20_000);
  };
  const restore = async (ms: number) => {
    machine.servers.add('nas');
    await pass(parts.clock, ms);
  };
  const loseAndReturn = async (...dead: readonly string[]) => {
    await lose(...dead);
    await restore(15_000);
  };
  const rowOf = (name: string) => {
    const row = parts.storage.registry.get(`nfs://nas/${name}`);
    assert.ok(row);
    return row;
  };
  const mine = {
    acts,
    gates,
    gate,
    paths,
    volumes,
    entryOf,
    versions,
    kinds,
    lose,
    restore,
    loseAndReturn,
    rowOf,
  };
  return { ...parts, ...mine };
}

test('an NFS mount that hangs although its server is back is made anew as the client that the server knew', async () => {
  const { storage, acts, paths, versions, loseAndReturn } = await exports('photos');
  const [path = ''] = paths;
  await loseAndReturn(path);
  assert.deepEqual(acts, [`umount ${path}`, `mount ${path}`]);
  assert.deepEqual(versions(), ['vers=4.2'], 'a starting server waits for the clients that it knew');
  await storage.close();
});

test('while the kernel holds on to the old connection an NFS mount is made anew over another, and stays there', async () => {
  const { storage, machine, acts, paths, volumes, versions, kinds, loseAndReturn } = await exports('photos');
  const [path = ''] = paths;
  const kept = () => storage.registry.get('nfs://nas/photos')?.extra.nfsVersion;
  machine.stuck.add('vers=4.2');
  await loseAndReturn(path);
  assert.deepEqual([versions(), kept()], [['vers=4.1'], '4.1']);
  machine.stuck.clear();
  acts.length = 0;
  await loseAndReturn(path);
  assert.deepEqual(kinds(), ['umount', 'mount']);
  assert.deepEqual([versions(), kept()], [['vers=4.1'], '4.1'], 'also when it is made anew after that');
  const volume = volumes.get('photos');
  assert.ok(volume);
  volume.refuses = 'vers=4.1';
  await loseAndReturn(path);
  assert.deepEqual([versions(), kept()], [['vers=4.2'], undefined], 'unless the server speaks it no more');
  await storage.close();
});

test('a server that does not speak the other version has its share back when the kernel has connected', async () => {
  const { storage, machine, clock, paths, volumes, versions, loseAndReturn } = await exports('photos');
  const volume = volumes.get('photos');
  assert.ok(volume);
  volume.refuses = 'vers=4.1';
  machine.stuck.add('vers=4.2');
  await loseAndReturn(...paths);
  assert.deepEqual(versions(), [undefined]);
  machine.stuck.clear();
  await pass(clock, 15_000);
  assert.deepEqual(versions(), ['vers=4.2']);
  await storage.close();
});

test('NFS mounts of one connection are all detached before the first of them is made anew', async () => {
  const { storage, machine, acts, paths, versions, loseAndReturn } = await exports(
    'photos',
    'music',
    'books',
  );
  const [photos = '', music = '', books = ''] = paths;
  const kinds = () => acts.map((act) => act.split(' ')[0]);
  await loseAndReturn(photos, music);
  assert.deepEqual(kinds(), ['umount', 'umount', 'mount', 'mount']);
  assert.ok(!acts.some((act) => act.endsWith(books)), 'one that answers again is left alone');
  machine.stuck.add('vers=4.2');
  acts.length = 0;
  await loseAndReturn(photos, music);
  assert.deepEqual(versions(), ['vers=4.1', 'vers=4.1', 'vers=4.2']);
  const oneTryInVain = ['umount', 'umount', 'mount', 'mount', 'mount'];
  assert.deepEqual(kinds(), oneTryInVain, 'the second goes by the way that the first has found');
  await storage.close();
});

test('NFS mounts that hang for a minute although their server takes connections are made anew together', async () => {
  const { storage, machine, clock, gates, gate, kinds, paths } = await exports('photos', 'music');
  for (const path of paths) gate('usage', path).reject(new ExecError({ ...late, file: 'stat' }));
  for (const path of paths) gates.get(`usage ${path}`)?.promise.catch(() => undefined);
  await storage.mounted(() => true);
  await pass(clock, 50_000);
  assert.deepEqual(kinds(), []);
  await pass(clock, 14_000);
  assert.deepEqual(kinds(), ['umount', 'umount', 'mount', 'mount']);
  assert.equal(machine.entries().length, 3);
  await storage.close();
});

test('a mount that is still being asked is waited for, and left alone when it answers', async () => {
  const { storage, clock, acts, gates, gate, paths, lose, restore } = await exports('photos', 'music');
  const [photos = '', music = ''] = paths;
  await lose(photos);
  const asked = gate('usage', music);
  await restore(15_000);
  assert.deepEqual(acts, []);
  gates.delete(`usage ${music}`);
  asked.resolve();
  await pass(clock, 15_000);
  assert.deepEqual(acts, [`umount ${photos}`, `mount ${photos}`]);
  await storage.close();
});

test('a mount that was made a moment ago is not taken for the dead one before it', async () => {
  const { storage, machine, clock, acts, gates, gate, paths, entryOf, lose, restore } = await exports(
    'photos',
    'music',
  );
  const [photos = '', music = ''] = paths;
  machine.umountForeign(entryOf(music)?.id ?? Number.NaN);
  await lose(photos);
  const asked = gate('usage', music);
  await restore(15_000);
  gates.delete(`usage ${music}`);
  asked.resolve();
  await pass(clock, 15_000);
  assert.deepEqual(acts.toSorted(), [`mount ${music}`, `mount ${photos}`, `umount ${photos}`]);
  await storage.close();
});

test('a share whose mount takes long keeps no other of its connection detached or locked', async () => {
  const { storage, machine, clock, gate, paths, versions, lose, restore, rowOf } = await exports(
    'photos',
    'music',
  );
  const [photos = '', music = ''] = paths;
  machine.stuck.add('vers=4.2');
  await lose(...paths);
  const mounting = gate('mount vers=4.1', photos);
  await restore(15_000);
  assert.deepEqual(versions(), [undefined, 'vers=4.1']);
  const isInvalid = async () =>
    (await storage.mounted((row) => row.path === music)).map((row) => row.invalid).join();
  assert.equal(await isInvalid(), 'false');
  machine.servers.delete('nas');
  await pass(clock, 4000);
  assert.equal(await isInvalid(), 'true', 'it is looked after all the time');
  await storage.shares.umount(rowOf('music'), false);
  assert.deepEqual(versions(), [undefined, undefined]);
  mounting.resolve();
  await pass(clock, 3000);
  assert.deepEqual(versions(), ['vers=4.1', undefined]);
  await storage.close();
});

test('who unmounts a share while its connection is made anew has it unmounted', async () => {
  const { storage, clock, acts, gates, gate, paths, versions, lose, restore, rowOf } = await exports(
    'photos',
    'music',
  );
  const [photos = '', music = ''] = paths;
  await lose(...paths);
  const mounts = paths.map((path) => gate('mount', path));
  await restore(15_000);
  const row = rowOf('music');
  let isDone = false;
  const umount = storage.shares.umount(row, false).then(() => {
    isDone = true;
  });
  await pass(clock, 2000);
  assert.equal(isDone, false, 'it waits until the mount has come about');
  gates.clear();
  for (const each of mounts) each.resolve();
  await pass(clock, 15_000);
  await umount;
  assert.deepEqual(versions(), ['vers=4.2', undefined]);
  assert.equal(acts.filter((act) => act === `mount ${photos}`).length, 1);
  assert.equal(acts.filter((act) => act.endsWith(music)).at(-1), `umount ${music}`);
  assert.equal(storage.registry.get(row.identity), undefined);
  await storage.close();
});
