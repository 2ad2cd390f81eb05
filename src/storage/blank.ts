import type { Claim, Disks } from '#host/disks.ts';
import { type MountEntry, wordsOf } from '#host/mounts.ts';
import { errnoOf } from '#lib/fault.ts';
import { type LocalDisk, mountsOf } from '#storage/devices.ts';

/** Why a disk must not be written to, whatever is asked: it is at work. Empty: it is idle. Pure. */
export function inUse(disk: LocalDisk, entries: readonly MountEntry[], swaps: readonly string[]): string[] {
  const found: string[] = [];
  if (disk.system) found.push('it carries the system');
  if (disk.device.readOnly) found.push('it is write-protected');
  const devices = [disk.device, ...disk.volumes.map((volume) => volume.device)];
  for (const device of new Set(devices)) {
    for (const entry of mountsOf(entries, device)) found.push(`${device.node} is mounted at ${entry.target}`);
    if (device.holders.length > 0) found.push(`${device.node} is held by ${device.holders.join(', ')}`);
    if (swaps.includes(device.node)) found.push(`${device.node} is swap in use`);
  }
  return found;
}

/** What the udev database and sysfs say is on the disk. Empty: they know of nothing. Pure. */
export function contentKnown(disk: LocalDisk): string[] {
  const found: string[] = [];
  const properties = disk.device.properties;
  if (properties === undefined) found.push('udev has not finished with it');
  if (disk.table !== '') found.push(`partition table ${disk.table}`);
  const type = properties?.['ID_FS_TYPE'] ?? '';
  if (type !== '') found.push(`${type} on the whole disk`);
  if (properties?.['ID_FS_AMBIVALENT'] !== undefined) found.push('more than one kind of content');
  for (const volume of disk.volumes) {
    if (volume.device.kind !== 'partition') continue;
    const what = volume.fstype === '' ? 'a partition' : volume.fstype;
    const label = volume.label === '' ? '' : ` called ${JSON.stringify(volume.label)}`;
    found.push(`${what}${label} on ${volume.device.node}`);
  }
  return found;
}

/** What is on the device itself, read now. A disk that is blank has no signature and nothing but zeros at both ends. */
export async function contentRead(disks: Disks, disk: LocalDisk): Promise<string[]> {
  const { node, size } = disk.device;
  const found = (await disks.signatures(node)).map((each) => `signature of ${each.type} at ${each.offset}`);
  const probed = await disks.probe(node);
  const table = probed['ID_PART_TABLE_TYPE'];
  const type = probed['ID_FS_TYPE'];
  if (table !== undefined) found.push(`partition table ${table}`);
  if (type !== undefined) found.push(`${type} on the whole disk`);
  if (probed['ID_FS_AMBIVALENT'] !== undefined) found.push('more than one kind of content');
  if (found.length === 0 && !(await disks.endsAreZero(node, size))) {
    found.push('data of a kind that is not known');
  }
  return found;
}

/** Everything that is on a disk, from the database or else from the device. Who asks has claimed it. */
export async function contentClaimed(disks: Disks, disk: LocalDisk): Promise<string[]> {
  const known = contentKnown(disk);
  return known.length > 0 ? known : contentRead(disks, disk);
}

/** Everything that is on a disk that is idle, from the database and from the device. */
export async function contentOf(disks: Disks, disk: LocalDisk): Promise<string[]> {
  const known = contentKnown(disk);
  if (known.length > 0) return known;
  return [...(await contentRead(disks, disk)), ...(await claimable(disks, disk))];
}

/** What stands in the way of writing to a disk, as far as that can be told without writing. */
export interface Looked {
  /** Why it must not be written to, as {@link inUse} and the kernel tell. */
  readonly used: readonly string[];
  /** What is on it; of a disk that is at work, what is known without reading it. */
  readonly content: readonly string[];
  /** Why it could not be read. */
  readonly unread?: string;
}

export async function lookInto(
  disks: Disks,
  disk: LocalDisk,
  entries: readonly MountEntry[],
  swaps: readonly string[],
): Promise<Looked> {
  const known = contentKnown(disk);
  const used = inUse(disk, entries, swaps);
  if (used.length > 0) return { used, content: known };
  try {
    // Read by children first: opening a disk that hangs would keep a thread of ours.
    const read = await contentRead(disks, disk);
    return { used: await claimable(disks, disk), content: known.length > 0 ? known : read };
  } catch (error) {
    return { used, content: known, unread: wordsOf(error) };
  }
}

/** What a partition of ours holds that we did not put there. Throws when it cannot be read: that is not nothing. */
export async function foundOn(disks: Disks, node: string): Promise<string[]> {
  const signatures = await disks.signatures(node);
  const probed = await disks.probe(node);
  const found = ['ID_FS_TYPE', 'ID_PART_TABLE_TYPE'].flatMap((key) => probed[key] ?? []);
  if (probed['ID_FS_AMBIVALENT'] !== undefined) found.push('more than one kind of content');
  const more = found.length === 0 ? signatures.map(({ type }) => `a signature of ${type}`) : [];
  return [...found, ...more].map((what) => `${what} on ${node} that is not ours`);
}

/** Nobody else has it open for himself: not the kernel (mounted, dm, md, swap), not a program. */
export async function claimable(disks: Disks, disk: LocalDisk): Promise<string[]> {
  const claim = await claimed(disks, disk);
  if (typeof claim === 'string') return [claim];
  await claim.release();
  return [];
}

/** The disk for us alone until it is released, or who has it: with it no partition of it can be mounted. */
export async function claimed(disks: Disks, disk: LocalDisk): Promise<Claim | string> {
  try {
    return await disks.claim(disk.device.node);
  } catch (error) {
    if (errnoOf(error) === 'EBUSY') return `${disk.device.node} is held open by something`;
    throw error;
  }
}

/** /proc/swaps: the devices that are swapped to. */
export function parseSwaps(text: string): string[] {
  return text
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s+/)[0] ?? '')
    .filter((node) => node.startsWith('/dev/'));
}
