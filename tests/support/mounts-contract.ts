import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import type { Folders } from '#host/folders.ts';
import { type MountEntry, type Mounts, topmostAt, wordsOf } from '#host/mounts.ts';
import type { BlockDevice, Devices } from '#host/udev.ts';
import { errnoOf } from '#lib/fault.ts';

/** A machine with three sticks (ext4), fake or real. */
export interface MountsBench {
  readonly mounts: Mounts;
  readonly folders: Folders;
  readonly devices: Devices;
  /** A folder on which nothing is mounted and in which nothing is. */
  readonly root: string;
  /** Plugs a stick in; its file system is on the node. */
  plug(stick: 0 | 1 | 2): string;
  unplug(stick: 0 | 1 | 2): void;
  /** Somebody makes a file. */
  makeFile(path: string): void;
  /** A program keeps a mount busy until the function is called. */
  hold(mountPoint: string): () => void;
  link(path: string, to: string): void;
  /** The one line of fstab. */
  fstab(target: string, node: string): void;
}

const gently = { lazy: false, timeoutMs: 20_000 };
const lazily = { lazy: true, timeoutMs: 20_000 };

/** What a mount program says when it does not do it, and that it said so by its exit code. */
async function refusal(work: Promise<void>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof ExecError, 'refused');
  assert.equal(error.reason, 'exit');
  return wordsOf(error);
}

const exists = (error: unknown) => errnoOf(error) === 'EEXIST';

/** What storage takes for granted of folders, mounts and disks: the same for those in memory and those of the kernel. */
export function mountsContract(open: () => MountsBench): void {
  foldersContract(open);
  mountContract(open);
  umountContract(open);
  devicesContract(open);
}

function foldersContract(open: () => MountsBench): void {
  test('a folder is told by an id of its own, which one made later in its place does not have', () => {
    const { folders, root } = open();
    const path = `${root}/a`;
    assert.equal(folders.look(path), undefined);
    const id = folders.make(path);
    assert.deepEqual(folders.look(path), { kind: 'folder', id, empty: true });
    assert.throws(() => folders.make(path), exists);
    assert.equal(folders.remove(path), true);
    assert.equal(folders.look(path), undefined);
    assert.notEqual(folders.make(path), id);
    folders.remove(path);
  });

  test('a folder that is moved keeps its id, and takes the place of nothing', () => {
    const { folders, root, makeFile } = open();
    const id = folders.make(`${root}/from`);
    folders.make(`${root}/empty`);
    makeFile(`${root}/file`);
    for (const there of ['empty', 'file'])
      assert.throws(() => folders.rename(`${root}/from`, `${root}/${there}`), exists, there);
    folders.rename(`${root}/from`, `${root}/to`);
    assert.equal(folders.look(`${root}/from`), undefined);
    assert.deepEqual(folders.look(`${root}/to`), { kind: 'folder', id, empty: true });
    assert.throws(
      () => folders.rename(`${root}/from`, `${root}/other`),
      (error) => errnoOf(error) === 'ENOENT',
    );
    assert.deepEqual(folders.list(root), ['empty', 'file', 'to']);
  });

  test('only an empty folder is removed: no file, nothing with something in it, and nothing that is not there', () => {
    const { folders, root, makeFile } = open();
    folders.make(`${root}/full`);
    makeFile(`${root}/full/note`);
    assert.equal(folders.remove(`${root}/full`), false);
    assert.equal(folders.remove(`${root}/full/note`), false);
    assert.equal(folders.remove(`${root}/nothing`), false);
    assert.deepEqual(folders.list(`${root}/full`), ['note']);
    assert.deepEqual(folders.look(`${root}/full/note`), { kind: 'other' });
    const seen = folders.look(`${root}/full`);
    assert.equal(seen?.kind === 'folder' && seen.empty, false);
  });

  test('the share root is made once and left as it is afterwards', () => {
    const { folders, root } = open();
    const path = `${root}/share`;
    assert.deepEqual(folders.list(path), []);
    folders.ensure(path);
    folders.make(`${path}/a`);
    folders.ensure(path);
    assert.deepEqual(folders.list(path), ['a']);
  });
}

/** Mounts the node as storage would, and returns what the kernel says of it. */
async function mounted({ mounts }: MountsBench, source: string, target: string): Promise<MountEntry> {
  const options = ['rw', 'nosuid', 'nodev'];
  await mounts.mount({ source, target, fstype: 'ext4', options, timeoutMs: 20_000 });
  const entry = topmostAt(mounts.list(), target);
  assert.ok(entry);
  return entry;
}

