import { type Exec, ExecError } from '#host/exec.ts';
import type { Files } from '#host/files.ts';

/** One line of /proc/self/mountinfo (proc_pid_mountinfo(5)); octal escapes are undone. */
export interface MountEntry {
  /** Unique while it is mounted; the kernel gives it out again afterwards. */
  readonly id: number;
  readonly parent: number;
  /** `major:minor` of the file system. */
  readonly dev: string;
  /** The folder of the file system that is mounted here: `/` unless it is a bind mount or a subvolume. */
  readonly root: string;
  readonly target: string;
  readonly options: readonly string[];
  /** `shared:N`, `master:N` … */
  readonly propagation: readonly string[];
  readonly fstype: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

/** Bytes and counts of a file system, as statfs(2) tells them. */
export interface FsUsage {
  readonly blockSize: number;
  readonly blocks: number;
  readonly free: number;
  readonly available: number;
  readonly inodes: number;
  readonly inodesFree: number;
}

export interface MountRequest {
  readonly source: string;
  readonly target: string;
  readonly fstype: string;
  /** Each one `name` or `name=value`; a comma within one is refused, it would be two. */
  readonly options: readonly string[];
  readonly timeoutMs: number;
}

/** What the kernel mounts. Acts run in children with a deadline, so that a dead server holds none of our threads. */
export interface Mounts {
  /** All mounts of our namespace, in the order of mounting: of two on one path the later one is on top. */
  list(): MountEntry[];
  /** Throws {@link ExecError} with what the mount program said. */
  mount(request: MountRequest): Promise<void>;
  /** Carries out the line of /etc/fstab that has this device and this folder, with its options and then those given. */
  mountFstab(request: Omit<MountRequest, 'fstype'>): Promise<void>;
  /** Where a path leads, every link in it followed; what does not exist stays as it is (readlink(1)). */
  leadsTo(path: string, timeoutMs: number): Promise<string>;
  umount(target: string, how: { readonly lazy: boolean; readonly timeoutMs: number }): Promise<void>;
  /** Writes out what is still in memory (syncfs). */
  flush(target: string, timeoutMs: number): Promise<void>;
  usage(target: string, timeoutMs: number): Promise<FsUsage>;
}

export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const entry = line === '' ? undefined : parseLine(line);
    if (entry !== undefined) entries.push(entry);
  }
  return entries;
}

function parseLine(line: string): MountEntry | undefined {
  const parts = line.split(' ');
  const dash = parts.indexOf('-', 6);
  const [id, parent, dev, root, target, options] = parts;
  const [fstype, source, superOptions] = dash < 0 ? [] : parts.slice(dash + 1);
  if (id === undefined || parent === undefined || dev === undefined || root === undefined) return undefined;
  if (target === undefined || options === undefined || fstype === undefined || source === undefined)
    return undefined;
  return {
    id: Number(id),
    parent: Number(parent),
    dev,
    root: unescapeOctal(root),
    target: unescapeOctal(target),
    options: options.split(','),
    propagation: parts.slice(6, dash),
    fstype,
    source: unescapeOctal(source),
    superOptions: (superOptions ?? '').split(','),
  };
}

/** Space, tab, newline and backslash are written as `\040` and the like; names are UTF-8 bytes otherwise. */
export function unescapeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  const bytes: Buffer[] = [];
  for (const part of text.split(/(\\[0-7]{3})/)) {
    const octal = /^\\([0-7]{3})$/.exec(part)?.[1];
    bytes.push(octal === undefined ? Buffer.from(part) : Buffer.from([Number.parseInt(octal, 8)]));
  }
  return Buffer.concat(bytes).toString('utf8');
}

/** The entry that a path look-up reaches: of several on one path the last one. */
export function topmostAt(entries: readonly MountEntry[], target: string): MountEntry | undefined {
  return entries.findLast((entry) => entry.target === target);
}

/**
 * Also one that the kernel stopped writing to after an error: since Linux 6.15 ext4 stays `rw` then and adds
 * `emergency_ro` (`shutdown` where not even reading goes on), ext4_show_options() in fs/ext4/super.c.
 */
