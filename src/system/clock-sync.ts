import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { FolderWatch } from '#host/folder-watch.ts';
import { messageOf } from '#lib/fault.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import { notObserved } from '#state/derive.ts';
import type { ClockFacts } from '#state/facts.ts';

export interface ClockSyncOptions {
  readonly files: Files;
  readonly clock: Clock;
  /** When this boot began, ms since the epoch: older traces of a time service say nothing. */
  readonly bootedAt: () => number | undefined;
  readonly onFacts: (facts: Observed<ClockFacts>) => void;
}

const source = 'clock-sync';
/** systemd-timesyncd makes the folder when it starts and the file when it has set the clock (systemd-timesyncd(8)). */
const timesyncFolder = '/run/systemd/timesync';
/** Written by chronyd and ntpd once they follow a server. */
const driftFiles = [
  '/var/lib/chrony/drift',
  '/var/lib/chrony/chrony.drift',
  '/var/lib/ntp/ntp.drift',
  '/var/lib/ntpsec/ntp.drift',
];

/**
 * Whether the clock follows a time server, without a child and without adjtimex(2), which Node cannot call: from the
 * traces that the time services leave. Where none of them runs the answer is unknown, which is no problem by itself.
 */
export class ClockSync {
  readonly #options: ClockSyncOptions;
  readonly #watch: FolderWatch;
  #fact: Observed<ClockFacts>;

  constructor(options: ClockSyncOptions) {
    this.#options = options;
    this.#fact = unknown(source, options.clock.now(), notObserved);
    this.#watch = new FolderWatch(options.files, timesyncFolder, () => this.#read());
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
    const { clock, onFacts } = this.#options;
    try {
      const synchronised = this.#synchronised();
      this.#fact =
        synchronised === undefined
          ? unknown(source, clock.now(), 'no time service that we know runs here')
          : known({ synchronised }, source, clock.now());
    } catch (error) {
      this.#fact = failed(this.#fact, source, clock.now(), messageOf(error));
    }
    onFacts(this.#fact);
  }

  #synchronised(): boolean | undefined {
    const { files, bootedAt } = this.#options;
    if (files.exists(`${timesyncFolder}/synchronized`)) return true;
    const boot = bootedAt();
    const isFresh = (path: string) => {
      const at = files.modifiedAt(path);
      return at !== undefined && boot !== undefined && at > boot;
    };
    if (driftFiles.some(isFresh)) return true;
    return files.exists(timesyncFolder) ? false : undefined;
  }
}
