import { ExecError } from '#host/exec.ts';
import { isReadOnly, wordsOf } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import { messageOf } from '#lib/fault.ts';
import { plan, type Step as RowStep, type Seen } from '#storage/automount.ts';
import { builtVolumes, type LocalDisk, localDisks, placesOf } from '#storage/devices.ts';
import { isAwaited, parseFstab } from '#storage/fstab.ts';
import { FstabMounter } from '#storage/fstab-mounter.ts';
import { type FstabStep, fstabSteps } from '#storage/fstab-mounts.ts';
import type { Locks } from '#storage/locks.ts';
import type { Mounter } from '#storage/mounter.ts';
import { asksForReadOnly, isMountable, type LocalMount, localMount } from '#storage/options.ts';
import type { Machine, Settings, Surroundings } from '#storage/ports.ts';
import type { MountRow, Registry } from '#storage/registry.ts';

export interface LocalParts {
  readonly machine: Machine;
  readonly settings: Settings;
  readonly around: Surroundings;
  readonly registry: Registry;
  readonly mounter: Mounter;
  readonly locks: Locks;
}

type Step = RowStep | FstabStep;

interface Failure {
  /** Of the file system. */
  readonly identity: string;
  /** Where a line of fstab has it. */
  readonly target: string | undefined;
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
  readonly #onFailures: () => void;
  readonly #tasks = new Set<Promise<void>>();
  readonly #reserved = new Set<{ readonly sysPath: string }>();
  readonly #fstab: FstabMounter;
  #glanced: { readonly devices: readonly BlockDevice[]; readonly until: number } | undefined;
  readonly #watchers = new Set<(seen: Seen) => void>();
  #looking: Promise<void> | undefined;
  #again = false;
  #closed = false;
  #lookFailure: string | undefined;

