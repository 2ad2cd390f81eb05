import type { Disk } from '#api/storage.ts';
import type { MountEntry } from '#host/mounts.ts';
import { type BlockDevice, decodeUdev } from '#host/udev.ts';
import { isWithin } from '#storage/names.ts';

export type Transport = Disk['transport'];
export type Role = Disk['volumes'][number]['role'];

/** A file system, or the place for one: a partition, or a disk without partitions. */
export interface Volume {
  readonly device: BlockDevice;
  readonly role: Role;
  readonly fstype: string;
  readonly label: string;
  readonly uuid: string;
  readonly partUuid: string;
  /** What ties a mount point to this file system for good. */
  readonly identity: string;
}

export interface LocalDisk {
  readonly id: string;
  /** Its id without, or with, a twin beside it: what was decided about a disk holds whether that is plugged in or not. */
  readonly otherId: string;
  readonly device: BlockDevice;
  readonly model: string;
  readonly serial: string;
  /** udev's ID_SERIAL and ID_SERIAL_SHORT, as clients of the ancestor know them. */
  readonly idSerial: string;
  readonly idSerialShort: string;
  readonly transport: Transport;
  /** Carries /, /boot, the share root or the store. */
  readonly system: boolean;
  /** Kind of partition table; "" when there is none. */
  readonly table: string;
  /** udev has finished with the disk and with all of its partitions. */
  readonly ready: boolean;
  readonly volumes: readonly Volume[];
}

/** A file system and the disks that it lies on: several where it is on LVM, md, or what else is built on disks. */
export interface Built {
  readonly volume: Volume;
  readonly disks: readonly LocalDisk[];
}

const efiTypes = new Set(['c12a7328-f81f-11d2-ba4b-00a0c93ec93b', '0xef']);
const bootTypes = new Set([...efiTypes, '21686148-6449-6e6f-744e-656564454649', '0x41']);

