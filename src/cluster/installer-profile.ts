/** A line of the installer's log that stands for how far it has come. */
export interface LogMark {
  /** Plain text to look for in a line, case as the installer writes it. */
  readonly text: string;
  /** Percent of the whole command, 0–100. */
  readonly percent: number;
}

/**
 * One command of the installer. In `argv` and `env` a value that is exactly `{version}`, `{baseDir}`, `{kube}`,
 * `{username}`, `{email}` or `{domain}` is replaced; nothing else is interpreted.
 */
export interface InstallerCommand {
  /** Arguments after the program. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** File below the base directory that holds the process id while the command runs. */
  readonly pidFile: string;
  /** File below `<version folder>/logs`. */
  readonly logFile: string;
  readonly marks: readonly LogMark[];
}

/** How a platform's node installer is called (ancestor contract §4). Pure data: one value a profile. */
export interface InstallerProfile {
  /** Absolute path; `BEOS_CLI` overrides it. */
  readonly program: string;
  /** The variable that tells the installer where to write JSON progress lines. */
  readonly progressEnv: string;
  /**
   * How the first user's password reaches it: `file`, the variable names a 0600 file on tmpfs; `environment`, the
   * variable is the password itself, for an installer that knows no other way.
   */
  readonly password: {
    readonly way: 'file' | 'environment';
    readonly variable: string;
    /** Exact number of characters that the installer takes; absent: any. */
    readonly exactLength?: number;
  };
  /** What must be free before an installation begins, bytes. */
  readonly disk: { readonly baseDirBytes: number; readonly rootBytes: number };
  readonly install: InstallerCommand;
  readonly uninstall: InstallerCommand;
  readonly changeIp: InstallerCommand;
}
