import type { InstallerProfile } from '#cluster/installer-profile.ts';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import type { LongRun } from '#host/longrun.ts';
import type { SecretFiles } from '#host/secrets.ts';
import type { Observed } from '#lib/observed.ts';

/** The owner's claim, as an installation decides it (contract §8: provisional until the install succeeds). */
export interface Claim {
  /** The provisional owner stays. */
  confirm(): void;
  /** The provisional owner is forgotten, as nothing was begun; a confirmed one stays. */
  lapse(): void;
  /** The node belongs to nobody, whatever it was. */
  release(): void;
}

/** What install and uninstall need of the machine and of the rest of the daemon. */
export interface InstallerOptions {
  readonly profile: InstallerProfile;
  /** The program as configured: `BEOS_CLI`, or the profile's below `--root`. */
  readonly program: string;
  /** The daemon runs without --system and no program was named explicitly (contract §10). */
  readonly sandboxed: boolean;
  readonly baseDir: string;
  /** `INSTALLED_VERSION`, `KUBE_TYPE`. */
  readonly version: string;
  readonly kube: string;
  /** Names of the marker files in the base directory. */
  readonly installedFile: string;
  /** Names beside it that tell of work that ended badly: of a node that is uninstalled they tell nothing any more. */
  readonly failureMarks: readonly string[];
  readonly files: Files;
  readonly disk: Disk;
  readonly longRun: LongRun;
  readonly secrets: SecretFiles;
  readonly clock: Clock;
  readonly claim: Claim;
  /** Whether the clock is set by a time server; unknown does not stand in the way. */
  readonly clockSynchronised: () => Observed<{ readonly synchronised: boolean }>;
  /** Identity of this start of the machine (host/boot.ts). */
  readonly bootIdentity: () => string;
  /** Variables of the daemon's own configuration that the installer takes too (REGISTRY_MIRRORS, FRP_…). */
  readonly passedOn: Readonly<Record<string, string>>;
}

/** The little that is asked of file systems and programs before anything begins. */
export interface Disk {
  /** Free bytes for root on the file system of the nearest existing folder above `path`, and whether it can be written. */
  usage(path: string): { readonly freeBytes: number; readonly readOnly: boolean };
  isExecutable(path: string): boolean;
  /**
   * Whether the process that a pid file names is alive and can be the one that was meant: its command line has the program, or
   * it began before the file was written. A number is given away again, after a restart soon.
   */
  isMeant(pid: number, pidFile: string, program: string): boolean;
}
