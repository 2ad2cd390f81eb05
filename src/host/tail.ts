import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { errnoOf } from '#lib/fault.ts';

/** A place in a file that somebody else appends to: enough to see later whether it is still the same file. JSON only. */
export interface TailAnchor {
  readonly inode: number;
  readonly offset: number;
  /** The bytes before the offset, hex: a file that was cut and has grown past the offset again shows here. */
  readonly before: string;
}

const fingerprintBytes = 64;
const chunkBytes = 64 * 1024;
/** What one read takes at most, so that a huge log cannot stop the daemon. */
const readBytes = 4 * 1024 * 1024;
const longestLine = 16 * 1024;

/** The end of the file as it is now; of no file, the beginning of whatever comes. */
export function anchorAtEnd(path: string): TailAnchor {
  const fd = openIfThere(path);
  if (fd === undefined) return { inode: 0, offset: 0, before: '' };
  try {
    const { ino, size } = fstatSync(fd);
    return { inode: ino, offset: size, before: fingerprint(fd, size) };
  } finally {
    closeSync(fd);
  }
}

/**
 * Whole lines of a growing file from an anchor on. Holds no descriptor between two reads. A file that was replaced, cut
 * or rewritten is read from its beginning; a line beyond 16 KiB is cut there; the part of a line that has no end yet
 * waits for the next read.
 */
export class Tail {
  readonly #path: string;
  #at: TailAnchor;
  #partial = '';
  #behind = false;

  constructor(path: string, from: TailAnchor) {
    this.#path = path;
    this.#at = from;
  }

  /** The last read left some of the file for the next one: it takes 4 MiB at most. */
  get behind(): boolean {
    return this.#behind;
  }

  /** The lines that were completed since the last read, without their ends; [] also while there is no file. */
  read(): string[] {
    this.#behind = false;
    const fd = openIfThere(this.#path);
    if (fd === undefined) return [];
    try {
      const { ino, size } = fstatSync(fd);
      if (ino !== this.#at.inode || size < this.#at.offset || this.#rewritten(fd)) this.#restart(ino);
      const end = Math.min(size, this.#at.offset + readBytes);
      const text = this.#readOn(fd, end, ino);
      this.#behind = end < size;
      return this.#lines(text);
    } finally {
      closeSync(fd);
    }
  }

  #rewritten(fd: number): boolean {
    return fingerprint(fd, this.#at.offset) !== this.#at.before;
  }

  #restart(inode: number): void {
    this.#at = { inode, offset: 0, before: '' };
    this.#partial = '';
  }

  #readOn(fd: number, end: number, inode: number): string {
    const chunks: Buffer[] = [];
    let offset = this.#at.offset;
    while (offset < end) {
      const chunk = Buffer.allocUnsafe(Math.min(chunkBytes, end - offset));
      const count = readSync(fd, chunk, 0, chunk.length, offset);
      if (count === 0) break;
      chunks.push(chunk.subarray(0, count));
      offset += count;
    }
    this.#at = { inode, offset, before: fingerprint(fd, offset) };
    // latin1 keeps a character that two reads share whole; the lines are decoded when they are complete.
    return Buffer.concat(chunks).toString('latin1');
  }

  #lines(text: string): string[] {
    const parts = (this.#partial + text).split('\n');
    this.#partial = (parts.pop() ?? '').slice(0, longestLine);
    return parts.map((line) =>
      Buffer.from(line.slice(0, longestLine), 'latin1').toString('utf8').replace(/\r$/, ''),
    );
  }
}

function fingerprint(fd: number, offset: number): string {
  const length = Math.min(fingerprintBytes, offset);
  const bytes = Buffer.alloc(length);
  const count = readSync(fd, bytes, 0, length, offset - length);
  return bytes.subarray(0, count).toString('hex');
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}
