import { fault } from '#api/errors.ts';
import { type LocalDisk, placeOf } from '#storage/devices.ts';
import { exchanged } from '#storage/provision-faults.ts';

/** How the disk that was checked is known again; written to the checkpoint of the job. */
export interface Checked {
  readonly serial: string;
  readonly size: number;
  /** Its number among all disks that have appeared since the machine was started. */
  readonly appearance: string;
  /** Where it hangs in the device tree. Jobs of older daemons have none of the three that follow. */
  readonly place: string;
  /** The same, as it is called after another start too. */
  readonly port: string;
  readonly boot: string;
}

/** The disk, or why there is none; `final`: waiting for another one would not help. */
export type Found =
  | { readonly disk: LocalDisk }
  | { readonly disk?: undefined; readonly why: string; readonly final: boolean };

const startedAnew =
  'The machine was started anew since the disk was checked, and nothing on it tells it from another one; nothing more was written.';

export function checkedOf(disk: LocalDisk, boot: string): Checked {
  const { size, sequence, sysPath } = disk.device;
  const port = placeOf(disk.device);
  return { serial: disk.serial, size, appearance: sequence, place: sysPath, port, boot };
}

/** Disks that an id can mean: with a twin beside it, or without one any more, a disk is called by its other id. */
export function named(disks: readonly LocalDisk[], id: string): LocalDisk[] {
  const exact = disks.filter((disk) => disk.id === id);
  return exact.length > 0 ? exact : disks.filter((disk) => disk.otherId === id);
}

/** The one disk that an id means. @throws Fault `not_found`, or `disk_changed` when it means several by now */
export function theOne(disks: readonly LocalDisk[], id: string): LocalDisk {
  const [disk, ...more] = named(disks, id);
  if (disk === undefined) throw fault('not_found', `There is no disk ${id}.`);
  if (more.length === 0) return disk;
  const ids = [disk, ...more].map((each) => each.id).join(', ');
  throw fault('disk_changed', `Several disks call themselves ${id} by now; nothing was written.`, {
    remedy: `Provision the one that is meant by its own id: ${ids}.`,
  });
}

/** One plugging-in of one disk. */
export function isSame({ device: a }: LocalDisk, { device: b }: LocalDisk): boolean {
  return a.node === b.node && a.sysPath === b.sysPath && a.sequence === b.sequence;
}

/**
 * The disk that a job has checked, among those that are there now. Pure.
 *
 * While it stays plugged in it is known by its place and its number, whatever it is called and whoever else is there.
 * After a replug or another start (unless `strict`) it is the one that bears the table that was written to it, or else
 * the only one of its name, serial number and size, if it hangs where it did: a twin that is blank looks like a disk that
 * has just been wiped.
 */
export function findChecked(
  disks: readonly LocalDisk[],
  id: string,
  known: Partial<Checked>,
  how: { readonly boot: string; readonly strict: boolean; readonly tableUuid: string | undefined },
): Found {
  const isNamed = (disk: LocalDisk) => disk.id === id || disk.otherId === id;
  const alike = disks.filter(
    (disk) => isNamed(disk) && disk.serial === known.serial && disk.device.size === known.size,
  );
  // A job of an older daemon does not say of which start its number is: by that alone no disk is written to.
  const isThisBoot = known.boot === how.boot || (known.boot === undefined && !how.strict);
  const [exact, ...others] = alike.filter(
    ({ device }) =>
      isThisBoot &&
      device.sequence === known.appearance &&
      (known.place === undefined || device.sysPath === known.place),
  );
  if (exact !== undefined && others.length === 0) return { disk: exact };
  if (how.strict && isThisBoot) return { why: exchanged, final: true };
  const [marked, ...copies] = alike.filter((disk) => sameUuid(tableOf(disk), how.tableUuid));
  if (marked !== undefined) return copies.length === 0 ? { disk: marked } : several(id, [marked, ...copies]);
  return how.strict && alike.length > 0 ? { why: startedAnew, final: true } : onlyOne(id, alike, known.port);
}

function onlyOne(id: string, alike: readonly LocalDisk[], port: string | undefined): Found {
  const [disk, ...more] = alike;
  if (disk === undefined)
    return { why: `${id}, which was being provisioned, is not there any more.`, final: false };
  if (more.length > 0) return several(id, alike);
  if (port === undefined || placeOf(disk.device) === port) return { disk };
  const why = `A disk that calls itself ${id} is there, but not where the one was that was being provisioned, and without what was written to that; it may be another one.`;
  return { why, final: false };
}

function several(id: string, disks: readonly LocalDisk[]): Found {
  const ids = disks.map((disk) => disk.id).join(', ');
  const why = `Several disks call themselves ${id} (${ids}), and nothing tells which of them was being provisioned; nothing more was written.`;
  return { why, final: true };
}

function tableOf(disk: LocalDisk): string | undefined {
  return disk.device.properties?.['ID_PART_TABLE_UUID'];
}

export function sameUuid(a: string | undefined, b: string | undefined): boolean {
  return a !== undefined && a !== '' && a.toLowerCase() === b?.toLowerCase();
}
