import type { DiskPolicy } from '#api/storage.ts';
import { type MountEntry, topmostAt } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import {
  areOneBtrfs,
  type Built,
  kindOf,
  type LocalDisk,
  mountsOf,
  placesOf,
  type Volume,
} from '#storage/devices.ts';
import { type FstabEntry, isAwaited } from '#storage/fstab.ts';
import type { FstabMount } from '#storage/fstab-mounts.ts';
import { folderName, freeName, isWithin } from '#storage/names.ts';
import { isMountable } from '#storage/options.ts';
import { standing } from '#storage/own.ts';
import type { MountRow } from '#storage/registry.ts';

/** What is to be done so that the mounts fit the disks. Each step stands alone: one that fails stops no other. */
export type Step =
  | {
      readonly do: 'mount';
      readonly row: MountRow;
      readonly fstype: string;
      readonly readOnly: boolean;
      /** Why it is to be read-only although nobody asked for that. */
      readonly because: string | undefined;
    }
  /** The device is gone: its mount is dead and is detached. */
  | { readonly do: 'detach'; readonly row: MountRow }
  /** Bring the record and the kernel together (a crash, a reboot, somebody else's umount). */
  | { readonly do: 'settle'; readonly row: MountRow };

export interface Seen {
  readonly devices: readonly BlockDevice[];
  readonly disks: readonly LocalDisk[];
  /** File systems that lie on several disks, or on what is built on one. */
  readonly built: readonly Built[];
  readonly entries: readonly MountEntry[];
  readonly rows: readonly MountRow[];
  readonly policies: ReadonlyMap<string, DiskPolicy>;
  readonly fstab: readonly FstabEntry[];
  /** Targets of fstab lines with the appearances of disks that have been mounted there already. */
  readonly served: ReadonlyMap<string, ReadonlySet<string>>;
  readonly byFstab: readonly FstabMount[];
  readonly bootId: string;
  /** Names below the share root that are there already, ours and others'. */
  readonly names: readonly string[];
  readonly shareRoot: string;
  /** `/`, `/boot`, the share root, the store: see ports.ts. */
  readonly systemPaths: readonly string[];
}

/** Why a volume is not mounted by us; undefined: it is to be mounted. */
export function whyNot(
  disk: LocalDisk,
  volume: Volume,
  seen: Pick<Seen, 'disks' | 'built' | 'entries' | 'policies' | 'fstab' | 'rows' | 'bootId' | 'shareRoot'>,
): string | undefined {
  if (disk.system) return 'the disk carries the system';
  if (volume.role === 'encrypted') return 'it is encrypted; beosd does not open it';
  if (volume.role !== 'data') return `its role is ${volume.role}`;
  if (!disk.ready) return 'udev has not finished with it';
  if (!isMountable(volume.fstype)) return `no support for ${volume.fstype}`;
  if (volume.device.holders.length > 0) return `it is held by ${volume.device.holders.join(', ')}`;
  const others = otherMembers(volume, seen);
  if ([disk, ...others.map((each) => each.disk)].some((each) => policyOf(each, seen.policies) === 'ignore'))
    return 'its policy is ignore';
  if (fstabFor(seen.fstab, volume) !== undefined) return '/etc/fstab says where it is mounted';
  const row = seen.rows.find((each) => each.identity === volume.identity);
  if (disk.transport !== 'usb' && row?.wanted !== true)
    return 'only USB disks and provisioned ones are mounted';
  if (row !== undefined && !row.wanted) return 'it was unmounted for good';
  const members = [volume, ...others.map((each) => each.volume)];
  if (members.some((each) => isHeldOff(each, seen))) return 'it was ejected; plug it in again';
  if (volume.device.properties?.['ID_BTRFS_READY'] === '0')
    return 'other disks of its file system are missing';
  const below = belowShareRoot(seen);
  if (below !== undefined)
    return `/etc/fstab mounts ${below.target} first, where its place lies, and that is not mounted`;
  const first = firstOf(members, seen);
  return first === volume ? undefined : `it is a part of the file system on ${first.device.node}`;
}

