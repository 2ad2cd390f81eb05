import { readlink } from 'node:fs/promises';
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

/**
 * Reads /proc only: links there are text, following them would ask the file system itself. A process that ends while
 * it is read is no holder.
 */
export class SystemProcesses implements Processes {
  readonly #files: Files;

  constructor(files: Files) {
    this.#files = files;
  }

  async holders(dev: string, signal: AbortSignal): Promise<RawHolder[]> {
    const tables = new Map<string, MountEntry[]>();
    const found: RawHolder[] = [];
    for (const pid of this.#pids()) {
      signal.throwIfAborted();
      const mounts = await this.#mountsIn(pid, tables);
      const ours = mounts.filter((entry) => entry.dev === dev);
      const held = ours.length === 0 ? undefined : await this.#heldBy(pid, ours, mounts);
      if (held !== undefined) found.push(this.#describe(pid, held));
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
    for (const fd of this.#list(`/proc/${pid}/fd`)) {
      const info = this.#read(`/proc/${pid}/fdinfo/${fd}`);
      const mount = /^mnt_id:\s*(\d+)/m.exec(info ?? '')?.[1];
      if (mount !== undefined && ids.has(mount)) return (await link(`/proc/${pid}/fd/${fd}`)) ?? `fd ${fd}`;
    }
    const maps = this.#read(`/proc/${pid}/maps`, 16 * 1024 * 1024) ?? '';
    const mapped = ours.map((entry) => entry.target).find((target) => maps.includes(` ${target}/`));
    return mapped;
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
