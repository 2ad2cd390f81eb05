import type { MountEntry } from '#host/mounts.ts';
import { topmostAt } from '#host/mounts.ts';
import { isWithin } from '#storage/names.ts';
import type { MountRow } from '#storage/registry.ts';

/** How our row and the kernel's table agree about a mount point. */
export type Standing =
  /** Our mount is there and on top: it may be unmounted. */
  | { readonly kind: 'ours'; readonly entry: MountEntry }
  /** Ours is there, but a mount of somebody else lies over it or within it: nothing may be unmounted. */
  | { readonly kind: 'covered'; readonly entry: MountEntry; readonly by: MountEntry }
  /** Somebody else's mount is there and ours is not. */
  | { readonly kind: 'foreign'; readonly entry: MountEntry }
  | { readonly kind: 'absent' };

/**
 * The one judgement on which every unmount rests. A finished mount is known by mount id, numbers, kind and boot; one that a
 * crash left half recorded is known by its source at a path that held no mount when the intent was written.
 */
export function standing(
  row: MountRow,
  path: string,
  entries: readonly MountEntry[],
  bootId: string,
): Standing {
  const top = topmostAt(entries, path);
  const own = entries.findLast((entry) => entry.target === path && isOwn(row, entry, bootId));
  if (own === undefined) return top === undefined ? { kind: 'absent' } : { kind: 'foreign', entry: top };
  const isForeign = (entry: MountEntry) => isWithin(entry.target, path) && !isMadeFor(own, entry, entries);
  const within = entries.find((entry) => entry.target !== path && isForeign(entry));
  const by = top !== undefined && top.id !== own.id ? top : within;
  return by === undefined ? { kind: 'ours', entry: own } : { kind: 'covered', entry: own, by };
}

function isOwn(row: MountRow, entry: MountEntry, bootId: string): boolean {
  if (row.bootId !== bootId) return false;
  if (row.phase === 'mounting') return sameSource(row.source, entry.source) && isPlain(entry);
  if (row.phase === 'none') return false;
  // The kernel gives both numbers out again, of what has no device (btrfs, tmpfs, nfs) also to somebody else's mount.
  const isKind = (row.extra.mountedAs ?? entry.fstype) === entry.fstype;
  return entry.id === row.mountId && entry.dev === row.dev && isKind;
}

/**
 * The kernel made it, for our NFS mount: where somebody goes into a folder of it that is another export (of an NFSv4
 * pseudo root, or `crossmnt`) it mounts that there by itself, named as ours with the way there behind (nfs_do_submount,
 * nfs_path). Such mounts go with ours: umount(2) takes those along that nobody uses, and is refused for others.
 *
 * It stands on ours, or on another one of its kind; its device is another one, which that of a bind mount is not. A
 * person can mount the same export there by hand, so it must also be mounted in the very way of what it stands on.
 */
function isMadeFor(own: MountEntry, entry: MountEntry, entries: readonly MountEntry[]): boolean {
  const isNfs = (own.fstype === 'nfs' || own.fstype === 'nfs4') && entry.fstype === own.fstype;
  const source = `${own.source.replace(/\/+$/, '')}${entry.target.slice(own.target.length)}`;
  if (!isNfs || entry.source !== source || entry.root !== '/') return false;
  const on = entries.find(({ id }) => id === entry.parent);
  // A parent is nearer to ours, so this comes to an end.
  if (on === undefined || on.dev === entry.dev || on.target.length >= entry.target.length) return false;
  if (!isMountedAlike(on, entry)) return false;
  return on.id === own.id || isMadeFor(own, on, entries);
}

/**
 * What a mount made by the kernel takes over from the one that it stands on: the flags of the mount (finish_automount in
 * fs/namespace.c), and how the server is reached (nfs_clone_server in fs/nfs/client.c). Flags that somebody changed
 * afterwards on either of them tell against it.
 */
function isMountedAlike(on: MountEntry, entry: MountEntry): boolean {
  const isTaken = (option: string) => /^(soft|softerr|hard|(timeo|retrans|vers|addr)=.*)$/.test(option);
  const ways = [on, entry].map(({ options, superOptions }) =>
    JSON.stringify([options.toSorted(), superOptions.filter(isTaken).toSorted()]),
  );
  return ways[0] === ways[1];
}

/** Not a bind mount, as far as the root tells: btrfs shows its default subvolume, cifs the folder below the share. */
function isPlain({ root, fstype, source }: MountEntry): boolean {
  return root === '/' || fstype === 'btrfs' || (fstype === 'cifs' && source.endsWith(root));
}

/** cifs reports `//server/share` as it was given, nfs may drop a slash at the end. */
export function sameSource(a: string, b: string): boolean {
  const plain = (source: string) => source.replace(/\/+$/, '').toLowerCase();
  return plain(a) === plain(b);
}