/** The line mounts what the share root lies on, or the share root itself. */
export function holdsShareRoot({ target }: FstabEntry, shareRoot: string): boolean {
  return target !== '/' && isWithin(shareRoot, target);
}

/**
 * What fstab has yet to mount at the share root, or below it: it would hide what is mounted there before. A line that
 * would hide something already, but for the mount at `without`, is not carried out any more, and nothing waits for it.
 */
export function belowShareRoot(
  seen: Pick<Seen, 'disks' | 'built' | 'entries' | 'fstab' | 'shareRoot'>,
  without?: string,
): FstabEntry | undefined {
  const others = seen.entries.filter(({ target }) => without === undefined || !isWithin(target, without));
  const isFree = ({ target }: FstabEntry) => !others.some((each) => isWithin(each.target, target));
  const lines = seen.fstab.filter((each) => holdsShareRoot(each, seen.shareRoot) && isFree(each));
  return lines.find((each) => isAwaited(each, seen.entries, placesOf(seen)));
}

interface Member {
  readonly disk: LocalDisk;
  readonly volume: Volume;
}

/** The other volumes of a file system that spans several (btrfs). */
function otherMembers(volume: Volume, { disks }: Pick<Seen, 'disks'>): Member[] {
  const all = disks.flatMap((disk) => disk.volumes.map((each) => ({ disk, volume: each })));
  return all.filter((each) => areOneBtrfs(volume.device, each.volume.device));
}

/** The one of several volumes by which their file system is mounted: its path hangs on that. */
function firstOf(members: readonly Volume[], seen: Pick<Seen, 'entries' | 'rows'>): Volume {
  const inOrder = members.toSorted((a, b) => (a.identity < b.identity ? -1 : 1));
  const isMounted = ({ device }: Volume) => mountsOf(seen.entries, device).length > 0;
  const wasMounted = ({ identity }: Volume) =>
    seen.rows.some((row) => row.identity === identity && row.extra.settled === true);
  const first = inOrder.find(isMounted) ?? inOrder.find(wasMounted) ?? inOrder[0];
  if (first === undefined) throw new RangeError('a file system lies on one volume at least');
  return first;
}

/** Told by the device too: since it was mounted, its file system may have got another identity (a twin, a new UUID). */
export function isHeldOff(volume: Volume, seen: Pick<Seen, 'rows' | 'bootId'>): boolean {
  const now = appearance(volume, seen.bootId);
  const isRowOf = (row: MountRow) => row.identity === volume.identity || row.source === volume.device.node;
  return seen.rows.some((row) => row.heldOff === now && isRowOf(row));
}

export function policyOf(disk: LocalDisk, policies: Seen['policies']): DiskPolicy {
  return policies.get(disk.id) ?? policies.get(disk.otherId) ?? 'auto';
}

/** This plugging-in of a device: another one after a replug or a reboot. */
export function appearance(volume: Volume, bootId: string): string {
  return `${bootId}/${volume.device.sequence || volume.device.sysPath}`;
}

export function fstabFor(fstab: readonly FstabEntry[], volume: Volume): FstabEntry | undefined {
  return fstab.find((entry) => entry.matches(volume));
}

/** Pure: the steps for what is seen now. Looking again after them yields none. */
export function plan(seen: Seen): Step[] {
  const volumes = seen.disks.flatMap((disk) => disk.volumes.map((volume) => ({ disk, volume })));
  const present = new Map(volumes.map(({ volume }) => [volume.identity, volume]));
  const steps: Step[] = [];
  for (const row of seen.rows) {
    const isShare = row.kind === 'smb' || row.kind === 'nfs';
    const volume = present.get(row.identity) ?? sameDevice(row, volumes, seen.bootId);
    const step = isShare ? undefined : stepForRow(row, volume, seen);
    if (step !== undefined) steps.push(step);
  }
  const names = new Set([...seen.names, ...seen.rows.map((row) => row.name)].map((n) => n.toLowerCase()));
  for (const { disk, volume } of volumes) {
    const step = stepForVolume(disk, volume, seen, names);
    if (step !== undefined) steps.push(step);
  }
  return steps;
}

