import { randomBytes } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  renameSync,
  rmdirSync,
  statfsSync,
  statSync,
  unlinkSync,
  watch,
  writeSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoOf } from '#lib/fault.ts';

/** What a replacement keeps or gets. */
export interface WriteOptions {
  /** Mode of a file that does not exist yet; an existing one keeps its own. Default 0o644. */
  readonly mode?: number;
  /** What the file must still hold right before it is replaced (nothing: also when it is absent). */
  readonly expected?: Uint8Array;
}

/** Somebody else has written the file since it was read: the replacement was made from what is not there any more. */
export class ChangedMeanwhile extends Error {
  override readonly name = 'ChangedMeanwhile';
}

export interface Watching {
  close(): void;
}

/**
 * Files of this machine. Paths are absolute; `root` prefixes only what callers pass through `systemPath`, the built-in
 * paths below /etc, /usr/local, /var and /run (contract §10), so that a sandbox or a test never touches the real ones.
 */
export class Files {
  readonly root: string;

  constructor(root = '/') {
    this.root = root;
  }

  /** A built-in path of the system, below the configured root. Never for /proc, /sys, /dev or a path given explicitly. */
  systemPath(path: string): string {
    return this.root === '/' ? path : join(this.root, path);
  }

  exists(path: string): boolean {
    return existsSync(path);
  }

  /** The text, or undefined when there is no such file. Any other failure throws: unreadable is not absent. */
  readText(path: string, maxBytes = 1024 * 1024): string | undefined {
    return this.readBytes(path, maxBytes)?.toString('utf8');
  }

