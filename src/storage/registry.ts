import { type DiskPolicy, diskPolicies } from '#api/storage.ts';
import type { NfsVersion } from '#storage/options.ts';
import type { Row } from '#store/database.ts';
import type { Store } from '#store/store.ts';

export type MountKind = 'usb' | 'hdd' | 'smb' | 'nfs';
/** Written before the act: `mounting` and `unmounting` are found again after a crash. */
export type MountPhase = 'none' | 'mounting' | 'mounted' | 'unmounting';

/** What this daemon mounts, has mounted, or would mount again. One row a file system or share, kept for good. */
export interface MountRow {
  readonly identity: string;
  readonly kind: MountKind;
  /** Folder below the share root. */
  readonly name: string;
  /** Id of the disk; "" for shares. */
  readonly disk: string;
  readonly source: string;
  readonly fstype: string;
  /** It should be mounted whenever it can be. */
  readonly wanted: boolean;
  readonly phase: MountPhase;
  /** `major:minor`, mount id and boot of a mount that is ours. */
  readonly dev: string | undefined;
  readonly mountId: number | undefined;
  readonly bootId: string | undefined;
  /** Id of the folder that we made; undefined: the folder is not ours. */
  readonly folder: string | undefined;
  /** Name of the temporary folder of an act that is under way. */
  readonly folderToken: string | undefined;
  /** The appearance of the device (boot and sequence) that is left alone: it was ejected. */
  readonly heldOff: string | undefined;
  /** Sealed credentials of a share. */
  readonly sealed: string | undefined;
  readonly extra: MountExtra;
}

export interface MountExtra {
  /** The plugging-in of the device that is, or was last, mounted. */
  readonly appearance?: string;
  readonly readOnly?: boolean;
  /** Why it is read-only although nobody asked for that. */
  readonly readOnlyBecause?: string;
  readonly server?: string;
  readonly port?: number;
  /** It has been mounted once: its name is not given away, and a folder in its place does not rename it. */
  readonly settled?: boolean;
  /** The kind of file system that the kernel named once it was mounted. */
  readonly mountedAs?: string | undefined;
  /** The minor version by which an NFS share was reached last, where it was chosen by us. */
  readonly nfsVersion?: NfsVersion | undefined;
}

/** The mounts and disk policies in the store. Every change is durable before it returns, or throws. */
export class Registry {
  readonly #store: Pick<Store, 'read' | 'commit'>;
  readonly #now: () => number;

  constructor(store: Pick<Store, 'read' | 'commit'>, now: () => number) {
    this.#store = store;
    this.#now = now;
  }

  all(): MountRow[] {
    return this.#store.read((db) => db.all('SELECT * FROM mounts ORDER BY identity')).map(mountRow);
  }

  get(identity: string): MountRow | undefined {
    const row = this.#store.read((db) => db.get('SELECT * FROM mounts WHERE identity = ?', identity));
    return row && mountRow(row);
  }

  byName(name: string): MountRow | undefined {
    const row = this.#store.read((db) => db.get('SELECT * FROM mounts WHERE name = ?', name));
    return row && mountRow(row);
  }

  put(row: MountRow): MountRow {
    this.#store.commit((db) =>
      db.run(
        `INSERT INTO mounts (identity, kind, name, disk, source, fstype, wanted, phase, dev, mount_id,
           boot_id, folder, folder_token, held_off, sealed, extra, changed_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (identity) DO UPDATE SET kind = excluded.kind, name = excluded.name, disk = excluded.disk,
           source = excluded.source, fstype = excluded.fstype, wanted = excluded.wanted, phase = excluded.phase,
           dev = excluded.dev, mount_id = excluded.mount_id, boot_id = excluded.boot_id, folder = excluded.folder,
           folder_token = excluded.folder_token, held_off = excluded.held_off, sealed = excluded.sealed,
           extra = excluded.extra, changed_at = excluded.changed_at`,
        row.identity,
        row.kind,
        row.name,
        row.disk,
        row.source,
        row.fstype,
        row.wanted ? 1 : 0,
        row.phase,
        row.dev ?? null,
        row.mountId ?? null,
        row.bootId ?? null,
        row.folder ?? null,
        row.folderToken ?? null,
        row.heldOff ?? null,
        row.sealed ?? null,
        JSON.stringify(row.extra),
        this.#now(),
      ),
    );
    return row;
  }

  update(identity: string, patch: Partial<MountRow>): MountRow {
    const before = this.get(identity);
    if (before === undefined) throw new Error(`no mount is registered as ${identity}`);
    return this.put({ ...before, ...patch });
  }

  forget(identity: string): void {
    this.#store.commit((db) => db.run('DELETE FROM mounts WHERE identity = ?', identity));
  }

  policies(): Map<string, DiskPolicy> {
    const rows = this.#store.read((db) => db.all('SELECT disk, policy FROM disk_policies'));
    return new Map(rows.map((row) => [String(row['disk']), policyOf(row['policy'])]));
  }

  setPolicy(disk: string, policy: DiskPolicy): void {
    this.#store.commit((db) =>
      db.run('INSERT OR REPLACE INTO disk_policies (disk, policy) VALUES (?, ?)', disk, policy),
    );
  }
}

/** An unreadable policy is the careful one: nothing is mounted that somebody may have wanted left alone. */
function policyOf(value: unknown): DiskPolicy {
  return diskPolicies.find((policy) => policy === value) ?? 'ignore';
}

function mountRow(row: Row): MountRow {
  const text = (key: string) => (row[key] === null || row[key] === undefined ? undefined : String(row[key]));
  return {
    identity: text('identity') ?? '',
    kind: (text('kind') ?? 'usb') as MountKind,
    name: text('name') ?? '',
    disk: text('disk') ?? '',
    source: text('source') ?? '',
    fstype: text('fstype') ?? '',
    wanted: row['wanted'] === 1,
    phase: (text('phase') ?? 'none') as MountPhase,
    dev: text('dev'),
    mountId: row['mount_id'] === null ? undefined : Number(row['mount_id']),
    bootId: text('boot_id'),
    folder: text('folder'),
    folderToken: text('folder_token'),
    heldOff: text('held_off'),
    sealed: text('sealed'),
    extra: JSON.parse(text('extra') ?? '{}') as MountExtra,
  };
}
