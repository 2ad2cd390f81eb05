import { fault } from '#api/errors.ts';
import type { Holder } from '#api/storage.ts';
import { ExecError } from '#host/exec.ts';
import { wordsOf } from '#host/mounts.ts';
import type { RawHolder } from '#host/processes.ts';
import type { BlockDevice } from '#host/udev.ts';
import { messageOf } from '#lib/fault.ts';
import { appearance } from '#storage/automount.ts';
import { claimable } from '#storage/blank.ts';
import { type LocalDisk, mountsOf, type Volume } from '#storage/devices.ts';
import type { LocalMounts, LocalParts } from '#storage/local.ts';
import type { MountRow } from '#storage/registry.ts';

export interface Ejected {
  readonly path: string;
  /** Everything is written and nothing holds the disk: it may be pulled. */
  readonly safe: boolean;
  readonly poweredDown: boolean;
  readonly holders: readonly Holder[];
}

const flushDeadline = 120_000;
const scanDeadline = 5000;

/**
 * Takes a disk out of use so that it can be pulled.
 *
 * INVARIANTS: `safe` is said only after a flush, an unmount that the kernel did not call busy, a look into every mount
 * namespace, and when the kernel lets go of the whole disk, not of this file system alone. A forced detach is never safe and never stops the disk.
 */
export class Ejector {
  readonly #parts: LocalParts;
  readonly #local: LocalMounts;

  constructor(parts: LocalParts, local: LocalMounts) {
    this.#parts = parts;
    this.#local = local;
  }

