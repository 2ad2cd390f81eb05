import { basename, dirname } from 'node:path';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { FolderWatch } from '#host/folder-watch.ts';
import { messageOf } from '#lib/fault.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import { notObserved } from '#state/derive.ts';
import type { PendingShutdown } from '#state/facts.ts';

export interface ShutdownWatchOptions {
  readonly files: Files;
  readonly clock: Clock;
  /** Default: where systemd-logind keeps a scheduled shutdown. */
  readonly path?: string;
  readonly onFacts: (facts: Observed<PendingShutdown | undefined>) => void;
}

const source = 'shutdown';

/** The shutdown that logind has been told of (`shutdown +5`, ScheduleShutdown), by inotify. */
export class ShutdownWatch {
  readonly #options: ShutdownWatchOptions;
  readonly #path: string;
  readonly #watch: FolderWatch;
  #fact: Observed<PendingShutdown | undefined>;

  constructor(options: ShutdownWatchOptions) {
    this.#options = options;
    this.#path = options.path ?? '/run/systemd/shutdown/scheduled';
    this.#fact = unknown(source, options.clock.now(), notObserved);
    this.#watch = new FolderWatch(options.files, dirname(this.#path), (name) => {
      // logind writes a temp file and renames it
      if (name === '' || name === basename(this.#path)) this.#read();
    });
  }

  start(): void {
    this.#watch.start();
    this.#read();
  }

  stop(): void {
    this.#watch.stop();
  }

  resync(): void {
    this.#watch.resync();
    this.#read();
  }

  #read(): void {
    const { files, clock, onFacts } = this.#options;
    try {
      this.#fact = known(parseScheduled(files.readText(this.#path), clock.now()), source, clock.now());
    } catch (error) {
      this.#fact = failed(this.#fact, source, clock.now(), messageOf(error));
    }
    onFacts(this.#fact);
  }
}

/** `USEC=<µs since the epoch>`, `MODE=reboot|poweroff|halt|kexec|dry-…`; a dry run takes nothing down. */
export function parseScheduled(text: string | undefined, now: number): PendingShutdown | undefined {
  const mode = /^MODE=(\S+)/m.exec(text ?? '')?.[1];
  if (mode === undefined || mode.startsWith('dry-')) return undefined;
  const usec = /^USEC=(\d+)/m.exec(text ?? '')?.[1];
  return {
    mode: mode === 'reboot' || mode === 'poweroff' ? mode : 'other',
    at: usec === undefined ? now : Math.floor(Number(usec) / 1000),
  };
}
