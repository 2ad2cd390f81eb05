import type { MountEntry } from '#host/mounts.ts';
import type { Problem } from '#storage/ports.ts';
import type { MountFailure } from '#storage/shares.ts';
import type { Listed } from '#storage/views.ts';

/** The conditions that storage reports: what is wrong, and which routes mend it. */

export function mountDead(
  row: Pick<Listed, 'path' | 'device' | 'type'>,
  failure: MountFailure | undefined,
): Problem {
  const kind = row.type === 'smb' ? 'samba' : row.type;
  const umount = row.type === 'hdd' ? [] : [`POST /command/umount-${kind}`];
  const base = { code: 'mount_dead', severity: 'warning' } as const;
  if (failure !== undefined) {
    return {
      ...base,
      message: `${row.device} is not mounted at ${row.path}: ${failure.words.split('\n')[0] ?? ''}`,
      remedy: failure.needsLogin
        ? 'Mount it again with the right user and password. Or unmount it.'
        : 'It is tried again all the time. Correct what the message says, or unmount it.',
      fixedBy: failure.needsLogin ? [`POST /command/mount-${kind}`, ...umount] : umount,
    };
  }
  return {
    ...base,
    message: `${row.device} at ${row.path} does not answer.`,
    remedy:
      row.type === 'smb' || row.type === 'nfs'
        ? 'Switch the file server on or check the network; it comes back by itself. Or unmount it.'
        : 'Unplug the disk and plug it in again; if it stays silent, it may be broken.',
    fixedBy: umount,
  };
}

/** A mount that somebody else has made, or that holds another one (`inside`): it is not for us to undo. */
export function diskGone(
  { source, target }: Pick<MountEntry, 'source' | 'target'>,
  inside: string | undefined,
): Problem {
  const first = inside === undefined ? '' : `Unmount ${inside}, which lies in it and may work, before. `;
  return {
    code: 'mount_dead',
    severity: 'warning',
    message: `${source}, which is mounted at ${target}, is gone.`,
    remedy: `${first}Unmount it with \`umount -l ${target}\`, then plug the disk in again.`,
    fixedBy: [],
  };
}

export function readOnly(path: string, because: string): Problem {
  return {
    code: 'mount_read_only',
    severity: 'warning',
    message: `${path} can only be read: ${because}`,
    remedy: 'Take off the write protection, or check the disk on the computer that it comes from.',
    fixedBy: [],
  };
}

export function notMounted(name: string, words: string): Problem {
  return {
    code: 'mount_failed',
    severity: 'warning',
    message: `${name} could not be mounted: ${words}`,
    remedy: 'Check the file system on another computer, then plug the disk in again.',
    fixedBy: ['PUT /storage/disks/:id/policy'],
  };
}

export function rootAwaited(target: string): Problem {
  return {
    code: 'mount_failed',
    severity: 'warning',
    message: `${target} is not mounted, which /etc/fstab has at the place of the share root: disks and shares wait for it.`,
    remedy: `Plug its disk in, or \`mount ${target}\`; or take the line out of /etc/fstab.`,
    fixedBy: [],
  };
}

export function devicesUnknown(reason: string): Problem {
  return {
    code: 'devices_unknown',
    severity: 'error',
    message: `The disks of this machine cannot be read: ${reason}`,
    remedy: 'See `systemctl status systemd-udevd` and the log of the daemon.',
    fixedBy: [],
  };
}

export function noEvents(reason: string): Problem {
  return {
    code: 'device_events_lost',
    severity: 'warning',
    message: `Disks that are plugged in show only after a minute: ${reason}`,
    remedy: 'Check that udev runs: `systemctl status systemd-udevd`.',
    fixedBy: [],
  };
}
