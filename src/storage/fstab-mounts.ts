import { isReadOnly, type MountEntry, topmostAt } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import { appearance, isHeldOff, policyOf, type Seen } from '#storage/automount.ts';
import { areOneBtrfs, type Built, kindOf, mapperOf, mountsOf, placesOf } from '#storage/devices.ts';
import { type FstabEntry, isAwaited } from '#storage/fstab.ts';
import { isWithin } from '#storage/names.ts';
import { withoutReplay } from '#storage/options.ts';

/** A mount that this daemon has made by a line of fstab. */
export interface FstabMount {
  readonly target: string;
  readonly id: number;
  readonly dev: string;
  readonly fstype: string;
  readonly source: string;
  readonly kind: 'usb' | 'hdd';
}

export type FstabStep =
  | {
      readonly do: 'fstab';
      readonly entry: FstabEntry;
      readonly place: Built;
      readonly appearance: string;
      readonly kind: 'usb' | 'hdd';
      /** Beside those of the line: what the policy of the disk asks for. */
      readonly options: readonly string[];
    }
  /** The device of a mount that was made here is gone. */
  | { readonly do: 'detachFstab'; readonly mount: FstabMount };

/** Pure: mounts that lines of fstab ask for, in their order, and mounts made here whose device is gone. */
export function fstabSteps(seen: Seen): FstabStep[] {
  const places = placesOf(seen);
  const gone = seen.byFstab.filter((mount) => mayDetach(mount, seen.entries, seen.devices));
  const steps: FstabStep[] = gone.map((mount) => ({ do: 'detachFstab', mount }));
  for (const entry of seen.fstab.filter((each) => each.isDisk)) {
    const named = places.filter(({ volume }) => entry.matches(volume));
    const place = named.find((each) => whyNotByFstab(entry, each, seen) === undefined);
    if (place !== undefined) steps.push(stepFor(entry, place, seen));
  }
  return steps;
}

function stepFor(entry: FstabEntry, place: Built, seen: Seen): FstabStep {
  const members = membersOf(place, seen);
  const policies = members.flatMap(({ disks }) => disks.map((disk) => policyOf(disk, seen.policies)));
  const forced = !entry.readOnly && policies.includes('read-only');
  return {
    do: 'fstab',
    entry,
    place,
    appearance: members.map(({ volume }) => appearance(volume, seen.bootId)).join(' '),
    kind: kindOf(place.disks),
    options: forced ? ['ro', ...withoutReplay(place.volume.fstype)] : [],
  };
}

/** A file system, and what else it lies on: what is said of one disk of a btrfs holds for all of it. */
function membersOf(place: Built, seen: Seen): Built[] {
  const isOther = ({ volume }: Built) => areOneBtrfs(place.volume.device, volume.device);
  return [place, ...placesOf(seen).filter(isOther)];
}

/** Why a line of fstab is not carried out now for a file system that it names; undefined: it is. */
export function whyNotByFstab(entry: FstabEntry, place: Built, seen: Seen): string | undefined {
  if (!entry.auto) return '/etc/fstab says that it is not mounted by itself';
  const members = membersOf(place, seen);
  const why = members.map((each) => whyNotOn(each, seen)).find((each) => each !== undefined);
  if (why !== undefined) return why;
  const elsewhere = mountElsewhere(place, seen);
  if (elsewhere !== undefined) return `it is mounted at ${elsewhere.target}`;
  return whyNotAt(entry, seen) ?? (isServed(entry, seen) ? unmounted(entry) : undefined);
}

/** What a file system, or a part of one, itself keeps from being mounted. */
function whyNotOn({ volume, disks }: Built, seen: Seen): string | undefined {
  if (disks.some((disk) => disk.system)) return 'the disk carries the system';
  if (!disks.every((disk) => disk.ready) || volume.device.properties === undefined)
    return 'udev has not finished with it';
  if (disks.some((disk) => policyOf(disk, seen.policies) === 'ignore')) return 'its policy is ignore';
  if (isHeldOff(volume, seen)) return 'it was ejected; plug it in again';
  return volume.device.properties['ID_BTRFS_READY'] === '0'
    ? 'other disks of its file system are missing'
    : undefined;
}

function unmounted({ target }: FstabEntry): string {
  return `it was unmounted since it was plugged in; it is left alone until it comes anew, or \`mount ${target}\``;
}

/** What at or around its place keeps a line waiting: nothing that is there may be hidden, now or by a later mount. */
function whyNotAt({ target }: FstabEntry, seen: Seen): string | undefined {
  const system = seen.systemPaths.find((path) => path !== seen.shareRoot && isWithin(path, target));
  if (system !== undefined) return `${system} lies in ${target}, which is mounted when the system starts`;
  const there = seen.entries.findLast((entry) => isWithin(entry.target, target));
  if (there !== undefined) return `${there.source} is mounted at ${there.target}`;
  const places = placesOf(seen);
  const isOuter = (each: FstabEntry) => each.target !== target && isWithin(target, each.target);
  // systemd.mount(5) has them wait for each other in the same way.
  const outer = seen.fstab.find((each) => isOuter(each) && isAwaited(each, seen.entries, places));
  return (
    outer && `its place lies in ${outer.target}, which /etc/fstab mounts first, and which is not mounted`
  );
}

