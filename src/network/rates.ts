import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';

/** Bytes per second; absent while one sample alone says nothing. */
export interface Rate {
  readonly rxRate?: number;
  readonly txRate?: number;
}

interface Sample {
  readonly at: number;
  readonly rx: number;
  readonly tx: number;
  readonly rate: Rate;
}

const shortestMs = 500;
const longestMs = 60_000;

/**
 * Traffic of interfaces, from the kernel's counters and one sample before. A counter that went back (an interface made
 * anew) starts over; rates are never negative.
 */
export class LinkRates {
  readonly #files: Files;
  readonly #clock: Clock;
  readonly #samples = new Map<string, Sample>();

  constructor(files: Files, clock: Clock) {
    this.#files = files;
    this.#clock = clock;
  }

  /** The rate since the sample before, and this moment as the next sample. */
  of(device: string): Rate {
    const before = this.#samples.get(device);
    const at = this.#clock.monotonic();
    if (before !== undefined && at - before.at < shortestMs) return before.rate;
    const rx = this.#counter(device, 'rx_bytes');
    const tx = this.#counter(device, 'tx_bytes');
    if (rx === undefined || tx === undefined) {
      this.#samples.delete(device);
      return {};
    }
    const rate = rateBetween(before, { at, rx, tx });
    this.#samples.set(device, { at, rx, tx, rate });
    return rate;
  }

  /** Forgets interfaces that are gone. */
  keep(devices: readonly string[]): void {
    for (const device of this.#samples.keys()) if (!devices.includes(device)) this.#samples.delete(device);
  }

  #counter(device: string, name: string): number | undefined {
    try {
      const text = this.#files.readText(`/sys/class/net/${device}/statistics/${name}`);
      const value = Number(text?.trim() ?? Number.NaN);
      return Number.isFinite(value) ? value : undefined;
    } catch {
      return undefined; // gone between listing and reading
    }
  }
}

function rateBetween(before: Sample | undefined, now: { at: number; rx: number; tx: number }): Rate {
  if (before === undefined) return {};
  const elapsed = now.at - before.at;
  if (elapsed > longestMs || now.rx < before.rx || now.tx < before.tx) return {};
  const perSecond = (bytes: number) => Math.round((bytes * 1000) / elapsed);
  return { rxRate: perSecond(now.rx - before.rx), txRate: perSecond(now.tx - before.tx) };
}
