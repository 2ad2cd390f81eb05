import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { type Exec, ExecError, type RunOptions } from '#host/exec.ts';
import type { Files } from '#host/files.ts';

export type Formattable = 'ext4' | 'xfs' | 'btrfs' | 'exfat';

/** Something recognisable on a device: `gpt`, `ext4`, `LVM2_member`, and where it was found. */
export interface Signature {
  readonly type: string;
  readonly offset: string;
}

export interface Claim {
  release(): Promise<void>;
}

export interface Health {
  readonly passed: boolean;
  readonly message: string;
}

/** What a disk is to become. The UUIDs are chosen beforehand, so that after a crash our own work can be told. */
export interface Layout {
  readonly filesystem: Formattable;
  readonly label: string;
  readonly tableUuid: string;
  readonly partUuid: string;
  /** Not for exfat, whose serial number is too short to be one. */
  readonly fsUuid: string;
}

const programDirs = ['/usr/sbin', '/usr/bin', '/sbin', '/bin', '/usr/local/sbin', '/usr/local/bin'];

/** Acts on whole disks, by the distribution's own tools; each in a child with a deadline. */
export interface Disks {
  /** What is on the device itself, read from it now and not from a database. */
  signatures(node: string): Promise<Signature[]>;
  /** udev-style properties (`ID_FS_TYPE`, …) read from the device now. */
  probe(node: string): Promise<Record<string, string>>;
  /** Nothing but zeros in the first 32 MiB, where partitions begin, and in the last MiB. */
  endsAreZero(node: string, size: number): Promise<boolean>;
  /**
   * Opens for us alone (O_EXCL): throws EBUSY when it, or a partition of it, is mounted, or held by dm, md or swap. For
   * reading, so that also a write-protected one can be asked, and udev does not take the end of it for a change.
   */
  claim(node: string): Promise<Claim>;
  /** Keeps it open, so that its name stays its own: pulled meanwhile, it leaves the name unused and not to another. */
  hold(node: string): Promise<Claim>;
  /**
   * Lets the kernel forget the partitions of a disk that has some, until its table is read again; what is on the disk
   * stays. Throws when one is open, and then brings back those that it had forgotten. Goes beside a claim of ours.
   */
  forgetPartitions(node: string): Promise<void>;
  /** Adds the partitions of its table that the kernel does not know; those that it knows stay. Never fails. */
  recallPartitions(node: string): Promise<void>;
  /** Removes every signature and zeroes both ends, as far as {@link endsAreZero} looks. Goes beside a claim of ours. */
  wipe(node: string, size: number): Promise<void>;
  /** Programs that making this file system needs and the machine does not have. */
  missing(filesystem: Formattable): string[];
  /** A GPT with one partition over the whole disk; the kernel knows it when this returns. */
  partition(node: string, layout: Layout): Promise<void>;
  format(node: string, layout: Layout): Promise<void>;
  /** Gives the top folder of a file system to a user, and nothing that is in it; a link in its place is not followed. */
  give(folder: string, owner: { readonly uid: number; readonly gid: number }): Promise<void>;
  /** udev has handled everything that is under way. */
  settle(): Promise<void>;
  /**
   * No program writes to a disk any more that this daemon, or an earlier one that was killed, has started: they outlive
   * it. Throws when one still does after a quarter of an hour.
   */
  quiet(): Promise<void>;
  /** SMART verdict; undefined: the disk or the machine cannot tell. */
  health(node: string): Promise<Health | undefined>;
  /**
   * Stops a USB disk: flushes its cache and takes the device off the bus. False: it cannot be done here, or must not, for
   * the device is a card reader that stays.
   */
  powerDown(node: string, sysPath: string): Promise<boolean>;
}

const MiB = 1024 * 1024;
const formatDeadline = 15 * 60_000;
/** None of the programs ends with it (EX_TEMPFAIL). */
const stillLocked = 75;
/**
 * Where a file system can begin whose partition table was overwritten: 1 MiB on PCs, 4 MiB on SDHC and 16 MiB on SDXC
 * cards (SD File System Specification), each with its superblock soon after.
 */
const headLength = 32 * MiB;
/** Partition types: https://uapi-group.org/specifications/specs/discoverable_partitions_specification/ */
const linuxData = '0FC63DAF-8483-4772-8E79-3D69D8477DE4';
const basicData = 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7';

export class SystemDisks implements Disks {
  readonly #exec: Exec;
  readonly #files: Files;
  readonly #lock: string;

  /** `lock` is a file that every program which writes to a disk holds locked until it ends. */
  constructor(exec: Exec, files: Files, lock: string) {
    this.#exec = exec;
    this.#files = files;
    this.#lock = lock;
  }

