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
  /**
   * Who has a file, its folder or its root on the file system `dev` (`major:minor`), in whatever mount namespace. Aborted,
   * those who have been found by then; rejects when that is nobody.
   */
  holders(dev: string, signal: AbortSignal): Promise<RawHolder[]>;
  /** One process of each other mount namespace in which the file system is mounted. */
  namespacesWith(dev: string, signal: AbortSignal): Promise<RawHolder[]>;
}

interface Namespace {
  readonly id: string;
  mounts: readonly MountEntry[];
}

interface Process {
  readonly pid: number;
  /** Its folder in /proc, or that of one of its threads. */
  readonly folder: string;
  readonly namespace: Readonly<Namespace>;
}

/** Who may have mapped something, and where the file system is mounted for him. */
interface Mapper {
  readonly pid: number;
  readonly target: string;
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
    const found: RawHolder[] = [];
    try {
      await this.#findHolders(dev, found, signal);
    } catch (error) {
      if (!signal.aborted || found.length === 0) throw error;
    }
    return found;
  }

  async #findHolders(dev: string, found: RawHolder[], signal: AbortSignal): Promise<void> {
    let others = new Map<string, Mapper>();
    for (const { pid, folder, namespace } of await this.#processes(signal)) {
      signal.throwIfAborted();
      const ours = namespace.mounts.filter((entry) => entry.dev === dev);
      const held = ours.length === 0 ? undefined : await this.#heldBy(pid, ours, namespace.mounts);
      if (held !== undefined) found.push(this.#describe(pid, held));
      else if (ours[0] !== undefined) others.set(folder, { pid, target: ours[0].target });
    }
    while (others.size > 0) {
      signal.throwIfAborted();
      for (const folder of await this.#mapped([...others.keys()], dev, signal)) {
        const other = others.get(folder);
        if (other !== undefined && others.delete(folder)) found.push(this.#describe(other.pid, other.target));
      }
      others = await this.#moved(others);
    }
  }

  async namespacesWith(dev: string, signal: AbortSignal): Promise<RawHolder[]> {
    const seen = new Set([await link('/proc/self/ns/mnt')]);
    const found: RawHolder[] = [];
    for (const { pid, namespace } of await this.#processes(signal)) {
      if (seen.has(namespace.id)) continue;
      seen.add(namespace.id);
      const entry = namespace.mounts.find((each) => each.dev === dev);
      if (entry !== undefined) found.push(this.#describe(pid, entry.target));
    }
    return found;
  }

  /** All processes but this one, each with the mounts of its namespace. */
  async #processes(signal: AbortSignal): Promise<Process[]> {
    const found: Process[] = [];
    const namespaces = new Map<string, Namespace & { whole: boolean }>();
    for (const pid of this.#pids()) {
      signal.throwIfAborted();
      for (const folder of this.#folders(pid)) {
        const id = await link(`${folder}/ns/mnt`);
        if (id === undefined) continue;
        const namespace = namespaces.get(id) ?? { id, mounts: [], whole: false };
        if (!namespace.whole && !(await this.#lookInto(namespace, folder))) continue;
        namespaces.set(id, namespace);
        found.push({ pid, folder, namespace });
        break;
      }
    }
    return this.#withOwn(found);
  }

  /** Of our own namespace we ourselves know best. */
  async #withOwn(found: readonly Process[]): Promise<Process[]> {
    const id = await link('/proc/self/ns/mnt');
    const text = this.#read('/proc/self/mountinfo', 64 * 1024 * 1024);
    if (id === undefined || text === undefined) return [...found];
    const own = { id, mounts: parseMountInfo(text) };
    return found.map((each) => (each.namespace.id === id ? { ...each, namespace: own } : each));
  }

  #pids(): number[] {
    return this.#files
      .list('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => pid !== process.pid);
  }

  /** False: what the folder tells of has ended. */
  async #lookInto(namespace: Namespace & { whole: boolean }, folder: string): Promise<boolean> {
    // Who has another root sees only what lies below it.
    const whole = (await link(`${folder}/root`)) === '/';
    const text = this.#read(`${folder}/mountinfo`, 64 * 1024 * 1024);
    if (text === undefined) return false;
    const mounts = parseMountInfo(text);
    if (whole || mounts.length > namespace.mounts.length) namespace.mounts = mounts;
    namespace.whole = whole;
    return true;
  }

  /** Where /proc tells of a process: of its first thread, or of another one when that has ended before the others. */
  *#folders(pid: number): Iterable<string> {
    yield `/proc/${pid}`;
    yield* this.#threads(pid);
  }

  /** Those whose thread has ended while it was read, and others go on: by the folder of one that lives. */
  async #moved(mappers: ReadonlyMap<string, Mapper>): Promise<Map<string, Mapper>> {
    const moved = new Map<string, Mapper>();
    for (const [folder, mapper] of mappers) {
      if ((await link(`${folder}/ns/mnt`)) !== undefined) continue;
      for (const thread of this.#folders(mapper.pid)) {
        if ((await link(`${thread}/ns/mnt`)) === undefined) continue;
        moved.set(thread, mapper);
        break;
      }
    }
    return moved;
  }

  #threads(pid: number): string[] {
    return this.#list(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}`);
  }

  async #heldBy(
    pid: number,
    ours: readonly MountEntry[],
    all: readonly MountEntry[],
  ): Promise<string | undefined> {
    const ids = new Set(ours.map((entry) => String(entry.id)));
    let files = '';
    for (const folder of this.#threads(pid)) {
      for (const what of ['cwd', 'root', 'exe']) {
        const path = await link(`${folder}/${what}`);
        if (path !== undefined && liesOn(path, ours, all)) return path;
      }
      // Threads share their files, unless one has asked for its own: then it has others, or more, than the one before.
      const open = this.#list(`${folder}/fd`);
      if (open.join() === files) continue;
      const held = await this.#openOn(folder, open, ids);
      if (held !== undefined) return held;
      // A thread that has ended meanwhile could not be read to the end, and says nothing of those that go on.
      const stillOpen = this.#list(`${folder}/fd`).join();
      files = stillOpen === open.join() ? stillOpen : '';
    }
    return undefined;
  }

  async #openOn(
    folder: string,
    open: readonly string[],
    mountIds: ReadonlySet<string>,
  ): Promise<string | undefined> {
    for (const [n, fd] of open.entries()) {
      if (n % descriptorsInOneTurn === descriptorsInOneTurn - 1) await setImmediate();
      const info = this.#read(`${folder}/fdinfo/${fd}`);
      const mount = /^mnt_id:\s*(\d+)/m.exec(info ?? '')?.[1];
      if (mount !== undefined && mountIds.has(mount)) return (await link(`${folder}/fd/${fd}`)) ?? `fd ${fd}`;
    }
    return undefined;
  }

  /** Those of the folders of /proc that map a file of the file system; none of them when that cannot be told in time. */
  async #mapped(folders: readonly string[], dev: string, signal: AbortSignal): Promise<string[]> {
    if (folders.length === 0) return [];
    // proc_pid_maps(5): the numbers are written in hexadecimal there, at least two digits each.
    const wanted = dev.split(':').map((part) => Number(part).toString(16).padStart(2, '0'));
    const maps = folders.map((folder) => `${folder}/maps`);
    const args = ['-lsF', '-e', ` ${wanted.join(':')} `, '--', ...maps];
    try {
      const options = { timeoutMs: mapsTimeout, signal, okCodes: [0, 1, 2] };
      const { stdout } = await this.#exec.run('grep', args, options);
      return [...stdout.matchAll(/^(.*)\/maps$/gm)].map((match) => match[1] ?? '');
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
