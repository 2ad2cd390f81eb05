import { dirname } from 'node:path';
import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { messageOf } from '#lib/fault.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import { notObserved } from '#state/derive.ts';
import type { PathUsage } from '#state/facts.ts';

export interface DiskSpaceOptions {
  readonly files: Files;
  readonly clock: Clock;
  readonly dataDir: string;
  readonly onFacts: (facts: Observed<PathUsage>) => void;
}

const source = 'disk-space';

/** Room under the data directory, read at start, by the slow resync, and when the store reports trouble. */
export class DiskSpace {
  readonly #options: DiskSpaceOptions;
  #fact: Observed<PathUsage>;

  constructor(options: DiskSpaceOptions) {
    this.#options = options;
    this.#fact = unknown(source, options.clock.now(), notObserved);
  }

  start(): void {
    this.resync();
  }

  /** Nothing to stop: it keeps neither timer nor watch. */
  stop(): void {
    this.#fact = unknown(source, this.#options.clock.now(), notObserved);
  }

  resync(): void {
    const { files, clock, dataDir, onFacts } = this.#options;
    try {
      const { availableBytes: _, ...usage } = files.fileSystem(nearest(files, dataDir));
      // A few blocks more or less are no news: coarse steps keep an idle node's snapshot still.
      const step = usage.freeBytes > 2 ** 30 ? 2 ** 30 : 2 ** 20;
      const freeBytes = Math.floor(usage.freeBytes / step) * step;
      this.#fact = known({ path: dataDir, ...usage, freeBytes }, source, clock.now());
    } catch (error) {
      this.#fact = failed(this.#fact, source, clock.now(), messageOf(error));
    }
    onFacts(this.#fact);
  }
}

/** A data directory that could not be made yet lies on the file system of its parent. */
function nearest(files: Files, path: string): string {
  let at = path;
  while (at !== dirname(at) && !files.exists(at)) at = dirname(at);
  return at;
}
