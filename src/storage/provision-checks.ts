import type { ErrorCode } from '#api/errors.ts';
import type { ProvisionFilesystem } from '#api/storage.ts';
import type { Disks } from '#host/disks.ts';
import type { MountEntry } from '#host/mounts.ts';
import type { Check } from '#jobs/definition.ts';
import { lookInto } from '#storage/blank.ts';
import type { LocalDisk } from '#storage/devices.ts';
import { describe } from '#storage/provision-faults.ts';

export interface ProvisionInput {
  readonly disk: string;
  readonly filesystem: ProvisionFilesystem;
  readonly label: string;
  readonly confirm: string;
  readonly wipe: boolean;
}

const MiB = 1024 * 1024;
/**
 * Below this the tools refuse, when the disk has been erased already: mkfs.xfs of xfsprogs ≥ 5.19 wants 300 MiB, mkfs.btrfs
 * of 6.2 109 MiB and later ones more. ext4 and exfat could be smaller, but are of no use then. In MiB, without the table.
 */
const smallest: Readonly<Record<ProvisionFilesystem, number>> = { ext4: 64, exfat: 64, btrfs: 256, xfs: 304 };
/** A GPT at both ends, with the partition between them aligned to 1 MiB. */
const tableSize = 2;

/** What stands in the way, each with what was found. Reads the disk, writes nothing. */
export async function checksOf(
  input: ProvisionInput,
  disk: LocalDisk,
  disks: Disks,
  entries: readonly MountEntry[],
  swaps: readonly string[],
): Promise<Check[]> {
  const { used, content, unread } = await lookInto(disks, disk, entries, swaps);
  const confirm = disk.serial === '' ? disk.id : disk.serial;
  const label = input.filesystem === 'exfat' && input.label.length > 11;
  const least = smallest[input.filesystem] + tableSize;
  const small = `${disk.device.size} bytes are too few: ${input.filesystem} needs a disk of ${least} MiB at least.`;
  const missing = disks.missing(input.filesystem);
  const wrong = `\`confirm\` is not the serial number of ${describe(disk)}.`;
  const found = `The disk is not blank; found: ${content.join('; ')}.`;
  const lost = content.length === 0 ? undefined : `lost will be: ${content.join('; ')}`;
  return [
    check('confirmed', input.confirm === confirm, 'confirm_mismatch', wrong),
    check('idle', used.length === 0, 'disk_in_use', `The disk is at work: ${used.join('; ')}.`),
    check('readable', unread === undefined, 'impossible', `The disk could not be read: ${unread}.`),
    check('blank', content.length === 0 || input.wipe, 'disk_not_blank', found, lost),
    check('large enough', disk.device.size >= least * MiB, 'impossible', small),
    check('tools', missing.length === 0, 'impossible', `This machine lacks ${missing.join(', ')}.`),
    check('label fits', !label, 'impossible', 'exfat takes a label of 11 characters at most.'),
  ];
}

function check(name: string, ok: boolean, code: ErrorCode, reason: string, fine = 'yes'): Check {
  return ok ? { name, ok, reason: fine } : { name, ok, reason, code };
}
