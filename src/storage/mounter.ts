import { randomBytes } from 'node:crypto';
import { fault } from '#api/errors.ts';
import type { Folders } from '#host/folders.ts';
import { type MountEntry, type Mounts, topmostAt } from '#host/mounts.ts';
import { onFolder } from '#storage/folder-faults.ts';
import { type Standing, sameSource, standing } from '#storage/own.ts';
import type { MountRow, Registry } from '#storage/registry.ts';

/** How to mount, beside what the row says. */
export interface MountHow {
  readonly type: string;
  readonly options: readonly string[];
  readonly timeoutMs: number;
}

export interface MounterPorts {
  readonly mounts: Mounts;
  readonly folders: Folders;
  readonly registry: Registry;
  readonly shareRoot: string;
  readonly bootId: string;
  /**
   * Where fstab has yet to mount what the share root lies on: it would hide all that is mounted before it. As it would
   * be without the mount at this path.
   */
  readonly awaited: (without: string) => string | undefined;
}

/**
 * The only code that mounts and unmounts.
 *
 * INVARIANTS: what is about to happen is in the store before it happens. Only a mount that {@link standing} calls ours
 * is unmounted. A folder is removed by rmdir, only when it is the very folder that we made, and only while nothing is
 * mounted on it. Callers hold the lock of the row's identity.
 */
export class Mounter {
  readonly #ports: MounterPorts;

  constructor(ports: MounterPorts) {
    this.#ports = ports;
  }

  pathOf(row: Pick<MountRow, 'name'>): string {
    const { shareRoot } = this.#ports;
    return shareRoot === '/' ? `/${row.name}` : `${shareRoot}/${row.name}`;
  }

  standing(row: MountRow): Standing {
    return standing(row, this.pathOf(row), this.#ports.mounts.list(), this.#ports.bootId);
  }

  /** Where fstab has yet to mount what the share root lies on, and this one waits for, or would without its mount. */
  awaited(row: Pick<MountRow, 'name'>): string | undefined {
    return this.#ports.awaited(this.pathOf(row));
  }

  /** Throws `mount_failed` for what waits for that. */
  refuseAwaited(row: Pick<MountRow, 'name'>): void {
    const awaited = this.awaited(row);
    if (awaited === undefined) return;
    const words = `${this.pathOf(row)} waits for ${awaited}, which /etc/fstab mounts and which is not there yet.`;
    throw fault('mount_failed', words);
  }

  /** Mounts a row that is not mounted, and returns it as recorded. On failure no mount and no folder of ours is left. */
  async mount(row: MountRow, how: MountHow): Promise<MountRow> {
    const { registry, bootId, mounts } = this.#ports;
    const path = this.pathOf(row);
    this.refuseAwaited(row);
    const there = mounts.list();
    const taken = topmostAt(there, path);
    if (taken !== undefined) {
      throw fault('not_our_mount', `${taken.source} is mounted at ${path} by somebody else.`);
    }
    const intent = { phase: 'mounting', bootId, dev: undefined, mountId: undefined } as const;
    const before = registry.put({ ...row, ...intent });
    try {
      this.#prepareFolder(before);
      await mounts.mount({ source: row.source, target: path, fstype: how.type, ...how });
      return await this.#recordMounted(before, there);
    } catch (error) {
      await this.#undo(before.identity);
      throw error;
    }
  }

  /**
   * Unmounts our mount and removes our folder; the row stays with phase `none`. Lazy: the mount leaves the tree at
   * once, also when it is in use or dead, and how long the kernel says good-bye to a server that does not hear it is not
   * waited for beyond `timeoutMs`. Throws ExecError when the kernel refuses (busy).
   */
  async umount(
    row: MountRow,
    how: { readonly lazy: boolean; readonly timeoutMs: number },
  ): Promise<MountRow> {
    const at = this.standing(row);
    if (at.kind === 'covered') {
      throw fault(
        'not_our_mount',
        `${at.by.source} is mounted over ${this.pathOf(row)}; unmount that first.`,
      );
    }
    if (at.kind === 'ours') await this.#umountOwn(row, at, how);
    return this.settle(row.identity);
  }

  /**
   * Brings row and kernel together after a crash, a reboot, or somebody else's umount: adopts what is ours, records
   * what is gone, removes the folder that is left.
   */
  settle(identity: string): MountRow {
    const { registry } = this.#ports;
    const row = registry.get(identity);
    if (row === undefined) throw new Error(`no mount is registered as ${identity}`);
    const at = this.standing(row);
    if (at.kind === 'ours' || at.kind === 'covered') {
      if (row.phase === 'mounted') return row;
      return registry.put({ ...row, ...recorded(row, at.entry) });
    }
    const gone = row.phase === 'none' ? row : registry.put({ ...row, ...notMounted });
    return at.kind === 'absent' ? this.#dropFolder(gone) : gone;
  }

  async #umountOwn(
    row: MountRow,
    at: Extract<Standing, { kind: 'ours' }>,
    how: { readonly lazy: boolean; readonly timeoutMs: number },
  ): Promise<void> {
    const { registry, mounts } = this.#ports;
    const { id, dev } = at.entry;
    registry.put({ ...row, phase: 'unmounting', mountId: id, dev, folderToken: undefined });
    try {
      await mounts.umount(this.pathOf(row), how);
    } catch (error) {
      const after = this.settle(row.identity);
      if (!how.lazy || after.phase !== 'none') throw error;
    }
  }

