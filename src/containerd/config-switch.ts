import { isUtf8 } from 'node:buffer';
import { fault } from '#api/errors.ts';
import type { RuntimePlace } from '#containerd/address.ts';
import {
  ConfigRefused,
  intended,
  parseConfig,
  type RegistryConfig,
  readRegistryConfig,
  sameSwitch,
  switchToCertsDir,
  versionOf,
} from '#containerd/config-toml.ts';
import type { Runtime } from '#containerd/runtime.ts';
import type { Clock } from '#host/clock.ts';
import { type Exec, ExecError } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { causeChain, errnoOf, isFault } from '#lib/fault.ts';

/** Starts the runtime again; whoever wires it knows the unit. */
export interface RuntimeUnit {
  /** Throws a Fault (`sandbox`, `systemd_unavailable`) when a restart is not possible here; asked before any edit. */
  check(): Promise<void>;
  /** Settles when the runtime has been told to start again, or throws. */
  restart(): Promise<void>;
}

/** What the next start must know about a switch that was under way; survives a crash. */
export interface SwitchMark {
  /** Whether there was a configuration before; if not, rolling back means removing ours. */
  readonly existed: boolean;
}

export interface SwitchJournal {
  get(): SwitchMark | undefined;
  /** Durable when it returns, or throws. */
  set(mark: SwitchMark): void;
  clear(): void;
}

/** A switch that is known to be possible. */
export interface PreparedSwitch {
  readonly configFile: string;
  readonly certsDir: string;
  /** undefined: there is no such file yet. */
  readonly before: string | undefined;
  readonly after: string;
}

export interface ConfigSwitchDeps {
  readonly files: Files;
  readonly exec: Exec;
  readonly clock: Clock;
  readonly runtime: Pick<Runtime, 'version'>;
  readonly unit: RuntimeUnit;
  readonly journal: SwitchJournal;
  readonly place: () => RuntimePlace;
  /** Program that knows the configuration's meaning. Default `containerd`, found on the fixed PATH. */
  readonly binary?: string;
  /** How long a restarted runtime may take to answer, ms. */
  readonly answerWithinMs?: number;
}

/**
 * containerd's own configuration file, and the one edit that beosd makes in it: pointing `config_path` at certs.d.
 *
 * INVARIANTS: the file always holds exactly the old bytes or exactly the intended edit; the old bytes are kept beside
 * it; a runtime that does not answer with the new file gets the old one back. Callers hold the lock of the mirrors.
 */
export class ConfigSwitch {
  readonly #deps: ConfigSwitchDeps;
  #effective: { readonly key: string; readonly config: RegistryConfig } | undefined;

  constructor(deps: ConfigSwitchDeps) {
    this.#deps = deps;
  }

  /** What the runtime's configuration says about registries, imports and built-in defaults included. */
  async read(): Promise<RegistryConfig> {
    const { configFile } = this.#deps.place();
    const text = this.#readText(configFile);
    const key = `${configFile}\n${text ?? 'absent'}`;
    if (this.#effective?.key === key) return this.#effective.config;
    const { config, lasts } = await this.#interpret(configFile, text);
    this.#effective = lasts ? { key, config } : undefined;
    return config;
  }

  /** Whether the switch is still to be made; throws when it could not be. Reads only: the dry run of {@link prepare}. */
  async rehearse(): Promise<boolean> {
    return (await this.#draft()) !== undefined;
  }

  /**
   * Everything about pointing the runtime at certs.d that can be found out without changing anything; undefined when
   * it looks there already. Throws when the switch is not safely possible.
   */
  async prepare(): Promise<PreparedSwitch | undefined> {
    const draft = await this.#draft();
    if (draft !== undefined) await this.#verify(draft);
    return draft;
  }

  async #draft(): Promise<PreparedSwitch | undefined> {
    const { configFile, certsDir, k3s } = this.#deps.place();
    const { roots, withoutCri } = await this.read();
    if (roots.length > 0) return undefined;
    if (withoutCri) {
      throw fault(
        'impossible',
        `${configFile} switches off the runtime's Kubernetes interface (CRI): nothing would read mirrors.`,
        { remedy: 'Take "cri" out of its disabled_plugins and restart the runtime.' },
      );
    }
    if (k3s) {
      throw fault(
        'impossible',
        `k3s writes ${configFile} anew at every start and this version has no certs.d.`,
        {
          remedy: 'Upgrade k3s to 1.27 or newer.',
        },
      );
    }
    const before = this.#readText(configFile);
    if (before?.includes('\uFFFD') === true) this.#refuseOtherThanUtf8(configFile);
    const after = await this.#intendedText(configFile, before, certsDir);
    await this.#deps.unit.check();
    return { configFile, certsDir, before, after };
  }

  /** Writes the edit and restarts the runtime, once. Throws `runtime_rolled_back` when it does not answer then. */
  async commit({ configFile, before, after }: PreparedSwitch): Promise<void> {
    this.#keepBackup(configFile, before);
    this.#deps.journal.set({ existed: before !== undefined });
    try {
      this.#deps.files.replace(configFile, after);
    } catch (error) {
      this.#deps.journal.clear();
      throw refused(configFile, error);
    }
    await this.#restartOrRollBack(configFile, before);
  }

  /** Finishes, or takes back, what a crash interrupted. Safe to call at every start. */
  async recover(): Promise<void> {
    const { configFile } = this.#deps.place();
    this.#clean(configFile);
    const mark = this.#deps.journal.get();
    if (mark === undefined) return;
    const backup = mark.existed ? this.#deps.files.readText(backupOf(configFile)) : undefined;
    const current = this.#readText(configFile);
    if (mark.existed && backup === undefined) {
      this.#deps.journal.clear(); // the crash came before the backup, let alone the edit
      return;
    }
    await this.#deps.unit.check(); // the mark may have been left by a daemon that was allowed more
    if (current === backup) {
      await this.#restartUnlessItAnswers();
      return;
    }
    await this.#restartOrRollBack(configFile, backup);
  }

  #readText(path: string): string | undefined {
    try {
      return this.#deps.files.readText(path);
    } catch (error) {
      throw fault('runtime_config_damaged', `${path} cannot be read: ${causeChain(error)}`, { cause: error });
    }
  }

