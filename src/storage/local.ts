import { ExecError } from '#host/exec.ts';
import { wordsOf } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import { messageOf } from '#lib/fault.ts';
import { plan, type Seen, type Step, servedNow } from '#storage/automount.ts';
import { type LocalDisk, localDisks } from '#storage/devices.ts';
import { parseFstab } from '#storage/fstab.ts';
import type { Locks } from '#storage/locks.ts';
import type { Mounter } from '#storage/mounter.ts';
import { asksForReadOnly, isMountable, type LocalMount, localMount } from '#storage/options.ts';
import type { Machine, Settings, Surroundings } from '#storage/ports.ts';
import type { MountRow, Registry } from '#storage/registry.ts';
import { isReadOnly } from '#storage/views.ts';

export interface LocalParts {
  readonly machine: Machine;
  readonly settings: Settings;
  readonly around: Surroundings;
  readonly registry: Registry;
  readonly mounter: Mounter;
  readonly locks: Locks;
}

interface Failure {
  readonly identity: string;
  readonly appearance: string;
  readonly words: string;
  readonly retryAt: number;
}

/**
 * A log that is replayed, or a btrfs of many terabytes on a hard disk, takes minutes. To give up earlier mounts nothing ever:
 * the kernel ends its work all the same, and the next try begins anew. Meanwhile other disks come and go.
 */
const mountTimeout = 10 * 60_000;
/** A file system that does not mount is tried again rarely; anything else (a store that is full, a busy lock) soon. */
const retryMountAfter = 10 * 60_000;
const retryAfter = 15_000;
/** mount(8) and ntfs-3g turn to reading without a word that could be passed on. */
const byItself = 'the device is write-protected, or it was not closed in good order';
/** Disks that were read this recently are good enough for a list, ms. */
const devicesFresh = 1000;

/**
 * Disks that come and go. A block event, an act of ours or the slow resync makes it look; what differs from what
 * should be is put right, each mount on its own.
 *
 * INVARIANTS: one look at a time; an event during a look makes another one. A mount that failed is not tried again
 * until its device comes anew or ten minutes have passed.
 */
export class LocalMounts {
  readonly #parts: LocalParts;
  readonly #failures = new Map<string, Failure>();
  readonly #tasks = new Set<Promise<void>>();
  readonly #reserved = new Set<string>();
  readonly #served = new Map<string, string>();
  #glanced: { readonly devices: readonly BlockDevice[]; readonly until: number } | undefined;
  readonly #watchers = new Set<(seen: Seen) => void>();
  #looking: Promise<void> | undefined;
  #again = false;
  #closed = false;
  #lookFailure: string | undefined;

  constructor(parts: LocalParts) {
    this.#parts = parts;
  }

  /** What is there now. Throws when sysfs or the mount table cannot be read. */
  see(): Seen {
    const { devices, clock } = this.#parts.machine;
    const now = clock.monotonic();
    const found = devices.list();
    this.#glanced = { devices: found, until: now + devicesFresh };
    return this.#seen(found);
  }

  /**
   * As {@link see}, but the disks may have been read a moment ago: sysfs takes milliseconds in which nobody else is served.
   * For lists only. An event makes a new look, and with it new disks.
   */
  glance(): Seen {
    const known = this.#glanced;
    const isFresh = known !== undefined && this.#parts.machine.clock.monotonic() < known.until;
    return isFresh ? this.#seen(known.devices) : this.see();
  }

