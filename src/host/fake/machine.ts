import { ExecError } from '#host/exec.ts';
import { devicesOf, type Plugged } from '#host/fake/block-devices.ts';
import type { Folders, Seen } from '#host/folders.ts';
import { type FsUsage, type MountEntry, type MountRequest, type Mounts, topmostAt } from '#host/mounts.ts';
import type { Devices } from '#host/udev.ts';

/** A file system with what users keep on it. */
export interface FakeVolume {
  readonly fstype: string;
  readonly uuid: string;
  readonly label: string;
  readonly files: Map<string, string>;
  /** The journal must be replayed, which a device that cannot be written does not allow. */
  dirty?: boolean;
  /** Mounting fails with these words. */
  broken?: string;
  /** An option that no mount of it may have. */
  refuses?: string;
}

export interface FakeDisk {
  readonly serial: string;
  readonly model: string;
  readonly transport: 'usb' | 'sata';
  readonly volumes: readonly FakeVolume[];
  readonly writeProtected?: boolean;
}

interface Mounted extends MountEntry {
  readonly volume: FakeVolume | undefined;
  /** The kernel made it when somebody went there, and takes it away again with the mount that it stands on. */
  readonly byItself?: true;
}

function errno(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

function failed(file: string, words: string, reason: 'exit' | 'timeout' = 'exit'): ExecError {
  const exitCode = reason === 'exit' ? 32 : null;
  return new ExecError({ file, args: [], reason, exitCode, stdout: '', stderr: words });
}

/** What the kernel settles on when nothing is asked for is the newest that it speaks. */
function nfsVersionOf(options: readonly string[]): string {
  return options.find((option) => option.startsWith('vers=')) ?? 'vers=4.2';
}

/** What the kernel shows of an NFS mount; `hard`, `timeo=600` and `retrans=2` unless something else is asked for. */
function nfsShows(source: string, options: readonly string[]): string[] {
  const asked = (name: string) => options.find((option) => option.startsWith(`${name}=`));
  const patience = options.includes('soft') ? 'soft' : 'hard';
  const server = source.slice(0, source.lastIndexOf(':/'));
  const waits = [patience, asked('timeo') ?? 'timeo=600', asked('retrans') ?? 'retrans=2'];
  return [nfsVersionOf(options), ...waits, `addr=${server}`];
}

/**
 * Disks, mount table and folders of a machine that exists only in memory. It keeps a list of what nobody may do
 * (`wrongs`), so that a test can say that none of it happened.
 */
export class FakeMachine {
  readonly wrongs: string[] = [];
  /** Set by a test: programs hold these mount points. */
  readonly busy = new Set<string>();
  /** Sources of shares that can be mounted, with what is on them; a server that is down is not in it. */
  readonly shares = new Map<string, FakeVolume>();
  /** File servers that answer. */
  readonly servers = new Set<string>();
  /** Lines of fstab: mount point → UUID. */
  readonly fstab = new Map<string, string>();
  /** Paths that are links, with where they lead. */
  readonly links = new Map<string, string>();
  /** NFS versions whose old connection the kernel still holds on to: a mount by them waits. */
  readonly stuck = new Set<string>();
  /** Mount points that do not answer. */
  readonly dead = new Set<string>();
  readonly #plugged: (Plugged & { readonly disk: FakeDisk })[] = [];
  #mounts: Mounted[] = [];
  readonly #folders = new Map<string, string>();
  readonly #files = new Set<string>();
  readonly #watchers = new Set<() => void>();
  #nextMount = 100;
  #nextFolder = 1;
  #nextSequence = 1;

  constructor(folders: readonly string[] = ['/']) {
    for (const path of folders) this.#folders.set(path, `root${path}`);
    this.#mounts.push(this.#entry('/dev/vda1', '/', 'ext4', [], '254:1', undefined));
  }

  // --- what a person does -------------------------------------------------------------------------------------

  plug(disk: FakeDisk): void {
    // The kernel gives neither the name nor the number of a disk away as long as something is mounted from it.
    const isUsed = (n: number) =>
      this.#plugged.some((each) => each.index === n) ||
      this.#mounts.some(({ dev }) => dev.startsWith('8:') && Math.floor(Number(dev.slice(2)) / 16) === n);
    let index = 0;
    while (isUsed(index)) index++;
    const name = `sd${String.fromCharCode(97 + index)}`;
    this.#plugged.push({ disk, name, index, sequence: this.#nextSequence++ });
    this.#changed();
  }

  unplug(disk: FakeDisk): void {
    const at = this.#plugged.findIndex((each) => each.disk === disk);
    if (at >= 0) this.#plugged.splice(at, 1);
    this.#changed();
  }

  isPlugged(disk: FakeDisk): boolean {
    return this.#plugged.some((each) => each.disk === disk);
  }

  nodesOf(disk: FakeDisk): string[] {
    const plugged = this.#plugged.find((each) => each.disk === disk);
    return plugged === undefined ? [] : disk.volumes.map((_, n) => `/dev/${plugged.name}${n + 1}`);
  }

  /** A mount by somebody else. */
  mountForeign(source: string, target: string, options: readonly string[] = []): number {
    const volume = this.#volumeAt(source);
    const fstype = volume?.fstype ?? 'tmpfs';
    const entry = this.#entry(source, target, fstype, options, this.#devOf(source), volume);
    this.#mounts.push(entry);
    return entry.id;
  }

  /**
   * Somebody goes into a folder of an NFS mount that is an export of its own: the kernel mounts it there, with the options
   * of what it stands on.
   */
  enterExport(path: string): number {
    const on = this.#mountOn(path);
    if (on === undefined) throw new Error(`nothing is mounted around ${path}`);
    const source = `${on.source.replace(/\/+$/, '')}${path.slice(on.target.length)}`;
    const { options, superOptions } = on;
    const entry = this.#entry(source, path, on.fstype, options, this.#devOf(source), undefined);
    this.#mounts.push({ ...entry, superOptions, byItself: true });
    return entry.id;
  }

  umountForeign(id: number): void {
    this.#mounts = this.#mounts.filter((entry) => entry.id !== id);
  }

  makeForeign(path: string, kind: 'folder' | 'file'): void {
    if (kind === 'file') this.#files.add(path);
    else if (!this.#folders.has(path)) this.#folders.set(path, `folder-${this.#nextFolder++}`);
  }

  /** Somebody removes a folder that is empty and makes one of his own in its place. False: there is none, or it is filled. */
  replaceFolder(path: string): boolean {
    if (!this.#folders.has(path) || this.#childrenOf(path).length > 0) return false;
    this.#folders.set(path, `folder-${this.#nextFolder++}`);
    return true;
  }

  removeForeign(path: string): void {
    this.#files.delete(path);
  }

  volumeOf(mount: number): FakeVolume | undefined {
    return this.#mounts.find((entry) => entry.id === mount)?.volume;
  }

  hasFolder(path: string): boolean {
    return this.#folders.has(path);
  }

  /** Power goes and comes back: nothing is mounted but the root, disks get new numbers, files stay. */
  reboot(): void {
    this.#mounts = this.#mounts.filter((entry) => entry.target === '/');
    this.#nextMount = 101; // a kernel that starts counts from the beginning
    const disks = this.#plugged.splice(0).map((each) => each.disk);
    for (const disk of disks) this.plug(disk);
  }

  /** The daemon that listened is gone. */
  forgetWatchers(): void {
    this.#watchers.clear();
  }

  // --- what a daemon sees -------------------------------------------------------------------------------------

  /** The ports of one daemon. `guard` runs before each call and may throw: that is how a test lets a daemon die. */
  ports(guard: (call: string) => void = () => undefined): {
    devices: Devices;
    mounts: Mounts;
    folders: Folders;
  } {
    const after =
      <A extends unknown[], R>(name: string, work: (...args: A) => R) =>
      (...args: A): R => {
        guard(name);
        return work(...args);
      };
    const later =
      <A extends unknown[], R>(name: string, work: (...args: A) => R) =>
      async (...args: A): Promise<R> => {
        guard(name);
        const result = work(...args);
        guard(`${name} done`);
        return result;
      };
    return {
      devices: {
        list: after('devices', () => this.#plugged.flatMap((plugged) => devicesOf(plugged))),
        watch: (onChange) => {
          this.#watchers.add(onChange);
          return { close: () => this.#watchers.delete(onChange) };
        },
      },
      mounts: {
        list: after('mounts', () => this.entries()),
        mount: later('mount', (request: MountRequest) => this.#mount(request)),
        leadsTo: later('leadsTo', (path: string) => this.links.get(path) ?? path),
        mountFstab: later('mountFstab', (request: Omit<MountRequest, 'fstype'>) => this.#mountFstab(request)),
        umount: later('umount', (target: string, how: { readonly lazy: boolean }) =>
          this.#umount(target, how.lazy),
        ),
        flush: later('flush', (target: string) => this.#ask(target)),
        usage: later('usage', (target: string) => this.#usage(target)),
      },
      folders: {
        look: after('look', (path: string) => this.#look(path)),
        make: after('make', (path: string) => this.#make(path)),
        rename: after('rename', (from: string, to: string) => this.#rename(from, to)),
        remove: after('remove', (path: string) => this.#remove(path)),
        list: after('list', (path: string) =>
          this.#childrenOf(path).map((child) => child.slice(path.length + 1)),
        ),
        ensure: after('ensure', (path: string) => this.#ensure(path)),
      },
    };
  }

  #changed(): void {
    for (const tell of [...this.#watchers]) tell();
  }

  entries(): MountEntry[] {
    return [...this.#mounts];
  }

  #mount(request: MountRequest): void {
    const volume = this.#volumeAt(request.source);
    if (!this.#folders.has(request.target) && topmostAt(this.#mounts, request.target) === undefined)
      throw failed('mount', `mount: ${request.target}: mount point does not exist.`);
    if (volume === undefined)
      throw failed('mount', `mount error(113): could not connect to ${request.source}`);
    if (volume.broken !== undefined) throw failed('mount', volume.broken);
    if (request.options.some((option) => option === volume.refuses))
      throw failed('mount', 'mount.nfs: Protocol not supported');
    if (request.fstype === 'nfs' && this.stuck.has(nfsVersionOf(request.options)))
      throw failed('mount', '', 'timeout');
    const readOnly = request.options.includes('ro');
    if (volume.dirty === true && !readOnly)
      throw failed('mount', 'volume is dirty and "force" flag is not set');
    const owners = request.options.some((option) => option.startsWith('uid='));
    if (owners && ['ext4', 'xfs', 'btrfs'].includes(volume.fstype))
      throw failed('mount', `${volume.fstype}: unknown option uid`);
    const dev = this.#devOf(request.source);
    // mount(8) falls back to reading of a device that is write-protected.
    const { disk } = this.#plugged.find(({ name }) => request.source.startsWith(`/dev/${name}`)) ?? {};
    const options = disk?.writeProtected === true ? [...request.options, 'ro'] : request.options;
    this.#mounts.push(this.#entry(request.source, request.target, request.fstype, options, dev, volume));
  }

  #mountFstab(request: Omit<MountRequest, 'fstype'>): void {
    const device = this.#plugged.flatMap(devicesOf).find((each) => each.node === request.source);
    const uuid = device?.properties?.['ID_FS_UUID'];
    if (uuid === undefined || this.fstab.get(request.target) !== uuid)
      throw failed('mount', `mount: ${request.target}: can't find in /etc/fstab.`);
    this.#mount({ ...request, fstype: 'auto' });
  }

  #umount(target: string, lazy: boolean): void {
    const entry = topmostAt(this.#mounts, target);
    if (entry === undefined) throw failed('umount', `umount: ${target}: not mounted.`);
    if (!lazy) this.#shrink(target);
    const inside = this.#mounts.filter((each) => each.target.startsWith(`${target}/`));
    if (!lazy && (this.busy.has(target) || inside.length > 0))
      throw failed('umount', `umount: ${target}: target is busy.`);
    const gone = new Set([entry.id, ...inside.map((each) => each.id)]);
    this.#mounts = this.#mounts.filter((each) => !gone.has(each.id));
  }

  /** What umount(2) does first, also where it is refused then: mounts made by the kernel go that nobody uses. */
  #shrink(target: string): void {
    const isIdle = (each: Mounted) =>
      each.byItself === true &&
      each.target.startsWith(`${target}/`) &&
      !this.busy.has(each.target) &&
      !this.#mounts.some(({ parent }) => parent === each.id);
    for (let idle = this.#mounts.filter(isIdle); idle.length > 0; idle = this.#mounts.filter(isIdle)) {
      const gone = new Set(idle.map(({ id }) => id));
      this.#mounts = this.#mounts.filter(({ id }) => !gone.has(id));
    }
  }

  /** The mount that a mount at this path stands on. */
  #mountOn(path: string): Mounted | undefined {
    const holds = ({ target }: Mounted) => target === path || target === '/' || path.startsWith(`${target}/`);
    const around = this.#mounts.filter(holds);
    const deepest = Math.max(...around.map(({ target }) => target.length));
    return around.findLast(({ target }) => target.length === deepest);
  }

  #ask(target: string): void {
    if (this.dead.has(target)) throw failed('stat', `${target}: Host is down`);
  }

  #usage(target: string): FsUsage {
    this.#ask(target);
    return { blockSize: 4096, blocks: 1000, free: 400, available: 350, inodes: 100, inodesFree: 60 };
  }

  #look(path: string): Seen | undefined {
    if (topmostAt(this.#mounts, path) !== undefined) this.wrongs.push(`looked into the mount at ${path}`);
    if (this.#files.has(path)) return { kind: 'other' };
    const id = this.#folders.get(path);
    return id === undefined ? undefined : { kind: 'folder', id, empty: this.#childrenOf(path).length === 0 };
  }

  #make(path: string): string {
    if (this.#folders.has(path) || this.#files.has(path)) throw errno('EEXIST', path);
    const id = `folder-${this.#nextFolder++}`;
    this.#folders.set(path, id);
    return id;
  }

  #rename(from: string, to: string): void {
    const id = this.#folders.get(from);
    if (id === undefined) throw errno('ENOENT', from);
    if (this.#folders.has(to) || this.#files.has(to)) throw errno('EEXIST', to);
    this.#folders.delete(from);
    this.#folders.set(to, id);
  }

  #remove(path: string): boolean {
    if (!this.#folders.has(path) || this.#childrenOf(path).length > 0) return false;
    if (this.#mounts.some((entry) => entry.target === path)) return false;
    this.#folders.delete(path);
    return true;
  }

  #ensure(path: string): void {
    if (!this.#folders.has(path)) this.#folders.set(path, `folder-${this.#nextFolder++}`);
  }

  #entry(
    source: string,
    target: string,
    fstype: string,
    options: readonly string[],
    dev: string,
    volume: FakeVolume | undefined,
  ): Mounted {
    const id = this.#nextMount++;
    const superOptions = fstype === 'nfs' ? nfsShows(source, options) : [];
    const parent = this.#mountOn(target)?.id ?? 1;
    const plain = { parent, root: '/', propagation: [], superOptions };
    return { ...plain, id, dev, target, options, fstype, source, volume };
  }

  #volumeAt(source: string): FakeVolume | undefined {
    for (const { disk, name } of this.#plugged) {
      const n = source.startsWith(`/dev/${name}`) ? Number(source.slice(`/dev/${name}`.length)) : 0;
      if (n > 0) return disk.volumes[n - 1];
    }
    return this.shares.get(source);
  }

  #devOf(source: string): string {
    const device = this.#plugged.flatMap(devicesOf).find((each) => each.node === source);
    return device?.dev ?? `0:${1000 + this.#nextMount}`;
  }

  #childrenOf(path: string): string[] {
    const inside = (each: string) =>
      each.startsWith(`${path}/`) && !each.slice(path.length + 1).includes('/');
    return [...this.#folders.keys(), ...this.#files].filter(inside).sort();
  }
}
