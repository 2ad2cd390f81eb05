import { type Static, type TProperties, Type } from 'typebox';
import type { OperationSpec } from '#api/operation.ts';
import { JobStarted, nullable, oneOf } from '#api/shapes.ts';

/** Numbers of one mounted file system, equal to `df`; bytes and counts (contract §2). */
export const UsageShape = Type.Object({
  path: Type.String({ description: 'where it is mounted' }),
  fstype: Type.String(),
  total: Type.Integer(),
  free: Type.Integer({ description: 'what an ordinary user can still write' }),
  used: Type.Integer(),
  usedPercent: Type.Number({ description: 'used/(used+free)·100' }),
  inodesTotal: Type.Integer(),
  inodesUsed: Type.Integer(),
  inodesFree: Type.Integer(),
  inodesUsedPercent: Type.Number(),
});
export type UsageStat = Static<typeof UsageShape>;

const invalid = Type.Boolean({
  description: 'it does not answer; the numbers are the last known ones, or 0',
});
const device = Type.String({ description: 'the share (//server/share, server:/path) or the device node' });
const node = Type.String({ description: 'name of the node that has it' });

const SmbUsage = Type.Object({ ...UsageShape.properties, invalid, device });
const PathUsage = Type.Object({
  ...SmbUsage.properties,
  type: oneOf(['usb', 'hdd', 'smb', 'nfs'] as const, 'what it is'),
  id_serial: Type.String(),
  id_serial_short: Type.String(),
  partition_uuid: Type.String(),
  read_only: Type.Boolean(),
});
export type MountedPath = Static<typeof PathUsage>;

const inCluster = <T extends TProperties>(properties: T) => Type.Array(Type.Object({ ...properties, node }));

const noControl = '^[^\\u0000-\\u001f\\u007f]+$';
const smbBody = Type.Object({
  smbPath: Type.String({
    description: '//server[:port]/share[/sub]',
    minLength: 3,
    maxLength: 1024,
    pattern: noControl,
  }),
  user: Type.Optional(Type.String({ description: 'left out: as guest', maxLength: 256 })),
  password: Type.Optional(Type.String({ description: 'password of that user', maxLength: 256 })),
});

const absolutePath = Type.String({
  description: 'absolute path on the node',
  minLength: 1,
  maxLength: 4096,
  pattern: noControl,
});
const sharePath = Type.String({
  description: 'path relative to the share root',
  minLength: 1,
  maxLength: 4096,
  pattern: noControl,
});
const force = Type.Object({
  force: Type.Optional(
    Type.Boolean({
      description: 'detach although it is in use; never safe (root, or a signature in the bound form)',
    }),
  ),
});

const HolderShape = Type.Object({
  pid: Type.Integer(),
  command: Type.String(),
  path: Type.String({ description: 'what it holds' }),
  pod: Type.Optional(Type.String({ description: 'namespace/name of its pod, or the uid while unknown' })),
});
export type Holder = Static<typeof HolderShape>;

const Unmounted = Type.Object({
  path: Type.String(),
  safe: Type.Boolean({ description: 'everything is written; the disk may be pulled' }),
  poweredDown: Type.Boolean(),
  holders: Type.Array(HolderShape),
});

const PerNode = Type.Array(
  Type.Object({
    node,
    path: Type.String(),
    ok: Type.Boolean(),
    message: Type.String(),
  }),
);

const umountBody = Type.Object({ path: absolutePath });
const umountClusterBody = Type.Object({ path: sharePath, node: Type.Optional(node) });
const umounts = { origin: 'specified', dryRun: true, message: 'success to umount' } as const;

