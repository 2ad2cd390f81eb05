import type { Clock } from '#host/clock.ts';
import type { Disks } from '#host/disks.ts';
import type { Folders } from '#host/folders.ts';
import type { Mounts } from '#host/mounts.ts';
import type { Processes } from '#host/processes.ts';
import type { Secrets } from '#host/sealing.ts';
import type { Devices } from '#host/udev.ts';
import type { Ntfs3, Ownership } from '#storage/options.ts';

/** A problem to show in GET /system/conditions; the shape of state/facts.ts. */
export interface Problem {
  readonly code: string;
  readonly severity: 'info' | 'warning' | 'error';
  readonly message: string;
  readonly remedy: string;
  readonly fixedBy: readonly string[];
}

/** What storage needs from the rest of the daemon; compose.ts passes it. */
export interface Surroundings {
  /** Replaces all problems that storage reports. */
  report(problems: readonly Problem[]): void;
  /** A `mount` event for GET /events. */
  emit(data: Readonly<Record<string, unknown>>): void;
  log(message: string, data: Readonly<Record<string, unknown>>): void;
  /** Name of the pod with this uid, as `namespace/name`; undefined while nobody knows. */
  podName(uid: string): string | undefined;
  /** Name of this node, for the -incluster routes. */
  nodeName(): string;
  /** Every disk and share that was wanted at start has been tried, once in the life of the daemon. */
  mountsReady(): void;
}

/** The machine, as storage sees it. */
export interface Machine {
  readonly devices: Devices;
  readonly mounts: Mounts;
  readonly folders: Folders;
  readonly disks: Disks;
  readonly processes: Processes;
  readonly secrets: Secrets;
  readonly network: NetworkTools;
  readonly clock: Clock;
  /** Content of /etc/fstab; undefined: there is none. */
  fstab(): string | undefined;
  /** The kernel's driver for NTFS; undefined: it has none. */
  ntfs3(): Ntfs3 | undefined;
}

/** What is asked of file servers. */
export interface NetworkTools {
  /** True when something accepts a connection there; never takes longer than `timeoutMs`. */
  answers(host: string, port: number, timeoutMs: number): Promise<boolean>;
  /** Output of `smbclient -L`, in its `-g` form. */
  smbShares(server: string, port: number | undefined, authFile: string | undefined): Promise<string>;
  /** Goes into a share, or a folder of it (`share/sub`), and leaves; throws ExecError with the words of smbclient. */
  smbEnter(
    server: string,
    port: number | undefined,
    path: string,
    authFile: string | undefined,
  ): Promise<void>;
  /** Output of `showmount --exports`. */
  nfsExports(server: string): Promise<string>;
}

export interface Settings {
  /** Where mount points lie, e.g. /olares/share, every link resolved: so the kernel names them. */
  readonly shareRoot: string;
  /** The same folder as it is configured, and as clients may name it. */
  readonly shareRootAs: string;
  /** Names below the share root that are somebody else's: never given, never taken. */
  readonly protectedNames: readonly string[];
  /** What must not be on a disk that is offered: `/`, `/boot`, the share root, the store. */
  readonly systemPaths: readonly string[];
  readonly bootId: string;
  readonly owner: Ownership;
  /** False in a sandbox: everything is read, nothing is changed. */
  readonly mayAct: boolean;
}