  async signatures(node: string): Promise<Signature[]> {
    const args = ['--no-act', '--json', '--output', 'TYPE,OFFSET', '--', node];
    const { stdout } = await this.#exec.run('wipefs', args, { timeoutMs: 30_000 });
    if (stdout.trim() === '') return [];
    const parsed = JSON.parse(stdout) as { signatures?: { type?: unknown; offset?: unknown }[] };
    return (parsed.signatures ?? []).map((each) => ({
      type: String(each.type ?? '?'),
      offset: String(each.offset ?? '?'),
    }));
  }

  async probe(node: string): Promise<Record<string, string>> {
    // 2: nothing was found. 8: more than one thing was found, which is not nothing.
    const result = await this.#exec.run('blkid', ['-p', '-o', 'udev', '--', node], {
      timeoutMs: 30_000,
      okCodes: [0, 2, 8],
    });
    if (result.exitCode === 8) return { ID_FS_AMBIVALENT: '1' };
    const properties: Record<string, string> = {};
    for (const line of result.stdout.split('\n')) {
      const equals = line.indexOf('=');
      if (equals > 0) properties[line.slice(0, equals)] = line.slice(equals + 1);
    }
    return properties;
  }

  async endsAreZero(node: string, size: number): Promise<boolean> {
    const tail = Math.min(MiB, size);
    return (
      (await this.#isZero(node, 0, Math.min(headLength, size))) &&
      (await this.#isZero(node, size - tail, tail))
    );
  }

  async claim(node: string): Promise<Claim> {
    const handle = await open(node, constants.O_RDONLY | constants.O_EXCL);
    return { release: () => handle.close() };
  }

  async hold(node: string): Promise<Claim> {
    const handle = await open(node, constants.O_RDONLY);
    return { release: () => handle.close() };
  }

  async forgetPartitions(node: string): Promise<void> {
    try {
      await this.#exec.run('partx', ['--delete', '--', node], { timeoutMs: 30_000 });
    } catch (error) {
      await this.recallPartitions(node);
      throw error;
    }
  }

  async recallPartitions(node: string): Promise<void> {
    // It fails for those that are still there, and adds the others (--update stops at a gap in their numbers).
    await this.#exec.run('partx', ['--add', '--', node], { timeoutMs: 30_000 }).catch(() => undefined);
  }

  async wipe(node: string, size: number): Promise<void> {
    // --force: without it wipefs asks for a claim of its own, which it does not get beside ours (wipefs.c, O_EXCL).
    await this.#write('wipefs', ['--all', '--force', '--quiet', '--', node], { timeoutMs: 60_000 });
    const tail = Math.min(MiB, size);
    for (const [at, count] of [
      [0, Math.min(headLength, size)],
      [size - tail, tail],
    ] as const) {
      await this.#write(
        'dd',
        [
          'if=/dev/zero',
          `of=${node}`,
          'bs=64K',
          `count=${count}`,
          `seek=${at}`,
          'iflag=count_bytes',
          'oflag=seek_bytes',
          'conv=notrunc,nocreat,fsync',
          'status=none',
        ],
        { timeoutMs: 120_000 },
      );
    }
  }

  missing(filesystem: Formattable): string[] {
    const needed = ['flock', 'wipefs', 'sfdisk', 'partx', `mkfs.${filesystem}`];
    return needed.filter((name) => !programDirs.some((folder) => this.#files.exists(`${folder}/${name}`)));
  }

  async partition(node: string, layout: Layout): Promise<void> {
    const type = layout.filesystem === 'exfat' ? basicData : linuxData;
    const script = [
      'label: gpt',
      `label-id: ${layout.tableUuid}`,
      `name="${layout.label}", type=${type}, uuid=${layout.partUuid}`,
      '',
    ].join('\n');
    const quiet = ['--quiet', '--wipe', 'always', '--wipe-partitions', 'always'];
    // The kernel is told by partx: it also works where the kernel has no parser for partition tables.
    const args = [...quiet, '--no-reread', '--no-tell-kernel', '--', node];
    await this.#write('sfdisk', args, { stdin: script, timeoutMs: 60_000 });
    await this.#exec.run('partx', ['--update', '--', node], { timeoutMs: 30_000 });
  }

  async format(node: string, layout: Layout): Promise<void> {
    const [program, ...args] = formatCommand(layout);
    await this.#write(program, [...args, node], { timeoutMs: formatDeadline });
  }

  async give(folder: string, owner: { readonly uid: number; readonly gid: number }): Promise<void> {
    const args = ['--no-dereference', `${owner.uid}:${owner.gid}`, '--', folder];
    await this.#exec.run('chown', args, { timeoutMs: 20_000 });
  }

  async settle(): Promise<void> {
    await this.#exec.run('udevadm', ['settle', '--timeout=20'], { timeoutMs: 25_000 }).catch(() => undefined);
  }

  async quiet(): Promise<void> {
    await this.#locked(formatDeadline, ['true'], {});
  }

  async health(node: string): Promise<Health | undefined> {
    let stdout: string;
    try {
      // Bits 0 and 1: it could not be asked. -n standby: a sleeping disk is left asleep.
      const args = ['--health', '--json', '--nocheck=standby', node];
      const result = await this.#exec.run('smartctl', args, { timeoutMs: 10_000, okCodes: allExitCodes });
      stdout = result.stdout;
    } catch (error) {
      if (error instanceof ExecError) return undefined;
      throw error;
    }
    return parseHealth(stdout);
  }

  async powerDown(node: string, sysPath: string): Promise<boolean> {
    const usb = /^(.*\/usb\d+\/(?:[^/]+\/)*?\d+-[\d.]+)(?=\/\d+-[\d.]+:)/.exec(sysPath)?.[1];
    if (usb === undefined || !this.#files.exists(`${usb}/remove`) || this.#isCardReader(usb, sysPath))
      return false;
    await this.#exec.run('blockdev', ['--flushbufs', node], { timeoutMs: 60_000 });
    // tee and not a write of our own: removing a device waits for it, and no thread of ours may.
    await this.#exec.run('tee', [`${usb}/remove`], { stdin: '1', timeoutMs: 20_000 });
    return true;
  }

  /**
   * A USB device that stays when its disk is taken out: off the bus, it would not see the next card before a reboot. It is
   * built in (`removable`, Documentation/ABI/testing/sysfs-bus-usb), holds a card that the kernel drives itself, or has
   * other slots that are empty.
   */
  #isCardReader(usb: string, sysPath: string): boolean {
    if (this.#files.readText(`${usb}/removable`)?.trim() === 'fixed') return true;
    if (sysPath.slice(usb.length).includes('/mmc_host/')) return true;
    return this.#scsiDisks(usb).some((block) => Number(this.#files.readText(`${block}/size`)) === 0);
  }

  /** The block devices of all units (LUNs) of a USB device, also those without a medium. */
  #scsiDisks(usb: string): string[] {
    const levels = [/^\d+-[\d.]+:/, /^host\d+$/, /^target\d+:/, /^\d+:\d+:\d+:\d+$/, /^block$/, /^[a-z]/];
    const below = (folder: string, name: RegExp) =>
      this.#files.list(folder).flatMap((each) => (name.test(each) ? [`${folder}/${each}`] : []));
    return levels.reduce((folders, name) => folders.flatMap((each) => below(each, name)), [usb]);
  }

  /** What is started here may outlive this daemon; the next one must not write beside it. */
  async #write(
    file: string,
    args: readonly string[],
    options: RunOptions & { timeoutMs: number },
  ): Promise<void> {
    await this.#locked(10_000, [file, ...args], options);
  }

  /** The kernel keeps the lock (flock(2)) until the program itself has ended, whatever became of its parent. */
  async #locked(patience: number, command: readonly string[], options: RunOptions): Promise<void> {
    const lock = ['--exclusive', '--no-fork', '--timeout', String(patience / 1000)];
    const args = [...lock, '--conflict-exit-code', String(stillLocked), this.#lock, ...command];
    const timeoutMs = patience + (options.timeoutMs ?? 10_000);
    const okCodes = [0, stillLocked];
    const { exitCode } = await this.#exec.run('flock', args, { ...options, timeoutMs, okCodes });
    if (exitCode === stillLocked) throw new Error('a program of an earlier run still writes to a disk');
  }

  async #isZero(node: string, skip: number, length: number): Promise<boolean> {
    const args = ['--silent', `--bytes=${length}`, `--ignore-initial=${skip}:0`, node, '/dev/zero'];
    const { exitCode } = await this.#exec.run('cmp', args, { timeoutMs: 60_000, okCodes: [0, 1] });
    return exitCode === 0;
  }
}

const allExitCodes = Array.from({ length: 256 }, (_, code) => code);

function formatCommand({ filesystem, label, fsUuid }: Layout): [string, ...string[]] {
  switch (filesystem) {
    case 'ext4':
      return ['mkfs.ext4', '-q', '-F', '-L', label, '-U', fsUuid];
    case 'xfs':
      return ['mkfs.xfs', '-q', '-f', '-L', label, '-m', `uuid=${fsUuid}`];
    case 'btrfs':
      return ['mkfs.btrfs', '-q', '-f', '-L', label, '-U', fsUuid];
    case 'exfat':
      return ['mkfs.exfat', '-L', label];
  }
}

function parseHealth(text: string): Health | undefined {
  try {
    const parsed = JSON.parse(text) as { smart_status?: { passed?: unknown } };
    const passed = parsed.smart_status?.passed;
    if (typeof passed !== 'boolean') return undefined;
    return { passed, message: passed ? 'SMART: passed' : 'SMART: the disk expects to fail' };
  } catch {
    return undefined;
  }
}