/** Mounts of this node, as clients of the ancestor know them (contract §2), and NFS beside SMB (§4). */
export const mountOperations = {
  'command.mountSamba': {
    method: 'POST',
    path: '/command/mount-samba',
    summary: 'Mount an SMB share under the share root; it comes back after a reboot',
    origin: 'specified',
    body: smbBody,
    data: Type.Object({ path: Type.String() }),
    message: 'success to mount',
    signedKeys: ['smbPath'],
    dryRun: true,
    statuses: [409, 422, 503],
  },
  'command.mountSambaV2': {
    method: 'POST',
    path: '/command/v2/mount-samba',
    summary:
      'As mount-samba; a server without a share, or an unknown one, answers with the shares to choose from',
    origin: 'specified',
    body: smbBody,
    data: Type.Union([
      Type.Object({ path: Type.String() }),
      Type.Array(Type.Object({ path: Type.String(), mounted: Type.Boolean() })),
    ]),
    message: 'success to mount',
    signedKeys: ['smbPath'],
    dryRun: true,
    statuses: [300, 409, 422, 503],
  },
  'command.umountSamba': {
    method: 'POST',
    path: '/command/umount-samba',
    summary: 'Unmount an SMB share that this daemon mounted, and forget it',
    ...umounts,
    body: umountBody,
    query: force,
    signedKeys: ['path'],
    statuses: [404, 409, 422, 503],
  },
  'command.umountSambaIncluster': {
    method: 'POST',
    path: '/command/umount-samba-incluster',
    summary: 'Unmount an SMB share on every node that has it',
    ...umounts,
    body: umountClusterBody,
    data: PerNode,
    signedKeys: ['path'],
    statuses: [404, 409, 422, 503],
  },
  'command.umountUsb': {
    method: 'POST',
    path: '/command/umount-usb',
    summary: 'Flush, unmount and stop a USB disk so that it can be pulled',
    ...umounts,
    body: umountBody,
    query: force,
    data: Unmounted,
    signedKeys: ['path'],
    statuses: [404, 409, 422, 503],
  },
  'command.umountUsbIncluster': {
    method: 'POST',
    path: '/command/umount-usb-incluster',
    summary: 'As umount-usb, on every node that has it',
    ...umounts,
    body: umountClusterBody,
    query: force,
    data: PerNode,
    signedKeys: ['path'],
    statuses: [404, 409, 422, 503],
  },
  'command.mountNfs': {
    method: 'POST',
    path: '/command/mount-nfs',
    summary: 'Mount an NFS export under the share root; it comes back after a reboot',
    origin: 'specified',
    body: Type.Object({
      server: Type.String({ description: 'host name or IP address', minLength: 1, maxLength: 253 }),
      sharedPath: Type.String({
        description: 'the exported path',
        minLength: 1,
        maxLength: 1024,
        pattern: noControl,
      }),
      mountPath: Type.Optional(
        Type.String({ description: 'name under the share root; left out: by the export', maxLength: 4096 }),
      ),
    }),
    data: Type.Object({ path: Type.String() }),
    message: 'success to mount',
    signedKeys: ['server', 'sharedPath'],
    dryRun: true,
    statuses: [409, 422, 503],
  },
  'command.umountNfs': {
    method: 'POST',
    path: '/command/umount-nfs',
    summary: 'Unmount an NFS export that this daemon mounted, and forget it',
    ...umounts,
    body: umountBody,
    query: force,
    signedKeys: ['path'],
    statuses: [404, 409, 422, 503],
  },
  'command.umountNfsIncluster': {
    method: 'POST',
    path: '/command/umount-nfs-incluster',
    summary: 'Unmount an NFS export on every node that has it',
    ...umounts,
    body: umountClusterBody,
    data: PerNode,
    signedKeys: ['path'],
    statuses: [404, 409, 422, 503],
  },
  'command.listNfs': {
    method: 'POST',
    path: '/command/list-nfs',
    summary: 'What an NFS server exports',
    origin: 'specified',
    body: Type.Object({
      server: Type.String({ description: 'host name or IP address', minLength: 1, maxLength: 253 }),
    }),
    data: Type.Array(Type.Object({ path: Type.String(), acl: Type.String(), mounted: Type.Boolean() })),
    statuses: [422, 503],
  },
} as const satisfies Record<string, OperationSpec>;

const mounted = { method: 'GET', origin: 'specified', statuses: [503] } as const;

/** What is mounted, here and in the cluster (contract §2 `/system`). */
export const mountedOperations = {
  'system.mountedUsb': {
    ...mounted,
    path: '/system/mounted-usb',
    summary: 'Mounted USB disks with their usage',
    data: Type.Array(UsageShape),
  },
  'system.mountedUsbIncluster': {
    ...mounted,
    path: '/system/mounted-usb-incluster',
    summary: 'Mounted USB disks of every node; paths relative to the share root',
    data: inCluster(UsageShape.properties),
  },
  'system.mountedHdd': {
    ...mounted,
    path: '/system/mounted-hdd',
    summary: 'Mounted local disks that are not USB, without the one that carries the system',
    data: Type.Array(UsageShape),
  },
  'system.mountedHddIncluster': {
    ...mounted,
    path: '/system/mounted-hdd-incluster',
    summary: 'Mounted local disks of every node; paths relative to the share root',
    data: inCluster(UsageShape.properties),
  },
  'system.mountedSmb': {
    ...mounted,
    path: '/system/mounted-smb',
    summary: 'Mounted SMB shares with their usage',
    data: Type.Array(SmbUsage),
  },
  'system.mountedSmbIncluster': {
    ...mounted,
    path: '/system/mounted-smb-incluster',
    summary: 'Mounted SMB shares of every node; paths relative to the share root',
    data: inCluster(SmbUsage.properties),
  },
  'system.mountedPath': {
    ...mounted,
    path: '/system/mounted-path',
    summary: 'Everything mounted for users: USB, local disks, SMB, NFS',
    data: Type.Array(PathUsage),
  },
  'system.mountedPathIncluster': {
    ...mounted,
    path: '/system/mounted-path-incluster',
    summary: 'Everything mounted for users on every node; paths relative to the share root',
    data: inCluster(PathUsage.properties),
  },
} as const satisfies Record<string, OperationSpec>;