export function isReadOnly(entry: Pick<MountEntry, 'options' | 'superOptions'>): boolean {
  const stopped = ['ro', 'emergency_ro', 'shutdown'];
  return entry.options.includes('ro') || entry.superOptions.some((option) => stopped.includes(option));
}

/** No comma, nothing that a mount program could take for an end: what passes is exactly one option. */
export function isPlainOption(option: string): boolean {
  return /^[A-Za-z0-9_.]+(=[^,\\"'\s\p{Cc}]*)?$/u.test(option);
}

/** The machine's own mounts, by mount(8), umount(8), sync(1) and stat(1). */
export class SystemMounts implements Mounts {
  readonly #exec: Exec;
  readonly #files: Files;

  constructor(exec: Exec, files: Files) {
    this.#exec = exec;
    this.#files = files;
  }

  list(): MountEntry[] {
    const text = this.#files.readText('/proc/self/mountinfo', 64 * 1024 * 1024);
    if (text === undefined) throw new Error('/proc/self/mountinfo is missing');
    return parseMountInfo(text);
  }

  async mount(request: MountRequest): Promise<void> {
    const bad = request.options.find((option) => !isPlainOption(option));
    if (bad !== undefined) throw new RangeError(`not one mount option: ${JSON.stringify(bad)}`);
    if (!request.target.startsWith('/') || request.source.startsWith('-'))
      throw new RangeError('a mount needs an absolute target and a source');
    const options = request.options.join(',');
    await this.#exec.run(
      'mount',
      ['-t', request.fstype, '-o', options, '--', request.source, request.target],
      {
        timeoutMs: request.timeoutMs,
      },
    );
  }

  async mountFstab({ source, target, options, timeoutMs }: Omit<MountRequest, 'fstype'>): Promise<void> {
    // Of several lines of one folder, and of several devices of one name, exactly this pair (mount(8)). What is given
    // here comes after what stands in the line, and the last one holds.
    const pair = [
      '--options-source',
      'fstab',
      '--options-source-force',
      '--source',
      source,
      '--target',
      target,
    ];
    const more = options.length === 0 ? [] : ['-o', options.join(',')];
    await this.#exec.run('mount', [...more, ...pair], { timeoutMs });
  }

  async leadsTo(path: string, timeoutMs: number): Promise<string> {
    // A child, with a deadline: it may lead over a server that is dead.
    const args = ['--canonicalize-missing', '--zero', '--', path];
    return (await this.#exec.run('readlink', args, { timeoutMs })).stdout.replace(/\0$/, '');
  }

  async umount(target: string, how: { readonly lazy: boolean; readonly timeoutMs: number }): Promise<void> {
    const flags = how.lazy ? ['-l'] : [];
    // -c: the path stands in mountinfo as it is; resolving it would ask the very server that may be dead.
    await this.#exec.run('umount', ['-c', ...flags, '--', target], { timeoutMs: how.timeoutMs });
  }

  async flush(target: string, timeoutMs: number): Promise<void> {
    await this.#exec.run('sync', ['-f', '--', target], { timeoutMs });
  }

  async usage(target: string, timeoutMs: number): Promise<FsUsage> {
    const { stdout } = await this.#exec.run('stat', ['-f', '-c', '%S %b %f %a %c %d', '--', target], {
      timeoutMs,
    });
    const numbers = stdout.trim().split(' ').map(Number);
    const [blockSize, blocks, free, available, inodes, inodesFree] = numbers;
    if (inodesFree === undefined || numbers.some((value) => !Number.isFinite(value)))
      throw new Error(`stat -f answered ${JSON.stringify(stdout)}`);
    return {
      blockSize: blockSize ?? 0,
      blocks: blocks ?? 0,
      free: free ?? 0,
      available: available ?? 0,
      inodes: inodes ?? 0,
      inodesFree,
    };
  }
}

/** What a failed mount program said, in its own words. */
export function wordsOf(error: unknown): string {
  if (!(error instanceof ExecError)) return error instanceof Error ? error.message : String(error);
  const said = [error.stderr, error.stdout].map((text) => text.trim()).find((text) => text !== '');
  return said ?? error.message;
}
