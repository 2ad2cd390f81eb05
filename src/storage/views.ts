import type { Disk, MountedPath } from '#api/storage.ts';
import { isReadOnly, type MountEntry } from '#host/mounts.ts';
import { policyOf, type Seen, whyNot } from '#storage/automount.ts';
import { type Built, kindOf, type LocalDisk, mountsOf, placesOf, type Volume } from '#storage/devices.ts';
import { whyNotByFstab } from '#storage/fstab-mounts.ts';
import { isWithin } from '#storage/names.ts';
import { standing } from '#storage/own.ts';
import type { MountRow } from '#storage/registry.ts';

/** A mount to show, before it is asked for its numbers. */
export interface Listed {
  readonly key: string;
  /** False: a share that is wanted, but not mounted now. */
  readonly mounted: boolean;
  readonly type: MountedPath['type'];
  readonly path: string;
  readonly fstype: string;
  readonly device: string;
  readonly idSerial: string;
  readonly idSerialShort: string;
  readonly partitionUuid: string;
  readonly readOnly: boolean;
}

/** Everything that is mounted for users: volumes of local disks but the system's, one row each, and our shares. */
export function listed(seen: Seen): Listed[] {
  const local = placesOf(seen)
    .map((place) => listedVolume(place, seen))
    .filter((row) => row !== undefined);
  const shares = seen.rows.map((row) => listedShare(row, seen)).filter((row) => row !== undefined);
  return [...local, ...shares].sort((a, b) => (a.path < b.path ? -1 : 1));
}

function listedVolume({ volume, disks }: Built, seen: Seen): Listed | undefined {
  const [disk] = disks;
  if (disk === undefined || disks.some((each) => each.system)) return undefined;
  const entry = bestMount(mountsOf(seen.entries, volume.device), seen.shareRoot);
  if (entry === undefined) return undefined;
  return {
    // The kernel gives out mount ids again: a stick that is plugged in anew may get the one that it had.
    key: `${volume.identity}#${volume.device.sequence}#${entry.id}`,
    mounted: true,
    type: kindOf(disks),
    path: entry.target,
    fstype: entry.fstype === 'fuseblk' ? volume.fstype : entry.fstype,
    device: volume.device.node,
    idSerial: disk.idSerial,
    idSerialShort: disk.idSerialShort,
    partitionUuid: volume.uuid || volume.partUuid,
    readOnly: isReadOnly(entry),
  };
}

function listedShare(row: MountRow, seen: Seen): Listed | undefined {
  if (row.kind !== 'smb' && row.kind !== 'nfs') return undefined;
  const path = `${seen.shareRoot}/${row.name}`;
  const at = standing(row, path, seen.entries, seen.bootId);
  // A share that is wanted and not mounted now (its server is off) is shown too: as invalid.
  if (at.kind !== 'ours' && at.kind !== 'covered' && !row.wanted) return undefined;
  const entry = at.kind === 'ours' || at.kind === 'covered' ? at.entry : undefined;
  return {
    key: row.identity,
    mounted: entry !== undefined,
    type: row.kind,
    path,
    fstype: entry?.fstype ?? row.fstype,
    device: row.source,
    idSerial: '',
    idSerialShort: '',
    partitionUuid: '',
    readOnly: entry !== undefined && isReadOnly(entry),
  };
}

/** Of several mounts of one file system the one below the share root, else the shortest; binds of pods do not count. */
function bestMount(entries: readonly MountEntry[], shareRoot: string): MountEntry | undefined {
  const mine = entries.filter((entry) => !/^\/(var\/lib\/kubelet|run)\//.test(entry.target));
  const below = mine.filter((entry) => isWithin(entry.target, shareRoot));
  const choice = below.length > 0 ? below : mine;
  return choice.toSorted((a, b) => a.target.length - b.target.length)[0];
}

/** The path of a mount relative to the share root; undefined: it lies elsewhere, where pods do not look. */
export function relativePath(path: string, shareRoot: string): string | undefined {
  return path !== shareRoot && isWithin(path, shareRoot) ? path.slice(shareRoot.length + 1) : undefined;
}

/** What beside the sysfs facts goes into GET /storage/disks. */
export interface DiskExtras {
  readonly blank: boolean;
  readonly found: string;
  readonly health: Disk['health'];
  readonly failureOf: (identity: string) => string | undefined;
}

export function diskView(disk: LocalDisk, seen: Seen, extras: DiskExtras): Disk {
  return {
    id: disk.id,
    device: disk.device.node,
    model: disk.model,
    serial: disk.serial,
    transport: disk.transport,
    size: disk.device.size,
    removable: disk.device.removable,
    readOnly: disk.device.readOnly,
    system: disk.system,
    blank: extras.blank,
    notBlankBecause: extras.found,
    policy: policyOf(disk, seen.policies),
    health: extras.health,
    volumes: disk.volumes.map((volume) => volumeView(disk, volume, seen, extras)),
  };
}

function volumeView(
  disk: LocalDisk,
  volume: Volume,
  seen: Seen,
  extras: DiskExtras,
): Disk['volumes'][number] {
  const mountedAt = mountsOf(seen.entries, volume.device).map((entry) => entry.target);
  const lines = seen.fstab.filter((entry) => entry.matches(volume));
  const line = lines.find((entry) => entry.auto) ?? lines[0];
  const byFstab = line === undefined ? undefined : whyNotByFstab(line, { volume, disks: [disk] }, seen);
  const why = extras.failureOf(volume.identity) ?? byFstab ?? whyNot(disk, volume, seen) ?? '';
  return {
    device: volume.device.node,
    size: volume.device.size,
    fstype: volume.fstype,
    label: volume.label,
    uuid: volume.uuid,
    role: volume.role,
    mountedAt,
    inUseBy: [...volume.device.holders],
    notMountedBecause: mountedAt.length > 0 ? '' : why,
  };
}