  async eject(row: MountRow, force: boolean): Promise<Ejected> {
    try {
      return await this.#parts.locks.run(row.identity, () => {
        const current = this.#parts.registry.get(row.identity);
        if (current === undefined || current.phase === 'none') {
          throw fault('not_found', `${row.name} is not mounted.`);
        }
        return force ? this.#force(current) : this.#safely(current);
      });
    } finally {
      this.#local.poke(); // what happened to the disk meanwhile was left to us
    }
  }

  /** Runs an unmount; when the kernel calls the mount busy, the refusal names who uses it. */
  async explained<T>(row: MountRow, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw await this.#refusal(this.#parts.mounter.pathOf(row), row, error);
    }
  }

  /** Who uses a mount of ours, in words for a person; empty while nobody knows within the deadline. */
  async holders(dev: string | undefined): Promise<Holder[]> {
    if (dev === undefined) return [];
    const { machine } = this.#parts;
    try {
      const found = await machine.processes.holders(dev, AbortSignal.timeout(scanDeadline));
      return found.map((holder) => this.#named(holder));
    } catch (error) {
      this.#parts.around.log('cannot tell who holds a mount', { error: messageOf(error) });
      return [];
    }
  }

  async #safely(row: MountRow): Promise<Ejected> {
    const { mounter, registry } = this.#parts;
    const path = mounter.pathOf(row);
    await this.#flush(path, row);
    // From here on the automounter leaves it alone, also if this daemon dies before it has answered.
    const held = registry.put({ ...row, heldOff: row.extra.appearance });
    let after: MountRow;
    try {
      after = await mounter.umount(held, { lazy: false, timeoutMs: 60_000 });
    } catch (error) {
      registry.update(row.identity, { heldOff: row.heldOff });
      throw await this.#refusal(path, row, error);
    }
    const disk = this.#diskOf(row);
    const elsewhere = await this.#elsewhere(row.dev, disk);
    const safe = disk !== undefined && elsewhere?.length === 0 && (await this.#isFree(disk.device.node));
    const poweredDown = safe && (await this.#powerDown(disk));
    this.#parts.around.emit({ action: 'ejected', kind: row.kind, path, safe });
    return { path: mounter.pathOf(after), safe, poweredDown, holders: elsewhere ?? [] };
  }

  async #force(row: MountRow): Promise<Ejected> {
    const { machine, mounter, registry, around } = this.#parts;
    const path = mounter.pathOf(row);
    const holders = await this.holders(row.dev);
    await machine.mounts.flush(path, 20_000).catch(() => undefined);
    const held = registry.put({ ...row, heldOff: row.extra.appearance });
    await mounter.umount(held, { lazy: true, timeoutMs: 20_000 });
    const elsewhere = await this.#elsewhere(row.dev, undefined);
    around.emit({ action: 'ejected', kind: row.kind, path, safe: false });
    return { path, safe: false, poweredDown: false, holders: distinct([...holders, ...(elsewhere ?? [])]) };
  }

  async #flush(path: string, row: MountRow): Promise<void> {
    try {
      await this.#parts.machine.mounts.flush(path, flushDeadline);
    } catch (error) {
      const busy = error instanceof ExecError && error.reason === 'timeout';
      const why = busy ? 'is still being written to' : `could not be written out: ${wordsOf(error)}`;
      throw fault('mount_busy', `${row.name} ${why}.`, { data: { holders: await this.holders(row.dev) } });
    }
  }

  async #refusal(path: string, row: MountRow, error: unknown): Promise<unknown> {
    if (!(error instanceof ExecError)) return error;
    const words = wordsOf(error);
    if (!/busy/i.test(words)) return fault('mount_failed', words, { cause: error });
    const holders = await this.holders(row.dev);
    const names = holders.map((holder) => holder.pod ?? `${holder.command} (${holder.pid})`);
    const by = names.length === 0 ? '' : ` by ${[...new Set(names)].join(', ')}`;
    return fault('mount_busy', `${path} is in use${by}.`, { data: { holders }, cause: error });
  }

  /** The disk that a row's mount was made from; undefined: it is gone, or nobody can tell. */
  #diskOf(row: MountRow): LocalDisk | undefined {
    const { around, settings } = this.#parts;
    const isIts = (volume: Volume) =>
      volume.device.node === row.source && appearance(volume, settings.bootId) === row.extra.appearance;
    try {
      return this.#local.see().disks.find((disk) => disk.volumes.some(isIts));
    } catch (error) {
      around.log('cannot tell whether a disk may be pulled', { error: messageOf(error) });
      return undefined;
    }
  }

  /**
   * Where the file system is still mounted, on this node or in a mount namespace (of a pod), and where another one of
   * the same disk is: pulling would hurt that. undefined: nobody can tell; the unmount is done all the same.
   */
  async #elsewhere(dev: string | undefined, disk: LocalDisk | undefined): Promise<Holder[] | undefined> {
    if (dev === undefined) return undefined;
    const { machine, around } = this.#parts;
    try {
      const entries = machine.mounts.list();
      const onDisk = disk === undefined ? [] : devicesOf(disk).flatMap((device) => mountsOf(entries, device));
      const here = entries.filter((entry) => entry.dev === dev || onDisk.includes(entry));
      const found = await machine.processes.namespacesWith(dev, AbortSignal.timeout(scanDeadline));
      return [
        ...here.map((entry) => ({ pid: process.pid, command: 'mount', path: entry.target })),
        ...found.map((holder) => this.#named(holder)),
      ];
    } catch (error) {
      around.log('cannot tell where else a disk is mounted', { error: messageOf(error) });
      return undefined;
    }
  }

  /** The kernel itself says so: also a mount that was detached while it was written to holds its device. */
  async #isFree(node: string): Promise<boolean> {
    try {
      const claim = await this.#parts.machine.disks.claim(node);
      await claim.release();
      return true;
    } catch (error) {
      this.#parts.around.log('an ejected disk is still held', { node, error: messageOf(error) });
      return false;
    }
  }

  async #powerDown({ device: { node, sysPath } }: LocalDisk): Promise<boolean> {
    const seen = this.#local.see();
    const disk = seen.disks.find((each) => each.device.node === node && each.device.sysPath === sysPath);
    const isTaken = (device: BlockDevice) =>
      mountsOf(seen.entries, device).length > 0 || this.#local.isReserved(device);
    if (disk === undefined || !mayPowerDown(disk, seen.disks, isTaken)) return false;
    const { disks } = this.#parts.machine;
    const together = onOneUsbDevice(disk, seen.disks);
    // What goes with it is neither mounted nor provisioned from here on.
    const releases = together.map((each) => this.#local.reserve(each.device));
    try {
      for (const each of together) {
        if ((await claimable(disks, each)).length > 0) return false;
      }
      return await disks.powerDown(disk.device.node, disk.device.sysPath);
    } catch (error) {
      this.#parts.around.log('the disk could not be stopped', { disk: disk.id, error: messageOf(error) });
      return false;
    } finally {
      for (const release of releases) release();
    }
  }

  #named(holder: RawHolder): Holder {
    const { pid, command, path, podUid } = holder;
    if (podUid === undefined) return { pid, command, path };
    return { pid, command, path, pod: this.#parts.around.podName(podUid) ?? podUid };
  }
}

/** Stopping takes the whole USB device off the bus, all of its disks and card slots: none of them may be in use, or be provisioned. */
export function mayPowerDown(
  disk: LocalDisk,
  all: readonly LocalDisk[],
  isTaken: (device: BlockDevice) => boolean,
): boolean {
  if (disk.transport !== 'usb' || disk.system) return false;
  return onOneUsbDevice(disk, all).every(
    (each) =>
      !each.system &&
      devicesOf(each).every((device) => device.holders.length === 0 && !isTaken(device)) &&
      each.volumes.every((volume) => volume.role !== 'swap'),
  );
}

function devicesOf(disk: LocalDisk): BlockDevice[] {
  return [disk.device, ...disk.volumes.map((volume) => volume.device)];
}

function onOneUsbDevice(disk: LocalDisk, all: readonly LocalDisk[]): LocalDisk[] {
  const port = usbDevice(disk.device.sysPath);
  return all.filter((each) => each === disk || (port !== '' && usbDevice(each.device.sysPath) === port));
}

/** The part of a device's place that names its USB device: all up to the interface (`2-1:1.0`). */
function usbDevice(sysPath: string): string {
  return /^(.*\/\d+-[\d.]+)\/\d+-[\d.]+:/.exec(sysPath)?.[1] ?? '';
}

function distinct(holders: readonly Holder[]): Holder[] {
  return holders.filter((holder, at) => holders.findIndex((each) => each.pid === holder.pid) === at);
}
