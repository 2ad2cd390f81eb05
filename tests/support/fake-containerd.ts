import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RuntimePlace } from '#containerd/address.ts';
import {
  ConfigSwitch,
  type RuntimeUnit,
  type SwitchJournal,
  type SwitchMark,
} from '#containerd/config-switch.ts';
import { MirrorStore } from '#containerd/mirrors.ts';
import type { Exec, LineChild, RunResult } from '#host/exec.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import type { Life } from './mortal.ts';

/** What `containerd config …` says and how a restart ends, without a containerd: it takes every file as it stands. */
export class FakeContainerd implements Exec, RuntimeUnit {
  started = 0;
  restarts = 0;
  /** The configuration that the "process" was last started with. */
  loaded: string | undefined;
  /** Whether it would come up with this configuration. */
  accepts: (config: string | undefined) => boolean = () => true;
  /** Thrown by `check`: no restart is possible here. */
  refusal: Error | undefined;
  readonly configFile: string;

  constructor(configFile: string) {
    this.configFile = configFile;
  }

  async run(_file: string, args: readonly string[]): Promise<RunResult> {
    this.started++;
    const path = args[0] === '--config' ? args[1] : undefined;
    const stdout = path === undefined ? 'version = 2\n' : readFileSync(path, 'utf8');
    return { exitCode: 0, stdout, stderr: '' };
  }

  lines(): LineChild {
    throw new Error('nobody listens to containerd');
  }

  async check(): Promise<void> {
    if (this.refusal !== undefined) throw this.refusal;
  }

  async restart(): Promise<void> {
    this.restarts++;
    try {
      this.loaded = readFileSync(this.configFile, 'utf8');
    } catch {
      this.loaded = undefined;
    }
  }

  async version() {
    if (!this.accepts(this.loaded)) throw new Error('connect ENOENT');
    return { name: 'containerd', version: '1.6.20' };
  }
}

export class MemoryJournal implements SwitchJournal {
  mark: SwitchMark | undefined;
  get = () => this.mark;
  set = (mark: SwitchMark) => {
    this.mark = mark;
  };
  clear = () => {
    this.mark = undefined;
  };
}

/** Files whose changes may be the last thing that this daemon does. */
class MortalFiles extends Files {
  readonly #guard: Guard;

  constructor(guard: Guard) {
    super();
    this.#guard = guard;
  }

  override replace(...args: Parameters<Files['replace']>): void {
    this.#guard('replace');
    super.replace(...args);
  }

  override remove(path: string): void {
    this.#guard('remove');
    super.remove(path);
  }

  override makeDir(path: string): void {
    this.#guard('makeDir');
    super.makeDir(path);
  }

  override removeEmptyDir(path: string): boolean {
    this.#guard('removeEmptyDir');
    return super.removeEmptyDir(path);
  }
}

type Guard = Life['guard'];

/** The same mirrors, journal and runtime, in one life of a daemon that may end before any change that it makes. */
export function mortalMirrorsIn({ folder, fake, journal }: ReturnType<typeof mirrorsIn>, life: Life) {
  const guarded =
    <Args extends unknown[], Result>(name: string, act: (...args: Args) => Result) =>
    (...args: Args) => {
      life.guard(name);
      return act(...args);
    };
  return mirrorsIn(folder, {
    files: new MortalFiles(life.guard),
    journal: {
      get: journal.get,
      set: guarded('journal.set', journal.set),
      clear: guarded('journal.clear', journal.clear),
    },
    unit: { check: () => fake.check(), restart: guarded('restart', () => fake.restart()) },
    fake,
  });
}

interface Parts {
  readonly files: Files;
  readonly journal: SwitchJournal;
  readonly unit: RuntimeUnit;
  readonly fake: FakeContainerd;
}

/** Mirrors in a folder of their own, with a containerd that is not one. */
export function mirrorsIn(
  folder = mkdtempSync(join(tmpdir(), 'beosd-mirrors-')),
  parts: Partial<Parts> = {},
) {
  mkdirSync(join(folder, 'etc'), { recursive: true });
  const place: RuntimePlace = {
    socket: join(folder, 'c.sock'),
    k3s: false,
    configFile: join(folder, 'etc', 'config.toml'),
    certsDir: join(folder, 'etc', 'certs.d'),
    registriesYaml: join(folder, 'registries.yaml'),
  };
  const fake = parts.fake ?? new FakeContainerd(place.configFile);
  const memory = new MemoryJournal();
  const files = parts.files ?? new Files();
  const open = (changed: Partial<RuntimePlace> = {}) => {
    const config = new ConfigSwitch({
      files,
      exec: fake,
      clock: new FakeClock(),
      runtime: fake,
      unit: parts.unit ?? fake,
      journal: parts.journal ?? memory,
      place: () => ({ ...place, ...changed }),
      answerWithinMs: 0,
    });
    return new MirrorStore({ files, place: () => ({ ...place, ...changed }), config });
  };
  return { folder, place, fake, journal: memory, files, open, store: open() };
}
