import { type MountEntry, topmostAt } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import { appearance, policyOf, type Seen } from '#storage/automount.ts';
import { type Built, deviceOfMount, type LocalDisk, mountsOf } from '#storage/devices.ts';
import type { FstabEntry } from '#storage/fstab.ts';
import { isWithin } from '#storage/names.ts';

/** A mount that this daemon has made by a line of fstab. */
export interface FstabMount {
  readonly target: string;
  readonly id: number;
  readonly dev: string;
  readonly fstype: string;
  readonly source: string;
  /** The plugging-in of the device that it was made from. */
  readonly appearance: string;
  readonly kind: 'usb' | 'hdd';
}

export type FstabStep =
  | {
      readonly do: 'fstab';
      readonly entry: FstabEntry;
      readonly identity: string;
      readonly appearance: string;
      readonly disks: readonly LocalDisk[];
      readonly kind: 'usb' | 'hdd';
      readonly readOnly: boolean;
    }
  /** The device of a mount of ours is gone. */
  | { readonly do: 'detachFstab'; readonly mount: FstabMount };

/** Every file system of the machine, those on LVM, md and opened LUKS among them. */
export function placesOf(seen: Pick<Seen, 'disks' | 'built'>): Built[] {
  const plain = seen.disks.flatMap((disk) => disk.volumes.map((volume) => ({ volume, disks: [disk] })));
  return [...plain, ...seen.built];
}

export function kindOf(disks: readonly LocalDisk[]): 'usb' | 'hdd' {
  return disks.every((disk) => disk.transport === 'usb') ? 'usb' : 'hdd';
}

/** Pure: mounts that lines of fstab ask for, in their order, and mounts of ours whose disks are gone. */
export function fstabSteps(seen: Seen): FstabStep[] {
  const places = placesOf(seen);
  const gone = seen.byFstab.filter(
    (mount) => isThere(mount, seen.entries) && !isPlugged(mount, places, seen),
  );
  const steps: FstabStep[] = gone.map((mount) => ({ do: 'detachFstab', mount }));
  for (const entry of seen.fstab) {
    const place = places.find(({ volume }) => entry.matches(volume));
    if (place === undefined || whyNotByFstab(entry, place, seen) !== undefined) continue;
    const { volume, disks } = place;
    steps.push({
      do: 'fstab',
      entry,
      identity: volume.identity,
      appearance: appearance(volume, seen.bootId),
      disks,
      kind: kindOf(disks),
      readOnly: entry.readOnly || disks.some((disk) => policyOf(disk, seen.policies) === 'read-only'),
    });
  }
  return steps;
}

/** Why a line of fstab is not carried out now for the file system that it names; undefined: it is. */
export function whyNotByFstab(entry: FstabEntry, { volume, disks }: Built, seen: Seen): string | undefined {
  if (!entry.auto) return '/etc/fstab says that it is not mounted by itself';
  if (disks.some((disk) => disk.system)) return 'the disk carries the system';
  if (!disks.every((disk) => disk.ready) || volume.device.properties === undefined)
    return 'udev has not finished with it';
  if (disks.some((disk) => policyOf(disk, seen.policies) === 'ignore')) return 'its policy is ignore';
  const there = topmostAt(seen.entries, entry.target);
  if (there !== undefined) return `${there.source} is mounted at ${entry.target}`;
  const elsewhere = mountElsewhere({ volume, disks }, seen);
  if (elsewhere !== undefined) return `it is mounted at ${elsewhere.target}`;
  if (isServed(entry, seen)) return `it was unmounted from ${entry.target}; plug it in again`;
  const outer = outerOf(entry, seen);
  return outer === undefined
    ? undefined
    : `its place lies in ${outer.target}, which /etc/fstab mounts first, and which is not mounted`;
}

/**
 * The line whose mount must be there before: made later, it would hide this one, and what users have written to it
 * (systemd.mount(5) orders mounts in the same way).
 */
function outerOf(entry: FstabEntry, seen: Seen): FstabEntry | undefined {
  const isOuter = (each: FstabEntry) => each.target !== entry.target && isWithin(entry.target, each.target);
  return seen.fstab.find(
    (each) => each.auto && isOuter(each) && topmostAt(seen.entries, each.target) === undefined,
  );
}

/** Where somebody has mounted a file system that fstab has another place for; what pods see of it does not count. */
function mountElsewhere({ volume }: Built, seen: Seen): MountEntry | undefined {
  const own = seen.fstab.filter((each) => each.matches(volume)).map((each) => each.target);
  const isElsewhere = ({ target }: MountEntry) =>
    !own.includes(target) && !isWithin(target, '/var/lib/kubelet');
  return mountsOf(seen.entries, volume.device).find(isElsewhere);
}

/**
 * The lines that are carried out now, or whose file system a person has in use elsewhere, with the appearance of their
 * disk: unmounted later by that person, it is not forced on.
 */
export function servedNow(seen: Seen): [string, string][] {
  return placesOf(seen).flatMap((place): [string, string][] => {
    const { device } = place.volume;
    const targets = mountsOf(seen.entries, device).map((each) => each.target);
    const isTaken = mountElsewhere(place, seen) !== undefined;
    const lines = seen.fstab.filter((entry) => entry.matches(place.volume));
    return lines
      .filter((entry) => isTaken || targets.includes(entry.target))
      .map((entry) => [entry.target, appearance(place.volume, seen.bootId)]);
  });
}

/** Of a file system on several disks the appearance of any of them will do. */
function isServed(entry: FstabEntry, seen: Seen): boolean {
  const before = seen.served.get(entry.target);
  return placesOf(seen).some(
    ({ volume }) => entry.matches(volume) && appearance(volume, seen.bootId) === before,
  );
}

/** The mount that a line has just led to; undefined: there is none, or somebody else's. */
export function madeByFstab(
  step: Extract<FstabStep, { do: 'fstab' }>,
  before: readonly MountEntry[],
  after: readonly MountEntry[],
): FstabMount | undefined {
  const { target } = step.entry;
  const made = topmostAt(after, target);
  if (made === undefined || before.some((each) => each.target === target)) return undefined;
  const { id, dev, fstype, source } = made;
  return { ...{ target, id, dev, fstype, source }, appearance: step.appearance, kind: step.kind };
}

export function isThere(mount: FstabMount, entries: readonly MountEntry[]): boolean {
  const { id, dev, fstype, source } = topmostAt(entries, mount.target) ?? {};
  return id === mount.id && dev === mount.dev && fstype === mount.fstype && source === mount.source;
}

function isPlugged(mount: FstabMount, places: readonly Built[], { bootId }: Seen): boolean {
  return places.some(({ volume }) => appearance(volume, bootId) === mount.appearance);
}

/** Mounts at places of fstab whose device the kernel does not know any more. */
export function deadByFstab(seen: Seen): MountEntry[] {
  const targets = new Set(seen.fstab.map((entry) => entry.target));
  const tops = [...targets].map((target) => topmostAt(seen.entries, target));
  return tops.filter((entry) => entry !== undefined).filter((entry) => isDead(entry, seen.devices));
}

/** Only of what lies on a device of its own can it be told; btrfs has no number of one, but names it. */
function isDead(entry: MountEntry, devices: readonly BlockDevice[]): boolean {
  if (!entry.dev.startsWith('0:')) return !devices.some((each) => each.dev === entry.dev);
  const isNamed = entry.fstype === 'btrfs' && entry.source.startsWith('/dev/');
  const isLink = devices.some((each) => each.links.includes(entry.source));
  return isNamed && !isLink && deviceOfMount(devices, entry) === undefined;
}