  /** `onFailures` when what cannot be mounted has changed. */
  constructor(parts: LocalParts, onFailures: () => void = () => undefined) {
    this.#parts = parts;
    this.#onFailures = onFailures;
    this.#fstab = new FstabMounter(parts);
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
    const disks = localDisks(devices, entries, settings.systemPaths);
    return {
      devices,
      disks,
      built: builtVolumes(devices, disks),
      entries,
      rows: registry.all(),
      policies: registry.policies(),
      fstab: parseFstab(machine.fstab() ?? ''),
      served: this.#fstab.served,
      byFstab: this.#fstab.made,
      bootId: settings.bootId,
      names: [...settings.protectedNames, ...machine.folders.list(settings.shareRoot)],
      shareRoot: settings.shareRoot,
      systemPaths: settings.systemPaths,
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
    for (const [key, failure] of this.#failures)
      if (isOfMount(key) && failure.identity === identity) this.#failures.delete(key);
  }

  /**
   * Nothing on this disk is mounted, and nobody stops the USB device that it hangs on, until the returned function is
   * called. Told by its place, for its id changes when another one that calls itself the same is plugged in.
   */
  reserve({ sysPath }: Pick<BlockDevice, 'sysPath'>): () => void {
    const own = { sysPath };
    this.#reserved.add(own);
    return () => {
      if (this.#reserved.delete(own)) this.poke();
    };
  }

  isReserved({ sysPath }: Pick<BlockDevice, 'sysPath'>): boolean {
    return [...this.#reserved].some((each) => each.sysPath === sysPath);
  }

  /** Why a volume could not be mounted, for lists and conditions. */
  failureOf(identity: string): string | undefined {
    return this.#failures.entries().find(([key, each]) => isOfMount(key) && each.identity === identity)?.[1]
      .words;
  }

  /** Places of fstab lines that could not be carried out, with the words of mount(8). */
  fstabFailures(): { readonly target: string; readonly words: string }[] {
    const failures = [...this.#failures].filter(([key]) => key.startsWith('fstab:'));
    return failures.map(([, { target = '', words }]) => ({ target, words }));
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
      this.#dropFailures(seen);
      this.#fstab.note(seen);
      for (const step of [...plan(seen), ...fstabSteps(seen)])
        if (!this.#isKeptBack(step, seen)) this.#begin(step);
    } catch (error) {
      this.#lookFailure = messageOf(error);
      this.#parts.around.log('cannot look at the disks', { error: messageOf(error) });
    }
  }

  #dropFailures(seen: Seen): void {
    const present = new Set(placesOf(seen).map(({ volume }) => volume.identity));
    const isOver = ({ identity, target }: Failure) =>
      !present.has(identity) || (target !== undefined && !isWanted(target, seen));
    const over = [...this.#failures].filter(([key, failure]) => isOfMount(key) && isOver(failure));
    for (const [key] of over) this.#failures.delete(key);
    if (over.length > 0) this.#onFailures();
  }

  /** It would mount what lies on a disk that is reserved. */
  #isKeptBack(step: Step, { disks }: Seen): boolean {
    const isOf = (disk: LocalDisk) => (step.do === 'mount' ? step.row.disk === disk.id : false);
    const touched = step.do === 'fstab' ? step.place.disks : disks.filter(isOf);
    return touched.some((disk) => this.isReserved(disk.device));
  }

  #begin(step: Step): void {
    const { locks, settings } = this.#parts;
    const key = lockKey(step);
    if (!settings.mayAct || locks.busy(key) || this.#isWaiting(step)) return;
    const task = locks
      .run(key, () => this.#act(step))
      .then(
        () => this.#failures.delete(failureKey(step)),
        (error: unknown) => this.#remember(step, error),
      )
      .then(() => {
        this.#tasks.delete(task);
        this.poke();
      });
    this.#tasks.add(task);
  }

  #isWaiting(step: Step): boolean {
    const failure = this.#failures.get(failureKey(step));
    if (failure === undefined || failure.appearance !== appearanceOf(step)) return false;
    return this.#parts.machine.clock.monotonic() < failure.retryAt;
  }

  #remember(step: Step, error: unknown): void {
    const { machine, around } = this.#parts;
    const words = wordsOf(error);
    const isLong = step.do === 'fstab' || (step.do === 'mount' && error instanceof ExecError);
    const wait = isLong ? retryMountAfter : retryAfter;
    this.#failures.set(failureKey(step), {
      identity: 'row' in step ? step.row.identity : step.do === 'fstab' ? step.place.volume.identity : '',
      target: step.do === 'fstab' ? step.entry.target : undefined,
      appearance: appearanceOf(step),
      words,
      retryAt: machine.clock.monotonic() + wait,
    });
    const at = 'row' in step ? step.row.name : targetOf(step);
    around.log('a storage step failed', { step: step.do, at, error: words });
    this.#onFailures();
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
        return this.#fstab.mount(step, mountTimeout);
      case 'detachFstab':
        return this.#fstab.detach(step.mount);
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
    if (step.readOnly) return this.#attempt(step, true, step.because);
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
}

/** fstab still names this place, and nobody has carried that out. */
function isWanted(target: string, seen: Seen): boolean {
  const places = placesOf(seen);
  return seen.fstab.some((entry) => entry.target === target && isAwaited(entry, seen.entries, places));
}

/** Whether a step, or the key of its failure, is one of mounting. */
function isOfMount(key: string): boolean {
  return /^(mount|fstab)\b/.test(key);
}

function targetOf(step: FstabStep): string {
  return step.do === 'fstab' ? step.entry.target : step.mount.target;
}

function lockKey(step: Step): string {
  return 'row' in step ? step.row.identity : `fstab:${targetOf(step)}`;
}

/** Each line of fstab fails on its own, also where two have one place. */
function failureKey(step: Step): string {
  const line = step.do === 'fstab' ? `:${step.entry.line}` : '';
  return `${step.do}:${lockKey(step)}${line}`;
}

/** What has failed once is tried at once when this has changed. */
function appearanceOf(step: Step): string {
  if (step.do === 'fstab') return `${step.appearance} ${step.options.join()}`;
  return 'row' in step ? (step.row.extra.appearance ?? '') : '';
}
