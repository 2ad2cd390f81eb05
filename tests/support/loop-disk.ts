import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { BlockDevice, Devices } from '#host/udev.ts';

/** Why loop devices cannot be used here; undefined: they can. */
export function noLoopDevices(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  if (!existsSync('/dev/loop-control')) return 'this kernel has no loop devices';
  return undefined;
}

export function hasProgram(name: string): boolean {
  return spawnSync('which', [name], { stdio: 'ignore' }).status === 0;
}

/** A disk made of a sparse file behind a loop device. */
export class LoopDisk implements Disposable {
  readonly image: string;
  readonly size: number;
  node = '';
  readonly #folder: string;

  constructor(mib: number) {
    this.#folder = mkdtempSync(join(tmpdir(), 'beosd-disk-'));
    this.image = join(this.#folder, 'image');
    this.size = mib * 1024 * 1024;
    const fd = openSync(this.image, 'w');
    ftruncateSync(fd, this.size);
    closeSync(fd);
  }

  attach(readOnly = false): this {
    const flags = readOnly ? ['--read-only'] : [];
    this.node = execFileSync('losetup', ['--find', '--show', ...flags, this.image], {
      encoding: 'utf8',
    }).trim();
    return this;
  }

  get name(): string {
    return basename(this.node);
  }

  write(at: number, bytes: Uint8Array | string): this {
    const fd = openSync(this.image, 'r+');
    const data = Buffer.from(bytes);
    writeSync(fd, data, 0, data.length, at < 0 ? this.size + at : at);
    closeSync(fd);
    return this;
  }

  run(program: string, ...args: string[]): this {
    execFileSync(program, [...args, this.image], { stdio: ['ignore', 'ignore', 'pipe'] });
    return this;
  }

  /** Hash of all bytes of the image. */
  hash(): string {
    const hash = createHash('sha256');
    const fd = openSync(this.image, 'r');
    const chunk = Buffer.allocUnsafe(4 * 1024 * 1024);
    for (let at = 0; at < this.size; ) {
      const count = readSync(fd, chunk, 0, chunk.length, at);
      hash.update(chunk.subarray(0, count));
      at += count;
    }
    closeSync(fd);
    return hash.digest('hex');
  }

  #unmount(): void {
    if (this.node === '') return;
    const ours = new RegExp(` - \\S+ ${this.node}(p\\d+)? `);
    const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const targets = lines.filter((line) => ours.test(line)).map((line) => line.split(' ')[4] ?? '');
    for (const target of targets.reverse()) spawnSync('umount', ['--', target], { stdio: 'ignore' });
  }

  detach(): void {
    if (this.node === '') return;
    spawnSync('partx', ['--delete', this.node], { stdio: 'ignore' });
    spawnSync('losetup', ['--detach', this.node], { stdio: 'ignore' });
    this.node = '';
  }

  /** A daemon that is closed leaves its mounts; the machine that runs the tests is to keep none of them. */
  [Symbol.dispose](): void {
    this.#unmount();
    this.detach();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

interface Plugged {
  readonly disk: LoopDisk;
  readonly serial: string;
  readonly sequence: string;
}

/**
 * Loop devices as if they hung on a USB port. Numbers and sizes come from sysfs, contents from blkid, as udev would have
 * it; with `database: false` udev knows nothing, so that only reading the device itself can tell.
 */
export class LoopDevices implements Devices {
  readonly plugged: Plugged[] = [];
  database = true;
  /** Devices that are built on a disk, as sysfs would name them. */
  readonly holders = new Map<LoopDisk, readonly string[]>();
  /** Ask blkid once for each appearance: what udev would do, and quicker where contents do not change. */
  remember = false;
  readonly #known = new Map<string, Record<string, string>>();
  readonly #watchers = new Set<() => void>();

  plug(disk: LoopDisk, serial: string, sequence = `${this.plugged.length + 1}`): void {
    this.plugged.push({ disk, serial, sequence });
    for (const tell of this.#watchers) tell();
  }

  unplug(disk: LoopDisk): void {
    const at = this.plugged.findIndex((each) => each.disk === disk);
    if (at >= 0) this.plugged.splice(at, 1);
    for (const tell of this.#watchers) tell();
  }

  watch(onChange: () => void) {
    this.#watchers.add(onChange);
    return { close: () => this.#watchers.delete(onChange) };
  }

  list(): BlockDevice[] {
    return this.plugged.flatMap((each) => this.#devicesOf(each));
  }

  #devicesOf({ disk, serial, sequence }: Plugged): BlockDevice[] {
    const sys = `/sys/class/block/${disk.name}`;
    const read = (path: string) => readFileSync(path, 'utf8').trim();
    const parts = readdirSync(sys).filter((name) => name.startsWith(`${disk.name}p`));
    const place = `/sys/devices/pci0000:00/usb1/1-1/1-1:1.0/host0/block/${disk.name}`;
    return [disk.name, ...parts].map((name): BlockDevice => {
      const isPart = name !== disk.name;
      const own = isPart ? `${sys}/${name}` : sys;
      const node = `/dev/${name}`;
      return {
        name,
        node,
        dev: read(`${own}/dev`),
        sysPath: isPart ? `${place}/${name}` : place,
        kind: isPart ? 'partition' : 'disk',
        parent: isPart ? disk.name : undefined,
        size: Number(read(`${own}/size`)) * 512,
        readOnly: read(`${sys}/ro`) === '1',
        removable: true,
        holders: [...readdirSync(`${own}/holders`), ...(this.holders.get(disk) ?? [])],
        slaves: [],
        links: [],
        sequence,
        properties: {
          ID_SERIAL: `Loop_${serial}`,
          ID_SERIAL_SHORT: serial,
          ID_MODEL_ENC: 'Loop',
          ...(this.database ? this.#probed(node, sequence) : {}),
        },
      };
    });
  }

  #probed(node: string, sequence: string): Record<string, string> {
    const key = `${sequence} ${node}`;
    const known = this.remember ? this.#known.get(key) : undefined;
    const properties = known ?? probed(node);
    this.#known.set(key, properties);
    return properties;
  }

  /** The daemon that listened is gone. */
  forgetWatchers(): void {
    this.#watchers.clear();
  }
}

function probed(node: string): Record<string, string> {
  const { stdout } = spawnSync('blkid', ['-p', '-o', 'udev', node], { encoding: 'utf8' });
  const pairs = stdout.split('\n').filter((line) => line.includes('='));
  return Object.fromEntries(
    pairs.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
}