  #seen(devices: readonly BlockDevice[]): Seen {
    const { machine, settings, registry } = this.#parts;
    const entries = machine.mounts.list();
    return {
      disks: localDisks(devices, entries, settings.systemPaths),
      entries,
      rows: registry.all(),
      policies: registry.policies(),
      fstab: parseFstab(machine.fstab() ?? ''),
      served: this.#served,
      bootId: settings.bootId,
      names: [...settings.protectedNames, ...machine.folders.list(settings.shareRoot)],
      shareRoot: settings.shareRoot,
    };
  }

  /** Looks soon; returns at once. */
  poke(): void {
    this.#glanced = undefined;
    void this.look();
  }

  /** Looks, and waits until the steps of this look have begun. */
  look(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    if (this.#looking !== undefined) {
      this.#again = true;
      return this.#looking;
    }
    this.#looking = this.#lookUntilQuiet().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  /** Waits until nothing is left to do. */
  async settled(): Promise<void> {
    for (;;) {
      await this.look();
      if (this.#tasks.size === 0) return;
      await Promise.all(this.#tasks);
    }
  }

  /** Waits until what is seen fits; false: it did not within `ms`. Rejects with the reason of `signal`. */
  async until(fits: (seen: Seen) => boolean, ms: number, signal: AbortSignal): Promise<boolean> {
    if (fits(this.see())) return true;
    const found = Promise.withResolvers<boolean>();
    const watcher = (seen: Seen) => {
      if (fits(seen)) found.resolve(true);
    };
    const over = new AbortController();
    const late = this.#parts.machine.clock
      .sleep(ms, AbortSignal.any([signal, over.signal]))
      .then(() => false);
    late.catch(() => undefined); // one of the two is not awaited
    this.#watchers.add(watcher);
    try {
      this.poke();
      return await Promise.race([found.promise, late]);
    } finally {
      this.#watchers.delete(watcher);
      over.abort();
    }
  }

  /** Lets a failed mount be tried again at the next look. */
  forgetFailure(identity: string): void {
    this.#failures.delete(`mount:${identity}`);
  }

  /** Nothing on this disk is mounted until the returned function is called. */
  reserve(disk: string): () => void {
    this.#reserved.add(disk);
    return () => {
      this.#reserved.delete(disk);
      this.poke();
    };
  }

  /** Why a volume could not be mounted, for lists and conditions. */
  failureOf(identity: string): string | undefined {
    return this.#failures.get(`mount:${identity}`)?.words;
  }

  get lookFailure(): string | undefined {
    return this.#lookFailure;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#looking;
    await Promise.all(this.#tasks);
  }

  async #lookUntilQuiet(): Promise<void> {
    do {
      this.#again = false;
      // Events come in bursts (disk, partitions): one turn of the loop gathers them.
      await new Promise((resolve) => setImmediate(resolve));
      this.#once();
    } while (this.#again && !this.#closed);
  }

  #once(): void {
    try {
      const seen = this.see();
      this.#lookFailure = undefined;
      for (const watcher of this.#watchers) watcher(seen);
      this.#dropFailures(seen.disks);
      for (const [target, appearance] of servedNow(seen)) this.#served.set(target, appearance);
      for (const step of plan(seen)) this.#begin(step);
    } catch (error) {
      this.#lookFailure = messageOf(error);
      this.#parts.around.log('cannot look at the disks', { error: messageOf(error) });
    }
  }

  #dropFailures(disks: readonly LocalDisk[]): void {
    const present = new Set(disks.flatMap((disk) => disk.volumes.map((volume) => volume.identity)));
    for (const [key, failure] of this.#failures)
      if (key.startsWith('mount:') && !present.has(failure.identity)) this.#failures.delete(key);
  }

  #begin(step: Step): void {
    const { locks, settings } = this.#parts;
    const key = lockKey(step);
    if (!settings.mayAct || locks.busy(key) || this.#isWaiting(step)) return;
    const disk = step.do === 'fstab' ? step.disk : step.row.disk;
    const isMounting = step.do === 'mount' || step.do === 'fstab';
    if (isMounting && this.#reserved.has(disk)) return;
    const task = locks
      .run(key, () => this.#act(step))
      .then(
        () => this.#failures.delete(`${step.do}:${key}`),
        (error: unknown) => this.#remember(step, error),
      )
      .then(() => {
        this.#tasks.delete(task);
        this.poke();
      });
    this.#tasks.add(task);
  }

  #isWaiting(step: Step): boolean {
    const failure = this.#failures.get(`${step.do}:${lockKey(step)}`);
    if (failure === undefined || failure.appearance !== appearanceOf(step)) return false;
    return this.#parts.machine.clock.monotonic() < failure.retryAt;
  }

  #remember(step: Step, error: unknown): void {
    const { machine, around } = this.#parts;
    const words = wordsOf(error);
    const wait = error instanceof ExecError && step.do !== 'detach' ? retryMountAfter : retryAfter;
    this.#failures.set(`${step.do}:${lockKey(step)}`, {
      identity: lockKey(step),
      appearance: appearanceOf(step),
      words,
      retryAt: machine.clock.monotonic() + wait,
    });
    const at = step.do === 'fstab' ? step.entry.target : step.row.name;
    around.log('a storage step failed', { step: step.do, at, error: words });
  }

  async #act(step: Step): Promise<void> {
    switch (step.do) {
      case 'mount':
        return this.#mount(step);
      case 'detach':
        return this.#detach(step.row);
      case 'settle':
        this.#settle(step.row);
        return;
      case 'fstab':
        return this.#mountByFstab(step.entry.target);
    }
  }

  async #mount(step: Extract<Step, { do: 'mount' }>): Promise<void> {
    const { mounter, around } = this.#parts;
    const row = await this.#mountOrReadOnly(step);
    const readOnly = row.extra.readOnly === true;
    around.emit({ action: 'mounted', kind: row.kind, path: mounter.pathOf(row), readOnly });
    around.log('mounted', { path: mounter.pathOf(row), source: row.source, readOnly });
  }

  /** Writing first; reading only when the device or a dirty journal asks for it, and then with the reason on record. */
  async #mountOrReadOnly(step: Extract<Step, { do: 'mount' }>): Promise<MountRow> {
    if (step.readOnly) return this.#attempt(step, true, undefined);
    try {
      return await this.#attempt(step, false, undefined);
    } catch (error) {
      const words = wordsOf(error);
      const { type } = this.#how(step, false);
      if (!(error instanceof ExecError) || error.reason !== 'exit' || !asksForReadOnly(type, words))
        throw error;
      const isClear = asksForReadOnly('', words);
      return this.#attempt(step, true, isClear ? words : `it was not closed in good order (${words})`);
    }
  }

  #how({ fstype }: Extract<Step, { do: 'mount' }>, readOnly: boolean): LocalMount {
    const { machine, settings } = this.#parts;
    if (!isMountable(fstype)) throw new Error(`no support for ${fstype}`);
    return localMount(fstype, settings.owner, { readOnly, ntfs3: machine.ntfs3() });
  }

  async #attempt(
    step: Extract<Step, { do: 'mount' }>,
    readOnly: boolean,
    because: string | undefined,
  ): Promise<MountRow> {
    const { machine, mounter, registry } = this.#parts;
    const row = await mounter.mount(step.row, { ...this.#how(step, readOnly), timeoutMs: mountTimeout });
    const entry = machine.mounts.list().find((each) => each.id === row.mountId);
    const isRo = readOnly || (entry !== undefined && isReadOnly(entry));
    const reason = because ?? (isRo && !readOnly ? byItself : undefined);
    return registry.put({
      ...row,
      extra: { ...row.extra, readOnly: isRo, ...(reason ? { readOnlyBecause: reason } : {}) },
    });
  }

  async #detach(row: MountRow): Promise<void> {
    const { mounter, around } = this.#parts;
    const after = await mounter.umount(row, { lazy: true, timeoutMs: 20_000 });
    if (row.phase !== 'mounted' || row.bootId !== this.#parts.settings.bootId) return;
    around.emit({ action: 'unplugged', kind: row.kind, path: mounter.pathOf(after) });
    around.log('the device is gone; its mount was detached', { path: mounter.pathOf(after) });
  }

  /** A mount of this boot that somebody else has undone is left alone until its device comes anew. */
  #settle(row: MountRow): void {
    const { mounter, registry, settings } = this.#parts;
    const after = mounter.settle(row.identity);
    const undone = row.phase === 'mounted' && row.bootId === settings.bootId && after.phase === 'none';
    if (undone) registry.put({ ...after, heldOff: row.extra.appearance });
  }

  async #mountByFstab(target: string): Promise<void> {
    const { machine, around } = this.#parts;
    await machine.mounts.mountFstab(target, mountTimeout);
    around.emit({ action: 'mounted', kind: 'hdd', path: target, readOnly: false });
  }
}

function lockKey(step: Step): string {
  return step.do === 'fstab' ? `fstab:${step.entry.target}` : step.row.identity;
}

function appearanceOf(step: Step): string {
  return step.do === 'fstab' ? '' : (step.row.extra.appearance ?? '');
}