/**
 * The device of a mount whose file system udev cannot name now (its record is being made anew, or somebody has changed
 * the UUID): it was not pulled, so what users write there is not detached. Only where the kernel numbers appearances,
 * for a place alone could hold another disk by now.
 */
function sameDevice(
  row: MountRow,
  volumes: readonly { readonly volume: Volume }[],
  bootId: string,
): Volume | undefined {
  const isSame = ({ volume }: { readonly volume: Volume }) =>
    volume.device.node === row.source &&
    volume.device.sequence !== '' &&
    appearance(volume, bootId) === row.extra.appearance;
  return volumes.find(isSame)?.volume;
}

function stepForRow(row: MountRow, volume: Volume | undefined, seen: Seen): Step | undefined {
  // Another appearance: the disk was pulled and plugged in again between two looks, maybe under the same node.
  const gone = volume === undefined || row.extra.appearance !== appearance(volume, seen.bootId);
  if (gone && row.phase !== 'none') return { do: 'detach', row };
  return isSettled(row, seen) ? undefined : { do: 'settle', row };
}

function isSettled(row: MountRow, seen: Seen): boolean {
  const path = `${seen.shareRoot}/${row.name}`;
  if (row.phase === 'none') {
    const isClean = row.folder === undefined && row.folderToken === undefined;
    return isClean || topmostAt(seen.entries, path) !== undefined;
  }
  const at = standing(row, path, seen.entries, seen.bootId);
  return row.phase === 'mounted' && (at.kind === 'ours' || at.kind === 'covered');
}

function stepForVolume(disk: LocalDisk, volume: Volume, seen: Seen, names: Set<string>): Step | undefined {
  const mounted = mountsOf(seen.entries, volume.device).length > 0;
  if (mounted || whyNot(disk, volume, seen) !== undefined) return undefined;
  const row = seen.rows.find((each) => each.identity === volume.identity);
  if (row !== undefined && row.phase !== 'none') return undefined;
  const members = [{ disk, volume }, ...otherMembers(volume, seen)];
  const isAsked = members.some((each) => policyOf(each.disk, seen.policies) === 'read-only');
  const isProtected = members.some((each) => each.volume.device.readOnly);
  return {
    do: 'mount',
    row: rowFor(disk, volume, row, names, seen.bootId),
    fstype: volume.fstype,
    readOnly: isAsked || isProtected,
    because: isProtected && !isAsked ? 'the device is write-protected' : undefined,
  };
}

function rowFor(
  disk: LocalDisk,
  volume: Volume,
  known: MountRow | undefined,
  names: Set<string>,
  bootId: string,
): MountRow {
  // A disk may come in another case than last time: what was SATA is USB now.
  const now = {
    kind: kindOf([disk]),
    source: volume.device.node,
    fstype: volume.fstype,
    disk: disk.id,
  } as const;
  const extra = { appearance: appearance(volume, bootId) };
  if (known !== undefined) {
    const settled = known.extra.settled === true ? { settled: true } : {};
    return { ...known, ...now, heldOff: undefined, extra: { ...settled, ...extra } };
  }
  const base = folderName(volume.label) ?? folderName(disk.model) ?? folderName(disk.id) ?? 'disk';
  const name = freeName(base, (candidate) => names.has(candidate.toLowerCase()));
  names.add(name.toLowerCase());
  return {
    identity: volume.identity,
    name,
    wanted: true,
    phase: 'none',
    dev: undefined,
    mountId: undefined,
    bootId: undefined,
    folder: undefined,
    folderToken: undefined,
    heldOff: undefined,
    sealed: undefined,
    extra,
    ...now,
  };
}