function mountContract(open: () => MountsBench): void {
  test('a mount is listed last, with its numbers, its source and its options', async () => {
    const bench = open();
    const { mounts, folders, root, devices, plug } = bench;
    const node = plug(0);
    folders.make(`${root}/m`);
    const before = mounts.list();
    const entry = await mounted(bench, node, `${root}/m`);
    const { dev, target, source, fstype, options } = entry;
    assert.deepEqual([target, source, fstype, entry.root], [`${root}/m`, node, 'ext4', '/']);
    assert.equal(dev, devices.list().find((each) => each.node === node)?.dev);
    for (const option of ['rw', 'nosuid', 'nodev']) assert.ok(options.includes(option), options.join());
    assert.ok(before.every((each) => each.id !== entry.id));
    assert.deepEqual(mounts.list(), [...before, entry]);
    assert.equal(folders.remove(`${root}/m`), false);
    await mounts.flush(`${root}/m`, 20_000);
    const usage = await mounts.usage(`${root}/m`, 20_000);
    assert.ok(usage.blockSize > 0 && usage.blocks > 0 && usage.inodes > 0);
    assert.ok(
      usage.available <= usage.free && usage.free <= usage.blocks && usage.inodesFree <= usage.inodes,
    );
    await mounts.umount(`${root}/m`, gently);
    assert.deepEqual(mounts.list(), before);
    assert.equal(folders.remove(`${root}/m`), true);
  });

  test('what cannot be mounted is refused in words, and nothing is mounted', async () => {
    const bench = open();
    const { mounts, folders, root, plug } = bench;
    const node = plug(0);
    folders.make(`${root}/m`);
    const before = mounts.list();
    const mount = (source: string, target: string) =>
      refusal(mounts.mount({ source, target, fstype: 'ext4', options: ['rw'], timeoutMs: 20_000 }));
    assert.match(await mount(node, `${root}/nowhere`), /mount point does not exist/);
    assert.notEqual(await mount('/dev/beosd-none', `${root}/m`), '');
    assert.match(
      await refusal(mounts.mountFstab({ source: node, target: `${root}/m`, options: [], timeoutMs: 20_000 })),
      /can't find .*fstab/,
    );
    assert.deepEqual(mounts.list(), before);
  });

  test('a path is followed to where it leads, also when there is nothing', async () => {
    const { mounts, folders, root, link } = open();
    folders.make(`${root}/real`);
    link(`${root}/link`, `${root}/real`);
    assert.equal(await mounts.leadsTo(`${root}/real`, 5000), `${root}/real`);
    assert.equal(await mounts.leadsTo(`${root}/link`, 5000), `${root}/real`);
    assert.equal(await mounts.leadsTo(`${root}/none/x`, 5000), `${root}/none/x`);
  });

  test('a line of fstab is mounted at its target, as the line says or only to be read', async () => {
    const { mounts, folders, root, plug, fstab } = open();
    const node = plug(1);
    folders.make(`${root}/data`);
    fstab(`${root}/data`, node);
    for (const readOnly of [false, true]) {
      const options = readOnly ? ['ro'] : [];
      await mounts.mountFstab({ source: node, target: `${root}/data`, options, timeoutMs: 20_000 });
      const entry = topmostAt(mounts.list(), `${root}/data`);
      assert.equal(entry?.source, node);
      assert.equal(entry.options.includes('ro'), readOnly);
      await mounts.umount(`${root}/data`, gently);
    }
  });
}

function umountContract(open: () => MountsBench): void {
  test('of two mounts on one path the later one is on top, and goes first', async () => {
    const bench = open();
    const { mounts, folders, root, plug } = bench;
    folders.make(`${root}/m`);
    const first = await mounted(bench, plug(0), `${root}/m`);
    const second = await mounted(bench, plug(1), `${root}/m`);
    assert.notEqual(first.id, second.id);
    await mounts.umount(`${root}/m`, gently);
    assert.deepEqual(topmostAt(mounts.list(), `${root}/m`), first);
    await mounts.umount(`${root}/m`, gently);
    assert.match(await refusal(mounts.umount(`${root}/m`, gently)), /not mounted/);
  });

  test('what is in use is called busy and stays; a lazy umount takes it out of the tree all the same', async () => {
    const bench = open();
    const { mounts, folders, root, plug, hold } = bench;
    folders.make(`${root}/m`);
    const entry = await mounted(bench, plug(0), `${root}/m`);
    const release = hold(`${root}/m`);
    assert.match(await refusal(mounts.umount(`${root}/m`, gently)), /busy/);
    assert.deepEqual(topmostAt(mounts.list(), `${root}/m`), entry);
    await mounts.umount(`${root}/m`, lazily);
    assert.equal(topmostAt(mounts.list(), `${root}/m`), undefined);
    release();
  });

  test('a mount within another one keeps that busy; a lazy umount of the outer one takes both', async () => {
    const bench = open();
    const { mounts, folders, root, plug } = bench;
    folders.make(`${root}/m`);
    await mounted(bench, plug(0), `${root}/m`);
    // Every ext4 has this folder; those in memory are told.
    const within = `${root}/m/lost+found`;
    if (folders.look(within) === undefined) folders.make(within);
    await mounted(bench, plug(1), within);
    assert.match(await refusal(mounts.umount(`${root}/m`, gently)), /busy/);
    assert.ok(topmostAt(mounts.list(), within));
    await mounts.umount(`${root}/m`, lazily);
    assert.equal(topmostAt(mounts.list(), within), undefined);
    assert.equal(topmostAt(mounts.list(), `${root}/m`), undefined);
  });
}

function devicesContract(open: () => MountsBench): void {
  test('a stick is listed while it is plugged in, each time with another number, and the watcher hears of it', () => {
    const { devices, plug, unplug } = open();
    let heard = 0;
    const watch = devices.watch(
      () => heard++,
      () => assert.fail('the listener ended'),
    );
    const find = (node: string): BlockDevice | undefined => devices.list().find((each) => each.node === node);
    const node = plug(2);
    const before = find(node);
    assert.ok(before);
    assert.equal(heard, 1);
    assert.match(before.dev, /^\d+:\d+$/);
    assert.deepEqual(
      [before.readOnly, before.size > 0, before.properties?.['ID_FS_TYPE']],
      [false, true, 'ext4'],
    );
    unplug(2);
    assert.equal(find(node), undefined);
    const again = find(plug(2));
    assert.ok(again);
    assert.notEqual(again.sequence, before.sequence);
    assert.equal(heard, 3);
    watch.close();
    unplug(2);
    assert.equal(heard, 3);
  });
}
