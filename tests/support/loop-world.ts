import assert from 'node:assert/strict';
import {
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { SystemDisks } from '#host/disks.ts';
import { SystemExec } from '#host/exec.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';
import { type MountEntry, parseMountInfo, SystemMounts, topmostAt } from '#host/mounts.ts';
import { SystemProcesses } from '#host/processes.ts';
import { errnoOf } from '#lib/fault.ts';
import { quickStore, type Rig, rig } from './fake-storage.ts';
import { LoopDevices } from './loop-disk.ts';
import { act, attach, hashOf, isFree, kinds, makeStick, read, type Stick } from './loop-sticks.ts';
import { Life } from './mortal.ts';

/** What somebody else has mounted: it is there until he takes it away. */
export interface Foreign {
  readonly id: number;
  readonly target: string;
  readonly dev: string;
}

/**
 * Loop disks, mounts and folders of the real kernel, in a mount namespace of our own, with a daemon that dies and comes
 * back. What is unplugged is not listed any more; its loop device stays until nothing of the kernel holds it.
 */
export class LoopWorld {
  readonly base: string;
  readonly shareRoot: string;
  readonly sticks: readonly Stick[];
  readonly foreign: Foreign[] = [];
  /** Folders of others: path → inode, and whether there is a note in it. */
  readonly folders = new Map<string, { readonly inode: bigint; note: boolean }>();
  readonly seenAt = new Map<string, string>();
  readonly devices = new LoopDevices();
  readonly store = quickStore();
  life = new Life();
  daemon: Rig;
  readonly #open = new Map<Stick, number[]>();
  readonly #attached = new Map<string, { readonly stick: Stick; readonly volume: number }>();
  readonly #working = new Set<Promise<unknown>>();
  readonly #files = new Files();
  #boot = 1;
  #sequence = 1;
  #note = 1;

  /** `base`: an empty folder that is ours alone. */
  constructor(base: string) {
    this.base = base;
    act('mount', '-t', 'tmpfs', '-o', 'size=1500m', 'images', base);
    this.shareRoot = join(base, 'share');
    for (const name of ['share', 'work', 'keep', 'bind', 'tmp', 'elsewhere']) mkdirSync(join(base, name));
    process.env['TMPDIR'] = base;
    this.sticks = kinds.flatMap((kind, n) => makeStick(kind, `S${n + 1}`, join(base, 'work')) ?? []);
    this.devices.remember = true;
    writeFileSync(join(base, 'keep', 'canary'), 'theirs');
    this.mountForeign(['--bind', join(base, 'keep')], join(base, 'bind'));
    this.mountForeign(['-t', 'tmpfs', 'theirs'], join(base, 'tmp'));
    writeFileSync(join(base, 'tmp', 'canary'), 'theirs');
    this.daemon = this.#start();
  }

  get boot(): string {
    return `boot-${this.#boot}`;
  }

  entries(): MountEntry[] {
    return parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  }

  /** The daemon is killed, if it lives, and another one starts; children of the old one come to their end first. */
  async restart(): Promise<void> {
    this.life.end();
    await this.quiet();
    this.devices.forgetWatchers();
    this.daemon = this.#start();
  }

  /** Everything is unmounted and every disk appears anew. */
  async reboot(): Promise<void> {
    this.life.end();
    await this.quiet();
    for (const stick of this.sticks) this.release(stick);
    const inside = this.entries().filter((entry) => entry.target.startsWith(`${this.shareRoot}/`));
    for (const entry of inside.reverse()) act('umount', '-c', entry.target);
    this.foreign.splice(
      0,
      this.foreign.length,
      ...this.foreign.filter((each) => !inside.some((e) => e.id === each.id)),
    );
    const plugged = this.devices.plugged.splice(0);
    for (const { serial } of plugged) this.plug(this.sticks.find((stick) => stick.serial === serial));
    this.#boot++;
    await this.restart();
  }

  /** No child of a daemon is at work. */
  async quiet(): Promise<void> {
    while (this.#working.size > 0) await Promise.allSettled(this.#working);
  }

  isPlugged(stick: Stick): boolean {
    return this.devices.plugged.some((each) => each.disk === stick.disk);
  }

  plug(stick: Stick | undefined): void {
    if (stick === undefined || this.isPlugged(stick)) return;
    this.release(stick);
    if (stick.disk.node !== '' && isFree(stick.disk)) {
      for (const node of this.nodes(stick)) this.#attached.delete(node);
      stick.disk.detach();
    }
    if (stick.disk.node === '') {
      const nodes = attach(
        stick.disk,
        stick.files.length === 1 ? 0 : stick.files.length,
        stick.writeProtected,
      );
      for (const [volume, node] of nodes.entries()) this.#attached.set(node, { stick, volume });
    }
    this.devices.plug(stick.disk, stick.serial, String(this.#sequence++));
  }

  unplug(stick: Stick): void {
    if (this.isPlugged(stick)) this.devices.unplug(stick.disk);
  }

  nodes(stick: Stick): string[] {
    return [...this.#attached].flatMap(([node, each]) => (each.stick === stick ? [node] : []));
  }

  /** A program opens a file of the stick where it is mounted below the share root, and keeps it open. */
  hold(stick: Stick): void {
    const at = this.mountOf(stick);
    if (at === undefined) return;
    const fd = openSync(join(at, 'letter.txt'), 'r');
    this.#open.set(stick, [...(this.#open.get(stick) ?? []), fd]);
  }

  release(stick: Stick): void {
    for (const fd of this.#open.get(stick) ?? []) closeSync(fd);
    this.#open.delete(stick);
  }

  /** The user writes a file and is told that it is on the disk. */
  write(stick: Stick): void {
    const at = this.mountOf(stick);
    if (at === undefined || this.#note > 400) return;
    const name = `note-${this.#note++}.txt`;
    const content = Buffer.from(`${name} of ${stick.serial}\n`);
    const node = topmostAt(this.entries(), at)?.source ?? '';
    try {
      const fd = openSync(join(at, name), 'wx');
      writeSync(fd, content);
      fsyncSync(fd);
      closeSync(fd);
    } catch (error) {
      if (errnoOf(error) === 'EROFS') return;
      throw error;
    }
    const volume = this.#attached.get(node)?.volume ?? 0;
    stick.files[volume]?.set(name, hashOf(content));
  }

  /** Where a file system of the stick is on top below the share root, with nothing mounted within. */
  mountOf(stick: Stick): string | undefined {
    const nodes = this.nodes(stick);
    const entries = this.entries();
    const open = entries.find(
      (entry) =>
        nodes.includes(entry.source) &&
        entry.target.startsWith(`${this.shareRoot}/`) &&
        topmostAt(entries, entry.target) === entry &&
        !entries.some((each) => each.target.startsWith(`${entry.target}/`)),
    );
    return open?.target;
  }

  mountForeign(what: readonly string[], target: string): void {
    act('mount', ...what, target);
    const entry = topmostAt(this.entries(), target);
    assert.ok(entry);
    this.foreign.push({ id: entry.id, target, dev: entry.dev });
  }

  /** Somebody takes his newest mount below the share root, or of a stick, away again. */
  umountForeign(): void {
    const at = this.foreign.findLastIndex(
      (each, n) => n > 1 && topmostAt(this.entries(), each.target)?.id === each.id,
    );
    const [gone] = at < 0 ? [] : this.foreign.splice(at, 1);
    if (gone !== undefined) act('umount', '-c', gone.target);
  }

  makeFolder(path: string): void {
    mkdirSync(path);
    this.folders.set(path, { inode: lstatSync(path, { bigint: true }).ino, note: false });
  }

  /** Somebody takes his folder away; not while something is mounted on it. */
  removeFolder(path: string): void {
    const isMounted = topmostAt(this.entries(), path) !== undefined;
    if (isMounted || !this.folders.delete(path)) return;
    rmSync(join(path, 'note'), { force: true });
    rmdirSync(path);
  }

  /** Right now: also while the daemon is at work. */
  checkOthers(): void {
    const entries = this.entries();
    for (const { id, target, dev } of this.foreign) {
      const there = entries.some((entry) => entry.id === id && entry.target === target && entry.dev === dev);
      assert.ok(there, `the mount of somebody else at ${target} is still there`);
    }
    for (const [path, { inode, note }] of this.folders) {
      if (entries.some((entry) => entry.target === path)) continue;
      const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      assert.equal(stat?.ino, inode, `the folder ${path} of somebody else is still there`);
      if (note) assert.equal(readFileSync(join(path, 'note'), 'utf8'), 'theirs');
    }
    assert.equal(readFileSync(join(this.base, 'bind', 'canary'), 'utf8'), 'theirs');
    assert.equal(readFileSync(join(this.base, 'tmp', 'canary'), 'utf8'), 'theirs');
    for (const entry of entries) {
      const of = this.#attached.get(entry.source);
      if (of === undefined || this.foreign.some((each) => each.id === entry.id)) continue;
      assert.ok(entry.target.startsWith(`${this.shareRoot}/`), `mounted astray, at ${entry.target}`);
      const key = `${of.stick.serial} ${of.volume}`;
      assert.equal(this.seenAt.get(key) ?? entry.target, entry.target, 'a path never changes');
      this.seenAt.set(key, entry.target);
    }
  }

  /** Every file of a user that can be seen below the share root is as he left it. Only while the daemon is quiet. */
  checkFiles(): number {
    const entries = this.entries();
    let looked = 0;
    for (const entry of entries) {
      const of = this.#attached.get(entry.source);
      if (of === undefined || topmostAt(entries, entry.target) !== entry || entry.root !== '/') continue;
      if (entries.some((each) => each.target.startsWith(`${entry.target}/`))) continue;
      assert.deepEqual(read(entry.target), of.stick.files[of.volume], `the files at ${entry.target}`);
      looked++;
    }
    return looked;
  }

  /** All of our mounts are gone: what is on the images themselves. */
  close(): void {
    for (const { id, target } of this.foreign.splice(0).reverse())
      if (topmostAt(this.entries(), target)?.id === id) act('umount', '-c', target);
    for (const stick of this.sticks) {
      this.release(stick);
      stick.disk.detach();
      if (stick.imageHash !== undefined)
        assert.equal(stick.disk.hash(), stick.imageHash, `image of ${stick.serial}`);
    }
    this.store.close();
  }

  #start(): Rig {
    this.life = new Life();
    const exec = new SystemExec();
    const disks = new SystemDisks(exec, this.#files, `${this.shareRoot}.lock`);
    return rig({
      machine: new FakeMachine(),
      store: this.store,
      bootId: this.boot,
      shareRoot: this.shareRoot,
      guard: this.life.guard,
      disks: { claim: (node) => disks.claim(node), hold: (node) => disks.hold(node) },
      real: {
        devices: this.#mortal(this.devices),
        mounts: this.#mortal(new SystemMounts(exec, this.#files)),
        folders: this.#mortal(new SystemFolders()),
        processes: new SystemProcesses(exec, this.#files),
        ntfs3: () =>
          /\bntfs3$/m.test(readFileSync('/proc/filesystems', 'utf8')) ? { windowsNames: false } : undefined,
      },
    });
  }

  /** Each call passes the guard before, and, when it takes time, after. */
  #mortal<T extends object>(port: T): T {
    const { guard } = this.life;
    return new Proxy(port, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          guard(String(key));
          const result: unknown = value.apply(target, args);
          return result instanceof Promise
            ? this.#tracked(result, () => guard(`${String(key)} done`))
            : result;
        };
      },
    });
  }

  #tracked(work: Promise<unknown>, then: () => void): Promise<unknown> {
    this.#working.add(work);
    const forget = () => void this.#working.delete(work);
    work.then(forget, forget);
    return work.then((result) => {
      then();
      return result;
    });
  }
}