  /** As {@link readText}, without decoding. Special files (/proc, /sys) are read to their end. */
  readBytes(path: string, maxBytes = 1024 * 1024): Buffer | undefined {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
      throw error;
    }
    try {
      return readAll(fd, maxBytes);
    } finally {
      closeSync(fd);
    }
  }

  /** Bytes of a file, or undefined when there is none. */
  size(path: string): number | undefined {
    return statSync(path, { throwIfNoEntry: false })?.size;
  }

  /** At most `length` bytes from `offset` on; empty when the file is absent or shorter. */
  readRange(path: string, offset: number, length: number): Buffer {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return Buffer.alloc(0);
      throw error;
    }
    try {
      const bytes = Buffer.alloc(Math.max(0, length));
      let at = 0;
      for (let count = 1; count > 0 && at < bytes.length; at += count) {
        count = readSync(fd, bytes, at, bytes.length - at, offset + at);
      }
      return bytes.subarray(0, at);
    } finally {
      closeSync(fd);
    }
  }

  /** Names in a folder, sorted; [] when it does not exist. */
  list(path: string): string[] {
    try {
      return readdirSync(path).sort();
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  /** Makes a folder with its parents; those that are new have this mode, whatever the umask. */
  makeDir(path: string, mode = 0o755): void {
    makeFolders(path, mode);
  }

  /** Removes an empty folder that is there; never recursive. False when it was not there or not empty. */
  removeEmptyDir(path: string): boolean {
    try {
      rmdirSync(path);
      return true;
    } catch (error) {
      const errno = errnoOf(error) ?? '';
      if (['ENOENT', 'ENOTEMPTY', 'EEXIST', 'EBUSY', 'ENOTDIR'].includes(errno)) return false;
      throw error;
    }
  }

  /** Removes a file; absent is fine. */
  remove(path: string): void {
    try {
      unlinkSync(path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  /** The path with every link resolved, or undefined when it does not exist. */
  realPath(path: string): string | undefined {
    try {
      return realpathSync.native(path); // one call: Node's own asks for every part of the path
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
      throw error;
    }
  }

  /** The path with every link resolved, as far as it exists and can be read: as the kernel names what is mounted there. */
  leadsTo(path: string): string {
    try {
      return realpathSync.native(path);
    } catch {
      const parent = dirname(path);
      return parent === path ? path : join(this.leadsTo(parent), basename(path));
    }
  }

  /** When the file was last written, ms since the epoch; undefined when it does not exist. */
  modifiedAt(path: string): number | undefined {
    try {
      return statSync(path).mtimeMs;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
      throw error;
    }
  }

  /** Tells a file or folder from another that takes its path later; undefined: there is none, or it cannot be seen. */
  identity(path: string): string | undefined {
    try {
      const { dev, ino, birthtimeNs } = statSync(path, { bigint: true });
      return `${dev}:${ino}:${birthtimeNs}`;
    } catch {
      return undefined;
    }
  }

  /**
   * Space on the file system of a path and whether it can be written. `freeBytes` is for this process (root may use the
   * reserve), `availableBytes` for everybody.
   */
  fileSystem(path: string) {
    const { bsize, blocks, bfree, bavail } = statfsSync(path);
    const free = process.getuid?.() === 0 ? bfree : bavail;
    return {
      totalBytes: blocks * bsize,
      freeBytes: free * bsize,
      availableBytes: bavail * bsize,
      readOnly: isReadOnly(path),
    };
  }

  /**
   * Replaces a file so that a power cut leaves the old or the new content, never a mixture: temp file in the same
   * folder, fsync, rename, fsync of the folder (rename(2), fsync(2)). Mode and owner of an existing file are kept;
   * a link is followed, so that the file it names is replaced and the link stays. A file that cannot be replaced by
   * rename (a bind mount, as /etc/hosts in a container: EBUSY) is refused rather than rewritten in place.
   * Throws {@link ChangedMeanwhile} when it does not hold `expected` any more.
   */
  replace(path: string, content: string | Uint8Array, options: WriteOptions = {}): void {
    const target = this.realPath(path) ?? path;
    const folder = dirname(target);
    const before = existsSync(target) ? statSync(target) : undefined;
    const mode = before ? before.mode & 0o7777 : (options.mode ?? 0o644);
    const temp = join(folder, `.${basename(target)}.${randomBytes(6).toString('hex')}.tmp`);
    const fd = openSync(
      temp,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    try {
      try {
        writeFully(fd, typeof content === 'string' ? Buffer.from(content, 'utf8') : content);
        if (before) chownSync(temp, before.uid, before.gid);
        chmodSync(temp, mode);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      if (options.expected !== undefined && !holds(target, options.expected))
        throw new ChangedMeanwhile(`${path} was changed by another program`);
      renameSync(temp, target);
    } catch (error) {
      this.remove(temp);
      throw error;
    }
    syncDir(folder);
  }

  /** Temp files that a crash of {@link replace} left beside `path`; safe to call at start. */
  sweepTemps(path: string): void {
    const pattern = new RegExp(
      `^\\.${basename(path).replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}\\.[0-9a-f]{12}\\.tmp$`,
    );
    for (const name of this.list(dirname(path)))
      if (pattern.test(name)) this.remove(join(dirname(path), name));
  }

  /**
   * Calls back when a name in the folder changes (inotify). The folder must exist. Errors of the watch itself are
   * reported once through `onError`; the caller's resync is the net.
   */
  watchDir(path: string, onChange: (name: string) => void, onError: (error: unknown) => void): Watching {
    const watcher = watch(path, { persistent: false }, (_event, name) => onChange(name ?? ''));
    watcher.on('error', onError);
    return { close: () => watcher.close() };
  }
}

/** statfs(2) as Node has it does not tell the mount flags; access(2) refuses with EROFS, for root too. */
function isReadOnly(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return false;
  } catch (error) {
    return errnoOf(error) === 'EROFS';
  }
}

function holds(path: string, expected: Uint8Array): boolean {
  return (existsSync(path) ? readFileSync(path) : Buffer.alloc(0)).equals(expected);
}

/**
 * Makes a folder with its parents. The mode of new ones is set and not left to the umask: the unit's is 0077, and what
 * pods and users are to reach would be root's alone.
 */
export function makeFolders(path: string, mode: number): void {
  const first = mkdirSync(path, { recursive: true, mode });
  if (first === undefined) return;
  const shortest = resolve(first).length;
  for (let made = resolve(path); made.length >= shortest; made = dirname(made)) chmodSync(made, mode);
}

/** Makes a rename or a removal in the folder durable. */
export function syncDir(folder: string): void {
  const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function writeFully(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}

/** Most files of /sys and /proc are smaller than the first buffer: one allocation a file, and that from a pool. */
const firstBuffer = 2048;
const nextBuffer = 65_536;

function readAll(fd: number, maxBytes: number): Buffer {
  let buffer = Buffer.allocUnsafe(Math.min(firstBuffer, maxBytes + 1));
  let size = 0;
  for (;;) {
    if (size === buffer.length) {
      const larger = Buffer.allocUnsafe(Math.min(Math.max(nextBuffer, 2 * size), maxBytes + 1));
      buffer.copy(larger);
      buffer = larger;
    }
    const count = readSync(fd, buffer, size, buffer.length - size, null);
    if (count === 0) return buffer.subarray(0, size);
    size += count;
    if (size > maxBytes) throw new RangeError(`file is larger than ${maxBytes} bytes`);
  }
}
