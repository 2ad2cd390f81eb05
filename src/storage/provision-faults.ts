import { fault } from '#api/errors.ts';
import { ExecError } from '#host/exec.ts';
import type { LocalDisk } from '#storage/devices.ts';

// What a provisioning says when it ends before its time.

export const exchanged = 'The disk was pulled or exchanged since it was checked; nothing more was written.';

/** The disk is not the one that was checked, or nobody can tell. */
export function changed(why = exchanged) {
  return fault('disk_changed', why, {
    remedy:
      'With no other disk of that name plugged in, provision it again, with `wipe: true` if nothing on it is needed.',
  });
}

/** A tool that fails is no fault of the daemon. */
export async function toldPlainly(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw error instanceof ExecError ? notDone(error) : error;
  }
}

function notDone(error: ExecError) {
  return fault('impossible', `The disk could not be made ready: ${error.message}`, {
    cause: error,
    remedy:
      'If nothing on it is needed, provision it again with `wipe: true`; a disk that fails again is broken.',
  });
}

/** Model and serial number, as a person reads them on the disk. */
export function describe(disk: LocalDisk): string {
  return [disk.model, disk.serial === '' ? disk.id : disk.serial].filter((text) => text !== '').join(' ');
}

/** After a crash: what is on the disk is not what this job has left there. */
export function interrupted(disk: LocalDisk, content: readonly string[]) {
  const found = content.join('; ') || 'nothing that can be gone on with';
  return fault(
    'disk_changed',
    `${describe(disk)} was being provisioned when the daemon ended; found: ${found}.`,
    {
      remedy: 'Nothing more was written. Provision it again, with `wipe: true` if nothing on it is needed.',
    },
  );
}
