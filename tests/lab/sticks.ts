import { mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RunResult, SystemExec } from '#host/exec.ts';
import { debianTree } from './tree.ts';

export type StickFilesystem = 'vfat' | 'exfat' | 'ntfs' | 'ext4' | 'xfs' | 'btrfs' | 'swap' | 'luks';

export interface Stick {
  /** Where the raw image is written. */
  readonly image: string;
  /** `undefined` leaves it blank. */
  readonly filesystem?: StickFilesystem;
  readonly label?: string;
  readonly uuid?: string;
  /** Size of the file system, MiB. Default 64; xfs and btrfs need about 300 and 110. */
  readonly sizeMiB?: number;
  /** Which partition table it is in; `none` puts it on the whole disk. Default `dos`. */
  readonly table?: 'dos' | 'gpt' | 'none';
  /** A folder whose files are on it from the start; ext4 only. */
  readonly files?: string;
}

const mebibyte = 1024 * 1024;
const dosType: Readonly<Record<StickFilesystem, string>> = {
  ...{ vfat: 'c', exfat: '7', ntfs: '7', ext4: '83', xfs: '83', btrfs: '83', swap: '82', luks: '83' },
};

/** Makes the raw image of a stick or disk with the tools of the Debian tree, without loop devices. */
export async function makeStick(stick: Stick): Promise<void> {
  const folder = await mkdtemp(join(dirname(stick.image), 'stick-'));
  try {
    const size = (stick.sizeMiB ?? 64) * mebibyte;
    const volume = join(folder, 'volume');
    await writeFile(volume, '');
    await truncate(volume, size);
    const format = stick.filesystem === undefined ? undefined : formatting(stick, stick.filesystem);
    if (format !== undefined) await inTree(folder, format);
    if (stick.table === 'none' || stick.filesystem === undefined) await rename(volume, stick.image);
    else await partition(stick, stick.filesystem, folder, size);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Runs a program of the Debian tree that sees `folder` as /mnt. */
export async function inTree(folder: string, argv: readonly string[], stdin = ''): Promise<RunResult> {
  const script = fileURLToPath(new URL('in-tree.sh', import.meta.url));
  const alone = ['--mount', '--propagation', 'private', script, await debianTree(), folder];
  return await new SystemExec().run('unshare', [...alone, ...argv], { stdin, timeoutMs: 60_000 });
}

/** One partition from 1 MiB on, and another MiB behind it for the second table of GPT. */
async function partition(stick: Stick, kind: StickFilesystem, folder: string, size: number): Promise<void> {
  const dos = stick.table !== 'gpt';
  const type = dos ? `, type=${dosType[kind]}` : '';
  const layout = `label: ${dos ? 'dos' : 'gpt'}\nstart=2048, size=${size / 512}${type}\n`;
  await writeTable(folder, size, layout);
  await inTree(folder, ['dd', ...copyTo(1)]);
  await rename(join(folder, 'disk'), stick.image);
}

/** A disk of this content, with a table and a MiB at each end for it. */
async function writeTable(folder: string, size: number, layout: string): Promise<void> {
  await writeFile(join(folder, 'disk'), '');
  await truncate(join(folder, 'disk'), size + 2 * mebibyte);
  await inTree(folder, ['sfdisk', '--quiet', '--no-reread', '--no-tell-kernel', '/mnt/disk'], layout);
}

function copyTo(atMiB: number): readonly string[] {
  return [
    ...['if=/mnt/volume', 'of=/mnt/disk', 'bs=1M', `seek=${atMiB}`, 'conv=notrunc,sparse', 'status=none'],
  ];
}

/** A partition of a disk of several. */
export interface Part {
  readonly filesystem: StickFilesystem;
  readonly label?: string;
  /** A name or number that sfdisk knows. Default: Linux data. */
  readonly type?: string;
}

/** Makes a disk of several partitions, of 32 MiB each, in a GPT. */
export async function makeParts(image: string, parts: readonly Part[]): Promise<void> {
  const [folder, each] = [await mkdtemp(join(dirname(image), 'stick-')), 32];
  try {
    const line = ({ type = 'L' }: Part, at: number) =>
      `start=${(1 + at * each) * 2048}, size=${each * 2048}, type=${type}`;
    const layout = ['label: gpt', ...parts.map(line), ''].join('\n');
    await writeTable(folder, parts.length * each * mebibyte, layout);
    for (const [at, { filesystem, label }] of parts.entries()) {
      await rm(join(folder, 'volume'), { force: true });
      await writeFile(join(folder, 'volume'), '');
      await truncate(join(folder, 'volume'), each * mebibyte);
      await inTree(folder, formatting({ image, ...(label === undefined ? {} : { label }) }, filesystem));
      await inTree(folder, ['dd', ...copyTo(1 + at * each)]);
    }
    await rename(join(folder, 'disk'), image);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** The command that formats /mnt/volume. */
function formatting({ label, uuid, files }: Stick, kind: StickFilesystem): readonly string[] {
  const option = (name: string, value: string | undefined) => (value === undefined ? [] : [name, value]);
  const volume = '/mnt/volume';
  if (files !== undefined && kind !== 'ext4') throw new Error(`lab: ${kind} is made empty`);
  const commands: Readonly<Record<StickFilesystem, readonly string[]>> = {
    vfat: ['mkfs.vfat', ...option('-n', label), ...option('-i', uuid?.replace('-', '')), volume],
    exfat: ['mkfs.exfat', ...option('-L', label), ...option('-U', uuid), volume],
    ntfs: [
      'mkntfs',
      '-q',
      '-F',
      '-Q',
      ...['-s', '512', '-p', '2048', '-H', '16', '-S', '63'],
      ...option('-L', label),
      volume,
    ],
    ext4: ['mke2fs', '-q', '-t', 'ext4', ...option('-L', label), ...option('-U', uuid), volume],
    xfs: ['mkfs.xfs', '-q', ...option('-L', label), ...(uuid ? ['-m', `uuid=${uuid}`] : []), volume],
    btrfs: ['mkfs.btrfs', '-q', ...option('-L', label), ...option('-U', uuid), volume],
    swap: ['mkswap', ...option('-L', label), ...option('-U', uuid), volume],
    luks: [
      'cryptsetup',
      'luksFormat',
      '--batch-mode',
      '--pbkdf=pbkdf2',
      '--pbkdf-force-iterations=1000',
      '--key-file=/etc/hostname',
      volume,
    ],
  };
  return commands[kind];
}
