import { readlink } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { type Exec, ExecError } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { type MountEntry, parseMountInfo } from '#host/mounts.ts';

/** A process that keeps a file system busy. */
export interface RawHolder {
  readonly pid: number;
  readonly command: string;
  /** What it holds, as it sees the path itself. */
  readonly path: string;
  /** Uid of the pod whose container it is in, from its cgroup. */
  readonly podUid: string | undefined;
}

export interface Processes {
  /** Who has a file, its folder or its root on the file system `dev` (`major:minor`), in whatever mount namespace. */
  holders(dev: string, signal: AbortSignal): Promise<RawHolder[]>;
  /** One process of each other mount namespace in which the file system is mounted. */
  namespacesWith(dev: string, signal: AbortSignal): Promise<RawHolder[]>;
}

const mapsTimeout = 3000;
/** So many descriptors are looked at in one turn of the loop. */
const descriptorsInOneTurn = 200;

/**
 * Reads /proc only: links there are text, following them would ask the file system itself. What is mapped is read by a
 * child: the kernel keeps it back while the process waits for a page of a dead server. A process that ends while it is
 * read is no holder.
 */
export class SystemProcesses implements Processes {
  readonly #exec: Exec;
  readonly #files: Files;

  constructor(exec: Exec, files: Files) {
    this.#exec = exec;
    this.#files = files;
  }

  async holders(dev: string, signal: AbortSignal): Promise<RawHolder[]> {
    const tables = new Map<string, MountEntry[]>();
    const found: RawHolder[] = [];
    const others = new Map<number, string>();
    for (const pid of this.#pids()) {
      signal.throwIfAborted();
      const mounts = await this.#mountsIn(pid, tables);
      const ours = mounts.filter((entry) => entry.dev === dev);
      const held = ours.length === 0 ? undefined : await this.#heldBy(pid, ours, mounts);
      if (held !== undefined) found.push(this.#describe(pid, held));
      else if (ours[0] !== undefined) others.set(pid, ours[0].target);
    }
    for (const pid of await this.#mappedBy([...others.keys()], dev, signal)) {
      found.push(this.#describe(pid, others.get(pid) ?? ''));
    }
    return found;
  }

  async namespacesWith(dev: string, signal: AbortSignal): Promise<RawHolder[]> {
    const own = await link('/proc/self/ns/mnt');
    const tables = new Map<string, MountEntry[]>();
    const seen = new Set([own]);
    const found: RawHolder[] = [];
    for (const pid of this.#pids()) {
      signal.throwIfAborted();
      const namespace = await link(`/proc/${pid}/ns/mnt`);
      if (namespace === undefined || seen.has(namespace)) continue;
      seen.add(namespace);
      const entry = (await this.#mountsIn(pid, tables)).find((each) => each.dev === dev);
      if (entry !== undefined) found.push(this.#describe(pid, entry.target));
    }
    return found;
  }

  #pids(): number[] {
    return this.#files
      .list('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => pid !== process.pid);
  }

  async #mountsIn(pid: number, tables: Map<string, MountEntry[]>): Promise<MountEntry[]> {
    const namespace = await link(`/proc/${pid}/ns/mnt`);
    if (namespace === undefined) return [];
    const known = tables.get(namespace);
    if (known !== undefined) return known;
    const text = this.#read(`/proc/${pid}/mountinfo`, 64 * 1024 * 1024);
    if (text === undefined) return [];
    const entries = parseMountInfo(text);
    tables.set(namespace, entries);
    return entries;
  }

  async #heldBy(
    pid: number,
    ours: readonly MountEntry[],
    all: readonly MountEntry[],
  ): Promise<string | undefined> {
    for (const what of ['cwd', 'root', 'exe']) {
      const path = await link(`/proc/${pid}/${what}`);
      if (path !== undefined && liesOn(path, ours, all)) return path;
    }
    const ids = new Set(ours.map((entry) => String(entry.id)));
    for (const [n, fd] of this.#list(`/proc/${pid}/fd`).entries()) {
      if (n % descriptorsInOneTurn === descriptorsInOneTurn - 1) await setImmediate();
      const info = this.#read(`/proc/${pid}/fdinfo/${fd}`);
      const mount = /^mnt_id:\s*(\d+)/m.exec(info ?? '')?.[1];
      if (mount !== undefined && ids.has(mount)) return (await link(`/proc/${pid}/fd/${fd}`)) ?? `fd ${fd}`;
    }
    return undefined;
  }

  /** Those of the processes that have mapped a file of the file system; none of them when that cannot be told in time. */
  async #mappedBy(pids: readonly number[], dev: string, signal: AbortSignal): Promise<number[]> {
    if (pids.length === 0) return [];
    // proc_pid_maps(5): the numbers are written in hexadecimal there, at least two digits each.
    const wanted = dev.split(':').map((part) => Number(part).toString(16).padStart(2, '0'));
    const maps = pids.map((pid) => `/proc/${pid}/maps`);
    const args = ['-lsF', '-e', ` ${wanted.join(':')} `, '--', ...maps];
    try {
      const options = { timeoutMs: mapsTimeout, signal, okCodes: [0, 1, 2] };
      const { stdout } = await this.#exec.run('grep', args, options);
      return [...stdout.matchAll(/^\/proc\/(\d+)\/maps$/gm)].map((match) => Number(match[1]));
    } catch (error) {
      if (error instanceof ExecError) return [];
      throw error;
    }
  }

  #describe(pid: number, path: string): RawHolder {
    const command = this.#read(`/proc/${pid}/comm`)?.trim() ?? '';
    return { pid, command, path, podUid: podUidOf(this.#read(`/proc/${pid}/cgroup`) ?? '') };
  }

  #list(path: string): string[] {
    try {
      return this.#files.list(path);
    } catch {
      return []; // the process is gone, or a kernel thread
    }
  }

  #read(path: string, maxBytes?: number): string | undefined {
    try {
      return this.#files.readText(path, maxBytes);
    } catch {
      return undefined;
    }
  }
}

/** `kubepods…-pod<uid>.slice` (systemd driver, dashes written as underscores) and `/kubepods/…/pod<uid>/` (cgroupfs). */
export function podUidOf(cgroup: string): string | undefined {
  const uid = /\bpod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})/.exec(cgroup)?.[1];
  return uid?.replaceAll('_', '-');
}

/** The deepest mount that holds the path is one of ours. */
function liesOn(path: string, ours: readonly MountEntry[], all: readonly MountEntry[]): boolean {
  const covers = (entry: MountEntry) =>
    entry.target === '/' || path === entry.target || path.startsWith(`${entry.target}/`);
  let best: MountEntry | undefined;
  for (const entry of all) {
    if (covers(entry) && (best === undefined || entry.target.length >= best.target.length)) best = entry;
  }
  return best !== undefined && ours.includes(best);
}

async function link(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch {
    return undefined;
  }
}
