import { closeSync, existsSync, fsyncSync, openSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { syncDir } from '#host/files.ts';

/**
 * Tells the next start that something was remembered only in memory, also when the disk has no room left: a file that stands as
 * long as the store holds everything, and whose removal, which needs no room, is the note.
 */
export class GapNote {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  get isWhole(): boolean {
    return existsSync(this.#path());
  }

  /** Notes the gap, durably, before there is one; false where the disk takes not even that. */
  note(): boolean {
    try {
      unlinkSync(this.#path());
      syncDir(this.#folder);
      return true;
    } catch {
      return false;
    }
  }

  /** Everything is in the store again; false when that cannot be written, and then the gap stays noted. */
  restore(): boolean {
    try {
      const fd = openSync(this.#path(), 'a', 0o600);
      try {
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      syncDir(this.#folder);
      return true;
    } catch {
      return false;
    }
  }

  #path(): string {
    return join(this.#folder, 'beosd.whole');
  }
}
