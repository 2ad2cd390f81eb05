import { join } from 'node:path';
import type { Config } from '#daemon/config.ts';
import type { Profile } from '#daemon/profiles.ts';
import type { Files } from '#host/files.ts';

/** Where everything is, once configuration, profile and root have been put together. */
export interface Paths {
  readonly dataDir: string;
  readonly baseDir: string;
  readonly hostsFile: string;
  readonly runs: string;
  readonly installer: string;
  /** What is named explicitly is never prefixed by the root (contract §10). */
  readonly installerIsExplicit: boolean;
}

export function pathsOf(config: Config, profile: Profile, files: Files): Paths {
  return {
    dataDir: config.dataDir,
    baseDir: config.baseDir ?? files.systemPath(profile.baseDir),
    hostsFile: files.systemPath('/etc/hosts'),
    runs: join(config.dataDir, 'runs'),
    installer: config.installer ?? files.systemPath(profile.installer.program),
    installerIsExplicit: config.installer !== undefined,
  };
}

/** The first start of a sandbox: its own hosts file, as the machine's is now. */
export function furnishSandbox(files: Files, hostsFile: string): void {
  if (files.exists(hostsFile)) return;
  files.makeDir(join(hostsFile, '..'));
  files.replace(hostsFile, files.readText('/etc/hosts') ?? '127.0.0.1\tlocalhost\n');
}
