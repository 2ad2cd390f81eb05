import { onFolder } from '#storage/folder-faults.ts';
import type { LocalParts } from '#storage/local.ts';
import { freeName } from '#storage/names.ts';
import { type NfsTarget, nfsFolder, nfsIdentity, nfsSource } from '#storage/nfs.ts';
import type { MountRow } from '#storage/registry.ts';
import { type Login, type SmbTarget, smbFolder, smbIdentity, smbSource } from '#storage/smb.ts';

/** What a new share is to become, before it is mounted for the first time. */
export interface Wish {
  readonly identity: string;
  readonly kind: 'smb' | 'nfs';
  readonly folder: string;
  readonly source: string;
  /** What the server calls it: the share with the folders below it, or the exported path. */
  readonly path: string;
  readonly server: string;
  readonly port: number | undefined;
  readonly login: Login | undefined;
}

type Settings = LocalParts['settings'];

export function smbWish(target: SmbTarget, login: Login | undefined, settings: Settings): Wish {
  return {
    identity: smbIdentity(target),
    kind: 'smb',
    folder: smbFolder(target, settings.protectedNames),
    source: smbSource(target),
    path: target.path,
    server: target.server,
    port: target.port,
    login,
  };
}

/** `name`: the folder that was asked for. */
export function nfsWish(target: NfsTarget, name: string | undefined, settings: Settings): Wish {
  return {
    identity: nfsIdentity(target),
    kind: 'nfs',
    folder: nfsFolder(target, name, settings),
    source: nfsSource(target),
    path: target.path,
    server: target.server,
    port: undefined,
    login: undefined,
  };
}

/** The row of a share that was never mounted, under a name that nobody has. */
export function newRow(
  wish: Wish,
  { registry, machine, settings }: Pick<LocalParts, 'registry' | 'machine' | 'settings'>,
): MountRow {
  const { shareRoot } = settings;
  const listed = onFolder(`${shareRoot}/${wish.folder}`, () => machine.folders.list(shareRoot));
  const there = new Set(listed.map((name) => name.toLowerCase()));
  const rows = new Set(registry.all().map((row) => row.name.toLowerCase()));
  const taken = (name: string) => there.has(name.toLowerCase()) || rows.has(name.toLowerCase());
  const port = wish.port === undefined ? {} : { port: wish.port };
  return {
    identity: wish.identity,
    kind: wish.kind,
    name: freeName(wish.folder, taken),
    disk: '',
    source: wish.source,
    fstype: wish.kind === 'smb' ? 'cifs' : 'nfs',
    wanted: false,
    phase: 'none',
    dev: undefined,
    mountId: undefined,
    bootId: undefined,
    folder: undefined,
    folderToken: undefined,
    heldOff: undefined,
    sealed: undefined,
    extra: { server: wish.server, ...port },
  };
}
