import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, constants, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '#lib/fault.ts';
import { hasProgram, LoopDisk } from './loop-disk.ts';

/** A stick, with what its user has on it: path on the file system → hash of the content. */
export interface Stick {
  readonly serial: string;
  readonly disk: LoopDisk;
  /** Its file systems; the node is that of the whole disk, or of its partitions. */
  readonly files: readonly Map<string, string>[];
  readonly writeProtected: boolean;
  readonly fstype: string;
  /** Nobody can mount it, or nobody may write to it: its image never changes. */
  readonly imageHash: string | undefined;
}

interface Kind {
  readonly label: string;
  readonly fstype: string;
  readonly mib: number;
  readonly make: readonly string[];
  readonly partitions?: number;
  readonly writeProtected?: boolean;
}

const ext4 = (label: string) => ['mkfs.ext4', '-q', '-F', '-L', label];
export const kinds: readonly Kind[] = [
  { label: 'STICK', fstype: 'ext4', mib: 16, make: ext4('STICK') },
  { label: 'STICK', fstype: 'ext4', mib: 48, make: ext4('STICK'), partitions: 2 },
  { label: 'Photos', fstype: 'xfs', mib: 320, make: ['mkfs.xfs', '-q', '-f', '-L', 'Photos'] },
  { label: 'Pool', fstype: 'btrfs', mib: 128, make: ['mkfs.btrfs', '-q', '-f', '-L', 'Pool'] },
  { label: 'Old', fstype: 'ntfs', mib: 16, make: ['mkntfs', '-F', '-f', '-q', '-L', 'Old'] },
  { label: 'CARD', fstype: 'vfat', mib: 16, make: ['mkfs.vfat', '-n', 'CARD'] },
  { label: 'Camera', fstype: 'exfat', mib: 16, make: ['mkfs.exfat', '-L', 'Camera'] },
  { label: 'Sealed', fstype: 'ext4', mib: 16, make: ext4('Sealed'), writeProtected: true },
];

const mountTypes: Readonly<Record<string, string>> = { ntfs: 'ntfs-3g' };

export function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export function act(program: string, ...args: string[]): void {
  execFileSync(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** The file systems of an attached stick, in their order. */
function nodesOf(disk: LoopDisk, count: number): string[] {
  if (count === 0) return [disk.node];
  return Array.from({ length: count }, (_, n) => `${disk.node}p${n + 1}`);
}

export function attach(disk: LoopDisk, partitions: number, readOnly = false): string[] {
  disk.attach(readOnly);
  if (partitions > 0) act('partx', '--update', disk.node);
  return nodesOf(disk, partitions);
}

/** The kernel mounts this type, or would, given a device; NTFS is mounted by a program. */
export function isKnown(fstype: string): boolean {
  const type = fstype === 'ntfs' && hasProgram('ntfs-3g') ? 'fuse' : fstype;
  spawnSync('modprobe', ['--quiet', type], { stdio: 'ignore' });
  return new RegExp(`\\b${type}$`, 'm').test(readFileSync('/proc/filesystems', 'utf8'));
}

/** Makes the file system and puts files on it; a file system that this kernel does not mount stays empty. */
export function makeStick(kind: Kind, serial: string, at: string): Stick | undefined {
  const [program = '', ...args] = kind.make;
  if (!hasProgram(program)) return undefined;
  const disk = new LoopDisk(kind.mib);
  const partitions = kind.partitions ?? 0;
  if (partitions > 0) {
    const half = `size=${Math.floor(kind.mib / partitions) - 2}MiB, type=L`;
    const input = ['label: gpt', ...Array.from({ length: partitions }, () => half), ''].join('\n');
    execFileSync('sfdisk', ['--quiet', disk.image], { input, stdio: ['pipe', 'ignore', 'pipe'] });
  }
  const mounted: boolean[] = [];
  const files = attach(disk, partitions).map((node, n) => {
    act(program, ...args, node);
    const type = mountTypes[kind.fstype] ?? kind.fstype;
    mounted.push(spawnSync('mount', ['-t', type, node, at], { stdio: 'ignore' }).status === 0);
    if (mounted.at(-1) !== true) return new Map<string, string>();
    mkdirSync(join(at, 'sub'));
    for (const name of ['letter.txt', 'sub/photo']) {
      writeFileSync(join(at, name), Buffer.alloc(40_000, `${serial} ${n} ${name} `));
    }
    const kept = read(at);
    act('umount', at);
    return kept;
  });
  disk.detach();
  const writeProtected = kind.writeProtected === true;
  const imageHash = writeProtected || !mounted.includes(true) ? disk.hash() : undefined;
  return { serial, disk, files, writeProtected, fstype: kind.fstype, imageHash };
}

/** Nothing of the kernel holds it. */
export function isFree(disk: LoopDisk): boolean {
  try {
    closeSync(openSync(disk.node, constants.O_RDONLY | constants.O_EXCL));
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EBUSY') return false;
    throw error;
  }
}

/** Every file below a mount point, as hash of its content. */
export function read(at: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const entry of readdirSync(at, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    found.set(path.slice(at.length + 1), hashOf(readFileSync(path)));
  }
  return found;
}