/** Told by where the device hangs, not by its name: a SATA disk behind a USB bridge is a USB disk. */
export function transportOf(sysPath: string): Transport {
  if (/\/usb\d+\//.test(sysPath)) return 'usb';
  if (/\/nvme(\d*|-subsystem)\//.test(sysPath)) return 'nvme';
  if (/\/mmc_host\//.test(sysPath)) return 'mmc';
  if (/\/ata\d+\//.test(sysPath)) return 'sata';
  if (/\/virtio\d+\//.test(sysPath)) return 'virtio';
  return 'other';
}

/** Disks of the machine with what is on them. Pure: `entries` and `systemPaths` say which one carries the system. */
export function localDisks(
  devices: readonly BlockDevice[],
  entries: readonly MountEntry[],
  systemPaths: readonly string[],
): LocalDisk[] {
  const system = systemDisks(devices, entries, systemPaths);
  const disks = devices.filter(isPhysicalDisk).map((device) => localDisk(device, devices, system));
  return withDistinctVolumes(withDistinctIds(disks));
}

/**
 * NVMe drives that could have several controllers hang below a virtual subsystem, whatever they do have. The boot
 * areas of an eMMC hold its boot loader and are no disks of their own.
 */
function isPhysicalDisk(device: BlockDevice): boolean {
  const virtual = /^\/sys\/devices\/virtual\/(?!nvme-subsystem\/)/.test(device.sysPath);
  const other = /^((sr|fd)\d|mmcblk\d+(boot|rpmb))/.test(device.name);
  return device.kind === 'disk' && !virtual && device.size > 0 && !other;
}

function localDisk(device: BlockDevice, all: readonly BlockDevice[], system: ReadonlySet<string>): LocalDisk {
  const properties = device.properties ?? {};
  const text = (key: string) => properties[key] ?? '';
  const partitions = all.filter((each) => each.parent === device.name);
  const idSerial = text('ID_SERIAL');
  const idSerialShort = text('ID_SERIAL_SHORT');
  const serial = idSerialShort || text('ID_SCSI_SERIAL') || text('ID_WWN');
  const id = idOf(idSerial || text('ID_WWN') || text('ID_PATH') || device.sysPath);
  const disk = {
    id,
    otherId: `${id}@${placeOf(device)}`,
    device,
    model: modelOf(properties),
    serial,
    idSerial,
    idSerialShort,
    transport: transportOf(device.sysPath),
    system: system.has(device.name),
    table: text('ID_PART_TABLE_TYPE'),
    ready: [device, ...partitions].every((each) => each.properties !== undefined),
  };
  const parts = partitions.length > 0 ? partitions : [device];
  return { ...disk, volumes: parts.map((part) => volumeOf(part, disk)) };
}

function modelOf(properties: Readonly<Record<string, string>>): string {
  const vendor = plain(properties['ID_VENDOR_ENC'] ?? '').trim();
  const model = plain(properties['ID_MODEL_ENC'] ?? properties['ID_MODEL'] ?? '').trim();
  const known = vendor !== '' && vendor !== 'ATA' && !model.startsWith(vendor);
  return known ? `${vendor} ${model}`.trim() : model;
}

/** What a stick says of itself ends in terminals and logs: nothing in it may move a cursor or turn the text around. */
function plain(text: string): string {
  return decodeUdev(text).replace(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, '\ufffd');
}

function idOf(text: string): string {
  return text.replace(/^\/sys\/devices\//, '').replace(/[^A-Za-z0-9._:-]+/g, '_');
}

function volumeOf(device: BlockDevice, disk: Omit<LocalDisk, 'volumes'>): Volume {
  const properties = device.properties ?? {};
  const uuid = properties['ID_FS_UUID'] ?? '';
  const partUuid = properties['ID_PART_ENTRY_UUID'] ?? '';
  const where = device.kind === 'partition' ? `part${properties['ID_PART_ENTRY_NUMBER'] ?? ''}` : 'whole';
  return {
    device,
    role: roleOf(properties, disk),
    fstype: properties['ID_FS_TYPE'] ?? '',
    label: plain(properties['ID_FS_LABEL_ENC'] ?? properties['ID_FS_LABEL'] ?? ''),
    uuid,
    partUuid,
    identity: `fs:${uuid || partUuid || where}:${disk.serial || disk.id}`,
  };
}

function roleOf(
  properties: Readonly<Record<string, string>>,
  disk: Pick<LocalDisk, 'system' | 'table'>,
): Role {
  const usage = properties['ID_FS_USAGE'] ?? '';
  const type = properties['ID_FS_TYPE'] ?? '';
  if (bootTypes.has((properties['ID_PART_ENTRY_TYPE'] ?? '').toLowerCase())) return 'boot';
  if (type === 'swap') return 'swap';
  if (usage === 'crypto') return 'encrypted';
  if (usage === 'raid') return 'member';
  if (disk.system) return 'system';
  return usage === 'filesystem' ? 'data' : 'empty';
}

/**
 * Names of the disks below the file systems that carry the given paths: from the mount that covers each path through
 * overlays, dm and md down to the disks, all of them where a file system spans several.
 */
export function systemDisks(
  devices: readonly BlockDevice[],
  entries: readonly MountEntry[],
  paths: readonly string[],
): Set<string> {
  const found = new Set<string>();
  for (const path of withLayers([...paths, ...bootPlaces(entries)], entries)) {
    const entry = coveringMount(entries, path);
    const device = entry && deviceOfMount(devices, entry);
    for (const each of device ? [device, ...devices.filter((other) => areOneBtrfs(device, other))] : [])
      collectDisks(each, devices, found, 0);
  }
  return found;
}

/** Where something is mounted that the machine boots from: distributions differ (`/boot/firmware`, `/boot/efi`, `/efi`). */
function bootPlaces(entries: readonly MountEntry[]): string[] {
  const targets = entries.map((entry) => entry.target);
  return targets.filter((target) => isWithin(target, '/boot') || isWithin(target, '/efi'));
}

/** The paths, and the folders that overlays are made of which they lie on. */
function withLayers(paths: readonly string[], entries: readonly MountEntry[]): Iterable<string> {
  const all = new Set(paths);
  for (const path of all) {
    const entry = coveringMount(entries, path);
    for (const option of entry?.fstype === 'overlay' ? entry.superOptions : []) {
      const layers = /^(?:lowerdir|upperdir)\+?=(.*)$/.exec(option)?.[1]?.split(':') ?? [];
      for (const layer of layers) if (layer.startsWith('/')) all.add(layer);
    }
  }
  return all;
}

/** Two devices of one btrfs. A copy of a device has its ID_FS_UUID_SUB too, and is none. */
export function areOneBtrfs(a: BlockDevice, b: BlockDevice): boolean {
  const [one, other] = [a.properties ?? {}, b.properties ?? {}];
  const same = (key: string) => (one[key] ?? '') !== '' && one[key] === other[key];
  return one['ID_FS_TYPE'] === 'btrfs' && same('ID_FS_UUID') && !same('ID_FS_UUID_SUB');
}

/** What is built on disks: LVM, md, an opened LUKS. Not what lies on files or on nothing that is known. */
export function builtVolumes(devices: readonly BlockDevice[], disks: readonly LocalDisk[]): Built[] {
  return devices.flatMap((device) => {
    const names = new Set<string>();
    if (isBuilt(device, devices)) collectDisks(device, devices, names, 0);
    const below = disks.filter((disk) => names.has(disk.device.name));
    const [first] = below;
    if (first === undefined) return [];
    const volume = volumeOf(device, { ...first, system: below.some((disk) => disk.system) });
    return [{ volume, disks: below }];
  });
}

/** What lies on USB disks alone is `usb`, every other local file system `hdd`. */
export function kindOf(disks: readonly Pick<LocalDisk, 'transport'>[]): 'usb' | 'hdd' {
  return disks.every((disk) => disk.transport === 'usb') ? 'usb' : 'hdd';
}

/** Every file system, and place for one, of the machine: on disks, and on what is built on them. */
export function placesOf(seen: {
  readonly disks: readonly LocalDisk[];
  readonly built: readonly Built[];
}): Built[] {
  const plain = seen.disks.flatMap((disk) => disk.volumes.map((volume) => ({ volume, disks: [disk] })));
  return [...plain, ...seen.built];
}

/** On other devices, as itself or as the device that it is a partition of. */
function isBuilt(device: BlockDevice, all: readonly BlockDevice[]): boolean {
  const whole = all.find((each) => each.name === device.parent) ?? device;
  return whole.slaves.length > 0;
}

function collectDisks(
  device: BlockDevice,
  all: readonly BlockDevice[],
  found: Set<string>,
  depth: number,
): void {
  if (depth > 16) return;
  const below = device.parent === undefined ? device.slaves : [device.parent];
  if (below.length === 0 && device.kind === 'disk') found.add(device.name);
  for (const name of below) {
    const next = all.find((each) => each.name === name);
    if (next) collectDisks(next, all, found, depth + 1);
  }
}

/** The mount that a path lies on: the deepest one that holds it, of several on one path the last. */
export function coveringMount(entries: readonly MountEntry[], path: string): MountEntry | undefined {
  let best: MountEntry | undefined;
  for (const entry of entries) {
    if (!isWithin(path, entry.target)) continue;
    if (best === undefined || entry.target.length >= best.target.length) best = entry;
  }
  return best;
}

/** btrfs and others have numbers of their own: then the source tells. */
export function deviceOfMount(devices: readonly BlockDevice[], entry: MountEntry): BlockDevice | undefined {
  return (
    devices.find((each) => each.dev === entry.dev) ??
    devices.find((each) => each.node === entry.source || mapperOf(each) === entry.source)
  );
}

/** The name by which the kernel's tables show a device of LVM or LUKS. */
export function mapperOf({ properties }: BlockDevice): string | undefined {
  const name = properties?.['DM_NAME'];
  return name === undefined ? undefined : `/dev/mapper/${name}`;
}

/** Where the file system of a device is mounted, bind mounts and subvolumes included. */
export function mountsOf(entries: readonly MountEntry[], device: BlockDevice): MountEntry[] {
  const mapper = mapperOf(device);
  return entries.filter(
    ({ dev, source }) => dev === device.dev || source === device.node || source === mapper,
  );
}

/** Two disks that call themselves the same (cheap sticks share serial numbers) are told apart by where they are. */
function withDistinctIds(disks: readonly LocalDisk[]): LocalDisk[] {
  return disks.map((disk) => {
    const twin = disks.some((other) => other !== disk && other.id === disk.id);
    return twin ? { ...disk, id: disk.otherId, otherId: disk.id } : disk;
  });
}

/**
 * File systems of one UUID on disks of one serial number (copies, made by a dock or within one disk) are told apart by
 * the number of their partition, and by where they are. Others keep their identity whoever else is plugged in, for it
 * is what their path hangs on.
 */
function withDistinctVolumes(disks: readonly LocalDisk[]): LocalDisk[] {
  const all = disks.flatMap((disk) => disk.volumes.map((volume) => ({ disk, volume })));
  const distinct = (disk: LocalDisk, volume: Volume): Volume => {
    const same = all.filter((each) => each.volume !== volume && each.volume.identity === volume.identity);
    const within = same.some((each) => each.disk === disk) ? `#${partOf(volume.device)}` : '';
    const across = same.some((each) => each.disk !== disk) ? `@${placeOf(disk.device)}` : '';
    return { ...volume, identity: `${volume.identity}${within}${across}` };
  };
  return disks.map((disk) => ({ ...disk, volumes: disk.volumes.map((volume) => distinct(disk, volume)) }));
}

/** Where a disk hangs, as udev calls it: the same after another start. */
export function placeOf(device: BlockDevice): string {
  return idOf(device.properties?.['ID_PATH'] ?? device.sysPath);
}

function partOf(device: BlockDevice): string {
  return device.properties?.['ID_PART_ENTRY_NUMBER'] ?? /\d+$/.exec(device.name)?.[0] ?? '';
}