export const diskPolicies = ['auto', 'read-only', 'ignore'] as const;
export type DiskPolicy = (typeof diskPolicies)[number];

export const provisionFilesystems = ['ext4', 'xfs', 'btrfs', 'exfat'] as const;
export type ProvisionFilesystem = (typeof provisionFilesystems)[number];

const VolumeShape = Type.Object({
  device: Type.String(),
  size: Type.Integer(),
  fstype: Type.String({ description: '"" when there is none' }),
  label: Type.String(),
  uuid: Type.String(),
  role: oneOf(
    ['data', 'system', 'swap', 'boot', 'encrypted', 'member', 'empty'] as const,
    'what it is for; only data is mounted',
  ),
  mountedAt: Type.Array(Type.String()),
  inUseBy: Type.Array(Type.String()),
  notMountedBecause: Type.String({ description: '"" when it is mounted or will be' }),
});

export const DiskShape = Type.Object({
  id: Type.String({ description: 'stable: by serial number, else by where it is attached' }),
  device: Type.String(),
  model: Type.String(),
  serial: Type.String({ description: '"" when the device has none' }),
  transport: oneOf(['usb', 'sata', 'nvme', 'mmc', 'virtio', 'other'] as const, 'how it is attached'),
  size: Type.Integer(),
  removable: Type.Boolean(),
  readOnly: Type.Boolean(),
  system: Type.Boolean({ description: 'carries /, /boot, the share root or the store' }),
  blank: Type.Boolean({ description: 'proven to hold nothing' }),
  notBlankBecause: Type.String({ description: 'what was found; "" when it is blank' }),
  policy: oneOf(diskPolicies, 'what is done when it is plugged in'),
  health: nullable(Type.Object({ passed: Type.Boolean(), message: Type.String() })),
  volumes: Type.Array(VolumeShape),
});
export type Disk = Static<typeof DiskShape>;

const DiskParams = Type.Object({ id: Type.String({ minLength: 1, maxLength: 256 }) });

/** Local disks (contract §4). */
export const diskOperations = {
  'storage.disks': {
    method: 'GET',
    path: '/storage/disks',
    summary: 'Every local disk: what it is, what is on it, whether it is blank',
    origin: 'added',
    data: Type.Array(DiskShape),
    statuses: [503],
  },
  'storage.setPolicy': {
    method: 'PUT',
    path: '/storage/disks/:id/policy',
    summary: 'What is done with a disk when it is plugged in',
    origin: 'added',
    params: DiskParams,
    body: Type.Object({ policy: oneOf(diskPolicies, 'auto, read-only or ignore') }),
    data: Type.Object({ id: Type.String(), policy: oneOf(diskPolicies, 'what holds now') }),
    dryRun: true,
    statuses: [404, 503],
  },
  'storage.provision': {
    method: 'POST',
    path: '/storage/disks/:id/provision',
    summary: 'Partition and format a disk, and mount it for good; a disk that is not blank only with wipe',
    origin: 'added',
    params: DiskParams,
    body: Type.Object(
      {
        filesystem: oneOf(provisionFilesystems, 'what it is formatted with'),
        label: Type.String({
          description: 'name of the file system, and of its folder',
          minLength: 1,
          maxLength: 12,
          pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$',
        }),
        confirm: Type.String({
          description: 'the serial number of the disk, typed by a person (its id when it has none)',
          minLength: 1,
          maxLength: 256,
        }),
        wipe: Type.Optional(Type.Boolean({ description: 'erase what is on it' })),
      },
      { additionalProperties: false },
    ),
    data: JobStarted,
    message: 'start to provision',
    dryRun: true,
    statuses: [404, 409, 422, 503],
  },
} as const satisfies Record<string, OperationSpec>;