/**
 * Where somebody has mounted a file system that fstab has another place for. Beside a mount at its place others are
 * binds of it, and what pods see of it does not count.
 */
function mountElsewhere({ volume }: Built, seen: Seen): MountEntry | undefined {
  const own = seen.fstab.filter((each) => each.matches(volume)).map((each) => each.target);
  const mounts = mountsOf(seen.entries, volume.device);
  if (mounts.some(({ target }) => own.includes(target))) return undefined;
  return mounts.find(({ target }) => !isWithin(target, '/var/lib/kubelet'));
}

/**
 * The lines that are carried out now, or whose file system a person has in use elsewhere, with the appearance of their
 * disk: unmounted later by that person, it is not forced on.
 */
export function servedNow(seen: Seen): [FstabEntry, string][] {
  const places = placesOf(seen);
  return seen.fstab.flatMap((entry): [FstabEntry, string][] => {
    const isTaken = (place: Built) =>
      mountsOf(seen.entries, place.volume.device).some(({ target }) => target === entry.target) ||
      mountElsewhere(place, seen) !== undefined;
    const named = places.filter(({ volume }) => entry.matches(volume));
    return named.filter(isTaken).map(({ volume }) => [entry, appearance(volume, seen.bootId)]);
  });
}

/** Also by another one of that name: a copy, or another part of it, does not come in the place of what was unmounted. */
function isServed(entry: FstabEntry, seen: Seen): boolean {
  const before = seen.served.get(entry.target);
  return placesOf(seen).some(
    ({ volume }) => entry.matches(volume) && before?.has(appearance(volume, seen.bootId)) === true,
  );
}

/** The mount that a line has just led to; undefined: there is none, or not of the file system that was meant. */
export function madeByFstab(
  { entry: { target }, place, kind }: Extract<FstabStep, { do: 'fstab' }>,
  before: readonly MountEntry[],
  after: readonly MountEntry[],
): FstabMount | undefined {
  const made = topmostAt(after, target);
  if (made === undefined || before.some((each) => each.target === target)) return undefined;
  if (mountsOf([made], place.volume.device).length === 0) return undefined;
  const { id, dev, fstype, source } = made;
  return { target, id, dev, fstype, source, kind };
}

/** The name by which mount(8) finds a device in fstab. */
export function sourceOf({ volume }: Built): string {
  return mapperOf(volume.device) ?? volume.device.node;
}

export function isThere(mount: FstabMount, entries: readonly MountEntry[]): boolean {
  const { id, dev, fstype, source } = topmostAt(entries, mount.target) ?? {};
  return id === mount.id && dev === mount.dev && fstype === mount.fstype && source === mount.source;
}

/** Only the very mount, only when its device is gone, only when nothing is mounted within it. */
export function mayDetach(
  mount: FstabMount,
  entries: readonly MountEntry[],
  devices: readonly BlockDevice[],
): boolean {
  const isInside = ({ target }: MountEntry) => target !== mount.target && isWithin(target, mount.target);
  return isThere(mount, entries) && isDeviceGone(mount, devices) && !entries.some(isInside);
}

/**
 * The kernel does not know the device any more. A number is not given out again while something is mounted from it.
 * What has no device of its own (btrfs, network) is never called gone.
 */
function isDeviceGone({ dev }: Pick<MountEntry, 'dev'>, devices: readonly BlockDevice[]): boolean {
  return !dev.startsWith('0:') && devices.length > 0 && !devices.some((each) => each.dev === dev);
}

/** Mounts whose device is gone, each file system once; those that this daemon clears up by itself are left out. */
export function deadMounts(seen: Seen): MountEntry[] {
  const own = new Set(seen.rows.map((row) => `${seen.shareRoot}/${row.name}`));
  const isOther = ({ target }: MountEntry) => !own.has(target) && target !== '/';
  const dead = seen.entries.filter((entry) => isOther(entry) && isDeviceGone(entry, seen.devices));
  const byDevice = Map.groupBy(dead, (entry) => entry.dev);
  return [...byDevice.values()].flatMap(
    (mounts) => mounts.toSorted((a, b) => a.target.length - b.target.length)[0] ?? [],
  );
}

/** Places of lines that ask for writing, which nobody can write to, and why. */
export function onlyRead(seen: Seen): [string, string][] {
  return placesOf(seen).flatMap(({ volume, disks }): [string, string][] => {
    const isMeant = disks.some((disk) => disk.system || policyOf(disk, seen.policies) === 'read-only');
    const lines = isMeant ? [] : seen.fstab.filter((entry) => !entry.readOnly && entry.matches(volume));
    const mounts = lines.length === 0 ? [] : mountsOf(seen.entries, volume.device);
    const stuck = mounts.filter(
      (each) => isReadOnly(each) && lines.some(({ target }) => target === each.target),
    );
    return stuck.map((each) => [each.target, whyOnlyRead(each, volume.device)]);
  });
}

function whyOnlyRead({ options }: MountEntry, device: BlockDevice): string {
  if (device.readOnly) return 'the device is write-protected';
  return options.includes('ro')
    ? 'it was mounted so by hand, or was not closed in good order'
    : 'the kernel has stopped writing to it after an error';
}
