import { dirname } from 'node:path';
import type { Files, Watching } from '#host/files.ts';

/**
 * Watches a folder that may not be there yet, or may go and come back: while it is missing, the nearest parent that
 * exists is watched in its place.
 *
 * INVARIANTS: `onChange` is called after every change in the folder and after its coming, going and being replaced, never
 * while it cannot have changed; a watch that is lost is had back with the next {@link resync}.
 */
export class FolderWatch {
  readonly #files: Files;
  readonly #folder: string;
  readonly #onChange: (name: string) => void;
  #watching: Watching | undefined;
  #watched: string | undefined;
  /** Which folder of that name it was. */
  #identity: string | undefined;

  constructor(files: Files, folder: string, onChange: (name: string) => void) {
    this.#files = files;
    this.#folder = folder;
    this.#onChange = onChange;
  }

  start(): void {
    this.#arm();
  }

  /** Watches anew: the folder may have been replaced by another of the same name. */
  resync(): void {
    this.#arm();
  }

  stop(): void {
    this.#watching?.close();
    this.#watching = undefined;
    this.#watched = undefined;
  }

  #arm(): void {
    const target = this.#nearest();
    const before = this.#watching;
    this.#identity = this.#files.identity(target); // taken first: one that comes in between is seen as another
    try {
      this.#watching = this.#files.watchDir(
        target,
        (name) => this.#happened(name),
        () => this.stop(),
      );
      this.#watched = target;
    } catch {
      // Gone again, or no watches left: the next resync tries again.
      this.#watching = undefined;
      this.#watched = undefined;
    }
    before?.close();
  }

  #happened(name: string): void {
    const before = this.#watched;
    const isSame = this.#nearest() === before && this.#files.identity(before) === this.#identity;
    if (!isSame) this.#arm();
    if (isSame && before === this.#folder) this.#onChange(name);
    if (!isSame && (before === this.#folder || this.#watched === this.#folder)) this.#onChange('');
  }

  #nearest(): string {
    let at = this.#folder;
    while (at !== dirname(at) && !this.#files.exists(at)) at = dirname(at);
    return at;
  }
}
