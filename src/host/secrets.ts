import { chmodSync, closeSync, fchmodSync, mkdirSync, openSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Files } from '#host/files.ts';

const tmpfsMagic = 0x01021994; // statfs(2)
const ramfsMagic = 0x858458f6;

/** The first folder that lies in memory: what is written there never reaches a disk. */
export function memoryFolder(candidates: readonly string[]): string | undefined {
  return candidates.find((path) => {
    try {
      const { type } = statfsSync(path);
      return type === tmpfsMagic || type === ramfsMagic;
    } catch {
      return false; // not there
    }
  });
}

/**
 * Secrets on their way to a child: files 0600 in a folder 0700 on tmpfs, gone when the job has ended and at the latest
 * when the machine goes down.
 */
export class SecretFiles {
  readonly #dir: string;
  readonly #files: Files;

  /** `dir` is made when first needed; its parent should be what {@link memoryFolder} found. */
  constructor(dir: string, files: Files) {
    this.#dir = dir;
    this.#files = files;
  }

  path(name: string): string {
    if (!/^[A-Za-z0-9_.-]{1,80}$/.test(name) || name.startsWith('.'))
      throw new Error('not the name of a secret');
    return join(this.#dir, name);
  }

  /** Writes a secret; the name must be new. Returns the path. */
  put(name: string, text: string): string {
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
    chmodSync(this.#dir, 0o700);
    const path = this.path(name);
    const fd = openSync(path, 'wx', 0o600);
    try {
      fchmodSync(fd, 0o600);
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
    return path;
  }

  /** The secret, or undefined when it is gone (used, swept, or the machine was restarted). */
  read(name: string): string | undefined {
    return this.#files.readText(this.path(name));
  }

  remove(name: string): void {
    this.#files.remove(this.path(name));
  }

  /** At start: removes what no unfinished job names. */
  sweep(keep: ReadonlySet<string>): void {
    let failure: unknown;
    for (const name of this.#files.list(this.#dir)) {
      if (keep.has(name)) continue;
      try {
        this.#files.remove(join(this.#dir, name));
      } catch (error) {
        failure ??= error; // a folder among them, say: the others go all the same
      }
    }
    if (failure !== undefined) throw failure;
  }
}
