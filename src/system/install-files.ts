import { basename, dirname, join } from 'node:path';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { FolderWatch } from '#host/folder-watch.ts';
import { messageOf } from '#lib/fault.ts';
import { failed, type Known, known, type Observed, unknown } from '#lib/observed.ts';
import { notObserved } from '#state/derive.ts';
import type { InstallFacts, ReleaseFacts, UpgradeTarget } from '#state/facts.ts';
import { etcdAddress, parseEnv, parseInstalled, parseTarget } from '#system/install-texts.ts';
import { installerProcess, isEngineRunning } from '#system/processes.ts';

/** Names of the files below the base directory. */
export interface InstallFileNames {
  readonly installed: string;
  readonly prepared: string;
  readonly upgradeTarget: string;
  readonly addressChangeFailed: string;
  readonly installingPid: string;
  readonly uninstallingPid: string;
  readonly changingIpPid: string;
}

/** As the ancestor's installer and daemon know them. */
export const ancestorNames: InstallFileNames = {
  installed: '.installed',
  prepared: '.prepared',
  upgradeTarget: 'upgrade.target',
  addressChangeFailed: '.ip_change_failed',
  installingPid: 'installing.pid',
  uninstallingPid: 'uninstalling.pid',
  changingIpPid: 'changingip.pid',
};

export interface InstallFilesOptions {
  readonly files: Files;
  readonly clock: Clock;
  readonly baseDir: string;
  /** The release file of the profile, and what its keys are called there. */
  readonly releasePath: string;
  readonly releaseKeys: { readonly name: string; readonly version: string; readonly baseDir: string };
  /** etcd's environment: the address that the cluster was built for. */
  readonly etcdEnvPath: string;
  /** Words by which the command line of an installer is known, e.g. its program's name. */
  readonly installerNames: readonly string[];
  /** Words that all stand at the start of the command line of a running engine, e.g. `k3s`, `server`. */
  readonly engineWords: readonly string[];
  /** Names below the base directory; default: the ancestor's. */
  readonly names?: InstallFileNames;
  readonly onFacts: (facts: {
    readonly install: Observed<InstallFacts>;
    readonly release: Observed<ReleaseFacts>;
  }) => void;
}

const source = 'install-files';

/**
 * The files by which installer and daemon tell each other where the node is, by inotify; also when their folders
 * come later. A pid in a file is believed only when /proc has a process that can be the one that was meant.
 */
export class InstallFiles {
  readonly #options: InstallFilesOptions;
  readonly #watches: readonly FolderWatch[];
  #install: Observed<InstallFacts>;
  #release: Observed<ReleaseFacts>;

  constructor(options: InstallFilesOptions) {
    this.#options = options;
    const now = options.clock.now();
    this.#install = unknown(source, now, notObserved);
    this.#release = unknown(source, now, notObserved);
    const { files, baseDir, releasePath, etcdEnvPath, names = ancestorNames } = options;
    // A read walks through /proc: an installer that unpacks thousands of files here must not cost one each.
    const only = (wanted: readonly string[]) => (name: string) => {
      if (name === '' || wanted.includes(name)) this.#read();
    };
    this.#watches = [
      new FolderWatch(files, baseDir, only(Object.values(names))),
      new FolderWatch(files, dirname(releasePath), only([basename(releasePath)])),
      new FolderWatch(files, dirname(etcdEnvPath), only([basename(etcdEnvPath)])),
    ];
  }

  start(): void {
    for (const watch of this.#watches) watch.start();
    this.#read();
  }

  stop(): void {
    for (const watch of this.#watches) watch.stop();
  }

  /** Also finds out about processes that ended: /proc has no events. */
  resync(): void {
    for (const watch of this.#watches) watch.resync();
    this.#read();
  }

  #read(): void {
    const { clock, onFacts } = this.#options;
    const now = clock.now();
    try {
      this.#install = this.#readInstall(now);
    } catch (error) {
      this.#install = failed(this.#install, source, now, messageOf(error));
    }
    try {
      this.#release = known(this.#readRelease(), source, now);
    } catch (error) {
      this.#release = failed(this.#release, source, now, messageOf(error));
    }
    onFacts({ install: this.#install, release: this.#release });
  }

  #readInstall(now: number): Known<InstallFacts> {
    const { files, baseDir, engineWords, etcdEnvPath, names = ancestorNames } = this.#options;
    const path = (name: string) => join(baseDir, name);
    const installed = parseInstalled(
      files.readText(path(names.installed)),
      files.modifiedAt(path(names.installed)),
    );
    const target = this.#readTarget(path(names.upgradeTarget));
    const address = this.#readAddress(etcdEnvPath);
    const value: InstallFacts = {
      installed,
      prepared: files.exists(path(names.prepared)),
      installing: this.#process(names.installingPid),
      uninstalling: this.#process(names.uninstallingPid),
      changingIp: this.#process(names.changingIpPid),
      ipChangeFailed: files.exists(path(names.addressChangeFailed)),
      upgradeTarget: target.value,
      // Only of interest while nothing is installed: it costs a walk through /proc.
      engineRunning: installed === undefined && isEngineRunning(files, engineWords),
      clusterAddress: address.value,
    };
    const fact = known(value, source, now);
    const reason = target.trouble ?? address.trouble;
    if (reason === undefined) return fact;
    const since = this.#install.known ? (this.#install.stale?.since ?? now) : now;
    return { ...fact, stale: { since, reason } };
  }

  /** Lies outside the base directory: what is wrong with it says nothing about what is installed. */
  #readAddress(path: string): { value: string | undefined; trouble?: string } {
    try {
      return { value: etcdAddress(this.#options.files.readText(path)) };
    } catch (error) {
      const before = this.#install.known ? this.#install.value.clusterAddress : undefined;
      return { value: before, trouble: `${path}: ${messageOf(error)}` };
    }
  }

  /** A half-written target is unknown: the one before counts on, and nothing is deleted. */
  #readTarget(path: string): { value: UpgradeTarget | undefined; trouble?: string } {
    const text = this.#options.files.readText(path);
    if (text === undefined) return { value: undefined };
    const value = parseTarget(text);
    if (value !== undefined) return { value };
    const before = this.#install.known ? this.#install.value.upgradeTarget : undefined;
    return { value: before, trouble: `${path} is not complete` };
  }

  #process(name: string) {
    const { files, baseDir, installerNames } = this.#options;
    return installerProcess(files, join(baseDir, name), installerNames);
  }

  #readRelease(): ReleaseFacts {
    const { files, releasePath, releaseKeys } = this.#options;
    const values = parseEnv(files.readText(releasePath) ?? '');
    const value = (key: string) => values.get(key) || undefined;
    return {
      name: value(releaseKeys.name),
      version: value(releaseKeys.version),
      baseDir: value(releaseKeys.baseDir),
    };
  }
}