  /** The edit is made on text: a byte that is none (Latin-1 in a comment) would come out as another. */
  #refuseOtherThanUtf8(configFile: string): void {
    const bytes = this.#deps.files.readBytes(configFile);
    if (bytes === undefined || isUtf8(bytes)) return;
    throw refused(configFile, new ConfigRefused('it is not UTF-8 throughout, as TOML has to be'));
  }

  /**
   * Asks the real binary, which knows imports and defaults; without one, the file has to do. `lasts`: nothing but the
   * file itself can change the answer.
   */
  async #interpret(
    configFile: string,
    text: string | undefined,
  ): Promise<{ config: RegistryConfig; lasts: boolean }> {
    try {
      const written = text === undefined ? {} : parseConfig(text);
      const said = await this.#dump(text === undefined ? undefined : configFile);
      // One that is older than the file leaves out what it does not know, without a word.
      const dump = said !== undefined && versionOf(parseConfig(said)) < versionOf(written) ? undefined : said;
      const config = readRegistryConfig(dump ?? text ?? 'version = 2');
      return { config, lasts: dump !== undefined && !('imports' in withoutSelf(dump, [configFile])) };
    } catch (error) {
      throw refused(configFile, error);
    }
  }

  /** `containerd config dump` of a file, or its built-in defaults; undefined where there is no such program. */
  async #dump(configFile: string | undefined): Promise<string | undefined> {
    const binary = this.#deps.binary ?? 'containerd';
    const args =
      configFile === undefined ? ['config', 'default'] : ['--config', configFile, 'config', 'dump'];
    try {
      return (await this.#deps.exec.run(binary, args)).stdout;
    } catch (error) {
      if (error instanceof ExecError && error.reason === 'start') return undefined;
      throw error;
    }
  }

  async #intendedText(configFile: string, before: string | undefined, certsDir: string): Promise<string> {
    try {
      if (before !== undefined) return switchToCertsDir(before, certsDir);
      const defaults = parseConfig((await this.#dump(undefined)) ?? 'version = 2');
      return switchToCertsDir(`version = ${String(defaults['version'])}\n`, certsDir);
    } catch (error) {
      throw refused(configFile, error);
    }
  }

  /** The real binary must read the candidate, and read in it what it read before plus exactly the switch. */
  async #verify({ configFile, certsDir, before, after }: PreparedSwitch): Promise<void> {
    const candidate = candidateOf(configFile);
    try {
      this.#deps.files.makeDir(folderOf(configFile));
      this.#deps.files.replace(candidate, after, { mode: 0o600 });
      const now = await this.#dump(candidate);
      const old = await this.#dump(before === undefined ? undefined : configFile);
      if (now === undefined || old === undefined) {
        throw new ConfigRefused('there is no containerd program to verify the edit with');
      }
      if (versionOf(parseConfig(now)) < versionOf(parseConfig(after))) {
        throw new ConfigRefused('the containerd program here is older than the configuration');
      }
      const own = [candidate, configFile];
      if (!sameSwitch(withoutSelf(now, own), intended(withoutSelf(old, own), certsDir))) {
        throw new ConfigRefused('containerd reads more than the intended change in it (an import, perhaps)');
      }
    } catch (error) {
      throw refused(configFile, error);
    } finally {
      this.#clean(configFile);
    }
  }

  /** What a verification or a crash left beside the file. On a disk that cannot be written it stays, and hurts nobody. */
  #clean(configFile: string): void {
    const { files } = this.#deps;
    try {
      if (files.exists(candidateOf(configFile))) files.remove(candidateOf(configFile));
      for (const path of [configFile, candidateOf(configFile), backupOf(configFile)]) files.sweepTemps(path);
    } catch (error) {
      if (errnoOf(error) !== 'EROFS') throw error;
    }
  }

  #keepBackup(configFile: string, before: string | undefined): void {
    if (before === undefined) return;
    try {
      // Credentials may stand in it: nobody but root reads the copy, whatever the mode of the original.
      this.#deps.files.replace(backupOf(configFile), before, { mode: 0o600 });
    } catch (error) {
      throw refused(configFile, error);
    }
  }

  async #restartOrRollBack(configFile: string, before: string | undefined): Promise<void> {
    const trouble = await this.#restart();
    if (trouble === undefined) {
      this.#deps.journal.clear();
      return;
    }
    if (before === undefined) this.#deps.files.remove(configFile);
    else this.#deps.files.replace(configFile, before);
    const worse = await this.#restart();
    this.#deps.journal.clear();
    const end = worse === undefined ? 'It answers again with the old one.' : `It still does not: ${worse}`;
    throw fault(
      'runtime_rolled_back',
      `The runtime did not answer with config_path set (${trouble}); ${configFile} is as it was. ${end}`,
    );
  }

  /**
   * The old bytes stand: the crash came before the edit, or after they were put back and before the runtime, which
   * had failed with the new ones, was started with them.
   */
  async #restartUnlessItAnswers(): Promise<void> {
    const trouble = (await this.#awaitAnswer()) === undefined ? undefined : await this.#restart();
    this.#deps.journal.clear();
    if (trouble !== undefined) {
      throw fault(
        'runtime_rolled_back',
        `The runtime does not answer with its old configuration: ${trouble}`,
      );
    }
  }

  /** undefined: it answers. */
  async #restart(): Promise<string | undefined> {
    try {
      await this.#deps.unit.restart();
    } catch (error) {
      return causeChain(error);
    }
    return await this.#awaitAnswer();
  }

  /** A unit that is up may still be opening its socket: asks again, ever more slowly, until the deadline. */
  async #awaitAnswer(): Promise<string | undefined> {
    const deadline = this.#deps.clock.monotonic() + (this.#deps.answerWithinMs ?? 60_000);
    for (let pause = 50; ; pause = Math.min(pause * 2, 2000)) {
      try {
        await this.#deps.runtime.version();
        return undefined;
      } catch (error) {
        if (this.#deps.clock.monotonic() + pause > deadline) return causeChain(error);
      }
      await this.#deps.clock.sleep(pause);
    }
  }
}

function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'));
}

/** Where the bytes of before the edit are kept. */
export function backupOf(configFile: string): string {
  return `${configFile}.beosd-backup`;
}

function candidateOf(configFile: string): string {
  return `${configFile}.beosd-candidate`;
}

/** containerd 1.x lists the file that it reads among its own imports, and the candidate has another name. */
function withoutSelf(dump: string, own: readonly string[]): Record<string, unknown> {
  const { imports, ...config } = parseConfig(dump);
  const others = Array.isArray(imports) ? imports.filter((path) => !own.includes(String(path))) : [];
  return others.length > 0 ? { ...config, imports: others } : config;
}

/** A file of the runtime that could not be written; what stood there still does. */
export function notWritten(place: string, error: unknown): Error {
  if (isFault(error)) return error;
  return fault('file_not_written', `${place} could not be written: ${causeChain(error)}`, { cause: error });
}

function refused(configFile: string, error: unknown): Error {
  if (!(error instanceof ConfigRefused || error instanceof ExecError) && errnoOf(error) !== undefined) {
    return notWritten(configFile, error);
  }
  return fault('runtime_config_damaged', `${configFile} stays as it is: ${causeChain(error)}`, {
    cause: error,
  });
}
