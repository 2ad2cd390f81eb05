import { chmodSync, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { makeFolders, syncDir } from '#host/files.ts';
import { errnoOf } from '#lib/fault.ts';

/** What stands at a path, without following a link. */
export type Seen =
  | { readonly kind: 'folder'; readonly id: string; readonly empty: boolean }
  | { readonly kind: 'other' };

/**
 * Mount points as folders. Never asked about a path that is mounted: that would ask the file system on it, which may
 * be dead. `id` is inode and birth time, so that a folder that somebody made later is not taken for ours.
 */
export interface Folders {
  look(path: string): Seen | undefined;
  /** Makes one folder (0755); throws when anything is there already. Returns its id. */
  make(path: string): string;
  /** Moves a folder within its parent. Throws EEXIST when anything is at the new place, also an empty folder. */
  rename(from: string, to: string): void;
  /** rmdir(2): only an empty folder goes. False when it was not there, not empty, or a mount point. */
  remove(path: string): boolean;
  /** Names in a folder; [] when it does not exist. */
  list(path: string): string[];
  /** Makes a folder with its parents; it may be there already. Only for the share root. */
  ensure(path: string): void;
}

function exists(path: string): Error {
  return Object.assign(new Error(`EEXIST: file already exists, ${path}`), { code: 'EEXIST' });
}

export class SystemFolders implements Folders {
  look(path: string): Seen | undefined {
    try {
      const stat = lstatSync(path, { bigint: true });
      if (!stat.isDirectory()) return { kind: 'other' };
      return {
        kind: 'folder',
        id: `${stat.ino}:${stat.birthtimeNs}`,
        empty: readdirSync(path).length === 0,
      };
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
      throw error;
    }
  }

  make(path: string): string {
    mkdirSync(path, { mode: 0o755 });
    chmodSync(path, 0o755); // whatever the umask
    syncDir(dirname(path));
    const seen = this.look(path);
    if (seen?.kind !== 'folder') throw new Error(`${path} was replaced while it was made`);
    return seen.id;
  }

  /** rename(2) takes the place of an empty folder, whoever made that, and Node has no RENAME_NOREPLACE: looked right before. */
  rename(from: string, to: string): void {
    if (lstatSync(to, { throwIfNoEntry: false }) !== undefined) throw exists(to);
    renameSync(from, to);
    syncDir(dirname(to));
  }

  remove(path: string): boolean {
    try {
      rmdirSync(path);
      return true;
    } catch (error) {
      if (['ENOENT', 'ENOTEMPTY', 'EEXIST', 'EBUSY', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return false;
      throw error;
    }
  }

  list(path: string): string[] {
    try {
      return readdirSync(path).sort();
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  ensure(path: string): void {
    makeFolders(path, 0o755);
  }
}
