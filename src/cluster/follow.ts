import { setImmediate } from 'node:timers/promises';
import type { LogMark } from '#cluster/installer-profile.ts';
import { afterLogLine, afterProgressLine, begin, describe, type Progress, plain } from '#cluster/progress.ts';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { Tail, type TailAnchor } from '#host/tail.ts';
import { redact as withoutSecrets } from '#lib/redact.ts';

export interface FollowOptions {
  readonly files: Files;
  readonly clock: Clock;
  readonly marks: readonly LogMark[];
  /** Folder of both files; it must exist. */
  readonly folder: string;
  readonly logFile: string;
  readonly progressFile: string;
  /** Where this run began in the log: what stands before belongs to another. */
  readonly from: TailAnchor;
  readonly firstStep: string;
  /** Takes secrets out of what is shown. */
  readonly redact: (text: string) => string;
  readonly report: (percent: number | null, message: string) => void;
}

/** Between two looks when something is written all the time. */
const paceMs = 250;
/** Without an event: a stalled step says how long, and a lost event is made up for. */
const resyncMs = 10_000;
/** 4 GiB of a log that something still writes to are enough for its last words. */
const mostLooks = 1024;

/** Follows the log and the progress file of one run until it is told to stop. */
export class Follower {
  readonly #options: FollowOptions;
  readonly #log: Tail;
  readonly #file: Tail;
  #progress: Progress;
  #shown = '';
  #lastLine = '';

  constructor(options: FollowOptions) {
    this.#options = options;
    this.#log = new Tail(options.logFile, options.from);
    this.#file = new Tail(options.progressFile, { inode: 0, offset: 0, before: '' });
    this.#progress = begin(options.firstStep, options.clock.monotonic());
  }

  /** Where the run is, for the error of one that failed. */
  get step(): string {
    return this.#options.redact(this.#progress.step);
  }

  /** The last thing that the log says, for the same. Pods read errors of jobs: what looks like a secret goes, whoever's it is. */
  get lastLine(): string {
    return withoutSecrets(this.#options.redact(this.#lastLine));
  }

  /** Reads what is new and reports it when it changes anything. Never throws: an unreadable log costs only the progress. */
  look(): void {
    try {
      this.#read();
    } catch {
      // The exit code decides about the job, not what is written about it.
    }
  }

  /** When the run has ended: all that it has said, so that its last words are the last ones. Others get their turn in between. */
  async finish(): Promise<void> {
    this.look();
    for (let looks = 1; this.#behind && looks < mostLooks; looks++) {
      await setImmediate();
      this.look();
    }
  }

  get #behind(): boolean {
    return this.#log.behind || this.#file.behind;
  }

  #read(): void {
    const { clock, marks, report, redact } = this.#options;
    const now = clock.monotonic();
    for (const line of this.#file.read()) this.#progress = afterProgressLine(this.#progress, line, now);
    for (const line of this.#log.read()) {
      this.#progress = afterLogLine(this.#progress, marks, line, now);
      this.#lastLine = plain(line) || this.#lastLine;
    }
    const message = redact(describe(this.#progress, now));
    const shown = `${this.#progress.percent} ${message}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    report(this.#progress.percent, message);
  }

  /** Resolves when the signal is aborted; never rejects because of the files. */
  async run(signal: AbortSignal): Promise<void> {
    const { files, clock, folder } = this.#options;
    let wake = new AbortController();
    let dirty = true;
    const watching = watchOrNot(files, folder, () => {
      dirty = true;
      wake.abort();
    });
    try {
      while (!signal.aborted) {
        dirty = false;
        this.look();
        await clock.sleep(paceMs, signal).catch(() => undefined);
        wake = new AbortController();
        if (!dirty && !this.#behind)
          await clock.sleep(resyncMs - paceMs, AbortSignal.any([signal, wake.signal])).catch(() => undefined);
      }
    } finally {
      watching?.close();
    }
  }
}

function watchOrNot(files: Files, folder: string, onChange: () => void): { close(): void } | undefined {
  try {
    return files.watchDir(folder, onChange, () => undefined);
  } catch {
    return undefined; // out of inotify watches: the look every ten seconds remains
  }
}