  /** A mount that did not come about, or only half: what of it is there is taken back. */
  async #undo(identity: string): Promise<void> {
    const { registry, mounts } = this.#ports;
    const row = registry.get(identity);
    if (row === undefined) return;
    if (this.standing(row).kind === 'ours') {
      await mounts.umount(this.pathOf(row), { lazy: true, timeoutMs: 10_000 }).catch(() => undefined);
    }
    this.settle(identity);
  }

  /**
   * The mount program ended well, and nothing was mounted here before: the one mount that is here now is what it made,
   * whatever root and source the kernel shows for it (subvolumes, folders of a share, pools of several disks).
   */
  async #recordMounted(before: MountRow, there: readonly MountEntry[]): Promise<MountRow> {
    const { registry, mounts } = this.#ports;
    const path = this.pathOf(before);
    const entries = mounts.list();
    const [made, ...more] = entries.filter((entry) => entry.target === path);
    if (made !== undefined && more.length === 0) registry.update(before.identity, recorded(before, made));
    else await this.#takeBackAstray(before, there, entries);
    const row = this.settle(before.identity);
    if (row.phase !== 'mounted') {
      throw fault('mount_failed', `The mount program ended well, but nothing is mounted at ${path}.`);
    }
    return registry.put({ ...row, extra: { ...row.extra, settled: true } });
  }

  /**
   * Users may write to the share root, and mount(8) follows links: a mount point that became one meanwhile sends the
   * mount elsewhere. The one new mount of our source that is not here is ours, and goes; of several nobody can say.
   */
  async #takeBackAstray(
    row: MountRow,
    there: readonly MountEntry[],
    entries: readonly MountEntry[],
  ): Promise<void> {
    const { mounts } = this.#ports;
    const isNew = (entry: MountEntry) =>
      !there.some((each) => each.id === entry.id && each.target === entry.target);
    const [astray, ...more] = entries.filter(
      (entry) => isNew(entry) && entry.target !== this.pathOf(row) && sameSource(row.source, entry.source),
    );
    if (astray === undefined || more.length > 0 || topmostAt(entries, astray.target) !== astray) return;
    await mounts.umount(astray.target, { lazy: true, timeoutMs: 10_000 });
  }

  /**
   * The folder is made under a name of chance that the store knows, then recorded by its id, then moved into place: at
   * whatever point a crash comes, the next start can tell our folder from one that somebody else made.
   */
  #prepareFolder(row: MountRow): void {
    const { folders, registry, shareRoot } = this.#ports;
    const path = this.pathOf(row);
    onFolder(path, () => folders.ensure(shareRoot));
    const seen = onFolder(path, () => folders.look(path));
    if (seen?.kind === 'other') {
      throw fault('mount_failed', `${path} is not a folder; move it out of the way.`);
    }
    if (seen?.kind === 'folder') {
      if (seen.empty || row.extra.settled === true) return;
      throw fault('mount_failed', `${path} holds files; move them out of the way.`);
    }
    const token = `.beosd-${randomBytes(9).toString('hex')}`;
    registry.update(row.identity, { folderToken: token });
    const temp = `${shareRoot}/${token}`;
    const folder = onFolder(path, () => folders.make(temp));
    registry.update(row.identity, { folder });
    onFolder(path, () => folders.rename(temp, path));
  }

  /** Removes what we made for a mount that is not there: the folder itself, or the half-made one. */
  #dropFolder(row: MountRow): MountRow {
    const { folders, registry, shareRoot } = this.#ports;
    if (row.folder === undefined && row.folderToken === undefined) return row;
    const { folderToken } = row;
    const path = this.pathOf(row);
    onFolder(path, () => {
      if (folderToken !== undefined) folders.remove(`${shareRoot}/${folderToken}`);
      const seen = folders.look(path);
      const isOurs = seen?.kind === 'folder' && row.folder !== undefined && seen.id === row.folder;
      if (isOurs && seen.empty) folders.remove(path);
    });
    // A folder of ours that somebody has filled stays, and is theirs from now on.
    return registry.put({ ...row, folder: undefined, folderToken: undefined });
  }
}

function recorded({ extra }: MountRow, { id, dev, fstype }: MountEntry): Partial<MountRow> {
  return {
    phase: 'mounted',
    mountId: id,
    dev,
    folderToken: undefined,
    extra: { ...extra, mountedAs: fstype },
  };
}

const notMounted = { phase: 'none', dev: undefined, mountId: undefined, bootId: undefined } as const;
