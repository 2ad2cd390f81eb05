/** Who owns files on file systems that know no owners (FAT, exFAT, NTFS, SMB): the user that pods run as. */
export interface Ownership {
  readonly uid: number;
  readonly gid: number;
}

/** How a file system of a disk is mounted. */
export interface LocalMount {
  readonly type: string;
  readonly options: readonly string[];
}

/** The kernel's own driver for NTFS. */
export interface Ntfs3 {
  /** It knows the option `windows_names` (Linux 6.2); an older one refuses to mount with it. */
  readonly windowsNames: boolean;
}

/** What the driver of a kernel knows, by its release (uname(2)). */
export function ntfs3Of(release: string): Ntfs3 {
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  return { windowsNames: major > 6 || (major === 6 && minor >= 2) };
}

const always = ['nosuid', 'nodev'] as const;

/** File systems that are mounted when a disk is plugged in. */
export const mountable = ['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'vfat', 'exfat', 'ntfs'] as const;
export type Mountable = (typeof mountable)[number];

export function isMountable(fstype: string): fstype is Mountable {
  return (mountable as readonly string[]).includes(fstype);
}

/** Files on it have owners; on others all belong to the user that the mount names. */
export function knowsOwners(fstype: string): boolean {
  return !['vfat', 'exfat', 'ntfs'].includes(fstype);
}

/** What keeps a file system from being written to by a mount that only reads: its journal would be played back. */
export function withoutReplay(fstype: string): string[] {
  const options = { ext3: 'noload', ext4: 'noload', xfs: 'norecovery', btrfs: 'rescue=nologreplay' };
  return Object.entries(options).flatMap(([type, option]) => (type === fstype ? [option] : []));
}

/**
 * Type and options for a file system of a disk. `uid` and `gid` only where the file system has no owners of its own:
 * ext4 refuses them. Where the kernel has no driver for NTFS (`ntfs3`), ntfs-3g does it in user space.
 */
export function localMount(
  fstype: Mountable,
  owner: Ownership,
  how: { readonly readOnly: boolean; readonly ntfs3: Ntfs3 | undefined },
): LocalMount {
  const mode = how.readOnly ? 'ro' : 'rw';
  const owners = [`uid=${owner.uid}`, `gid=${owner.gid}`, 'umask=0002'];
  const base = [mode, ...always, 'noatime'];
  const whole = how.readOnly ? withoutReplay(fstype) : [];
  switch (fstype) {
    case 'ext2':
    case 'ext3':
    case 'ext4':
      return { type: fstype, options: [...base, 'errors=remount-ro', ...whole] };
    case 'xfs':
    case 'btrfs':
      return { type: fstype, options: [...base, ...whole] };
    case 'vfat':
      return { type: 'vfat', options: [...base, ...owners, 'utf8=1', 'flush', 'errors=remount-ro'] };
    case 'exfat':
      return { type: 'exfat', options: [...base, ...owners, 'iocharset=utf8', 'errors=remount-ro'] };
    case 'ntfs':
      return ntfsMount([...base, ...owners], how);
  }
}

function ntfsMount(
  options: readonly string[],
  { readOnly, ntfs3 }: { readonly readOnly: boolean; readonly ntfs3: Ntfs3 | undefined },
): LocalMount {
  const names = ntfs3?.windowsNames === false ? [] : ['windows_names'];
  // ntfs-3g throws away the log of a volume that Windows has not closed, unless it is told not to (ntfs-3g(8)).
  const careful = readOnly ? [] : ['norecover'];
  return ntfs3 === undefined
    ? { type: 'ntfs-3g', options: [...options, ...names, ...careful] }
    : { type: 'ntfs3', options: [...options, 'iocharset=utf8', ...names] };
}

/**
 * Whether the words of a failed mount of a type ask for reading only: the device refuses writes, or a journal is dirty
 * and cannot be replayed. Any other error is an error; trying again read-only would only hide it. ntfs3 says EINVAL of
 * a volume that Windows has not closed, and why to the kernel's log alone; it then mounts it read-only or not at all
 * (fs/ntfs3/super.c, ntfs_fill_super).
 */
export function asksForReadOnly(type: string, words: string): boolean {
  if (type === 'ntfs3' && /bad superblock|invalid argument/i.test(words)) return true;
  return /write-protected|read-only|dirty|unclean|hibernat|needs? (journal )?recovery|log replay|norecovery/i.test(
    words,
  );
}

/** Options of an SMB mount. The kernel gives a dead server up after twice the echo interval (mount.cifs(8)). */
export function smbOptions(
  owner: Ownership,
  share: { readonly port: number | undefined; readonly credentials: string | undefined },
): string[] {
  const login = share.credentials === undefined ? ['guest'] : [`credentials=${share.credentials}`];
  return [
    ...always,
    ...login,
    ...(share.port === undefined ? [] : [`port=${share.port}`]),
    `uid=${owner.uid}`,
    `gid=${owner.gid}`,
    'file_mode=0664',
    'dir_mode=0775',
    'iocharset=utf8',
    'soft',
    'echo_interval=5',
  ];
}

export type NfsVersion = '4.1' | '4.2';

/** Options of an NFS mount: an operation fails after about 15 s instead of waiting for ever (nfs(5)). */
export function nfsOptions(version?: NfsVersion): string[] {
  const chosen = version === undefined ? [] : [`vers=${version}`];
  return [...always, ...chosen, 'soft', 'timeo=50', 'retrans=2', 'retry=0', 'actimeo=5'];
}

/**
 * What names the connection of an NFS mount: the kernel shares one among all mounts of a server and version. While that
 * one waits to connect again (up to half a lease, after each failure longer), every mount of it waits. Undefined: an
 * older protocol, or not NFS.
 */
export function nfsConnection(superOptions: readonly string[]): string | undefined {
  const version = superOptions.find((option) => /^vers=4\.[12]$/.test(option));
  const address = addressOf(superOptions);
  return version === undefined || address === undefined ? undefined : `${version} ${address}`;
}

/** The version by which the same server has a connection of its own. Undefined: there is none for that protocol. */
export function otherNfsVersion(superOptions: readonly string[]): NfsVersion | undefined {
  if (superOptions.includes('vers=4.2')) return '4.1';
  return superOptions.includes('vers=4.1') ? '4.2' : undefined;
}

/** The address at which the kernel reaches the server of a mounted share: `addr=` of cifs and nfs in proc_pid_mountinfo(5). */
export function addressOf(superOptions: readonly string[]): string | undefined {
  return superOptions.find((option) => option.startsWith('addr='))?.slice('addr='.length);
}
