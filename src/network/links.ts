import { networkInterfaces } from 'node:os';
import type { Clock } from '#host/clock.ts';
import { type Exec, isMissing, type LineChild } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { messageOf } from '#lib/fault.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import { isNews, parseDefaultRoutes, parseLinks } from '#network/links-parse.ts';
import { defaultRoutes, readWithoutIp } from '#network/links-without-ip.ts';
import { notObserved } from '#state/derive.ts';
import type { NetworkFacts } from '#state/facts.ts';

export interface LinkWatcherOptions {
  readonly exec: Exec;
  readonly files: Files;
  readonly clock: Clock;
  readonly onFacts: (facts: Observed<NetworkFacts>) => void;
  /** The tool of iproute2; by default found on the path. */
  readonly ip?: string;
}

const source = 'links';
const firstBackoffMs = 1000;
const longestBackoffMs = 60_000;

/**
 * Links, addresses and default routes of the kernel.
 *
 * INVARIANTS: one long-lived listener tells that something changed, and only then are the values read, one read at a
 * time; events during a read lead to one more read, however many they are. At idle no process is started.
 */
export class LinkWatcher {
  readonly #options: LinkWatcherOptions;
  readonly #ip: string;
  readonly #stop = new AbortController();
  #monitor: LineChild | undefined;
  #fact: Observed<NetworkFacts>;
  #reading: Promise<void> | undefined;
  #readAgain = false;
  #seen = '';

  constructor(options: LinkWatcherOptions) {
    this.#options = options;
    this.#ip = options.ip ?? 'ip';
    this.#fact = unknown(source, options.clock.now(), notObserved);
  }

  /** Starts the listener, then reads; settles after the first read, whatever came of it. */
  async start(): Promise<void> {
    void this.#listen();
    await this.refresh();
  }

  stop(): void {
    this.#stop.abort();
    this.#monitor?.stop();
  }

  /** The slow net, without a child: reads only when Node's own view of the interfaces has changed. */
  resync(): void {
    if (this.#fact.known && this.#fact.stale === undefined && this.#seen === this.#signature()) return;
    void this.refresh();
  }

  /** Reads now; joins a read that is under way and makes sure that one more follows it. */
  refresh(): Promise<void> {
    if (this.#reading !== undefined) {
      this.#readAgain = true;
      return this.#reading;
    }
    this.#reading = this.#readUntilQuiet().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readUntilQuiet(): Promise<void> {
    do {
      this.#readAgain = false;
      await this.#read();
    } while (this.#readAgain && !this.#stop.signal.aborted);
  }

  async #read(): Promise<void> {
    const { exec, clock, files } = this.#options;
    const seen = this.#signature();
    try {
      const run = async (...args: string[]) =>
        (await exec.run(this.#ip, args, { timeoutMs: 5000, signal: this.#stop.signal })).stdout;
      const hasV6 = files.exists('/proc/net/if_inet6');
      const [links, v4, v6] = await Promise.all([
        run('-j', '-d', 'addr'),
        run('-j', 'route', 'show', 'default'),
        hasV6 ? run('-j', '-6', 'route', 'show', 'default') : '[]',
      ]);
      const value: NetworkFacts = {
        links: parseLinks(links, (name) => this.#isWifi(name)),
        defaultRoutes: [...parseDefaultRoutes(v4, 4), ...parseDefaultRoutes(v6, 6)],
      };
      this.#fact = known(value, source, clock.now());
      this.#seen = seen;
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      // A minimal system has no iproute2.
      this.#fact = isMissing(error)
        ? this.#readWithoutIp()
        : failed(this.#fact, source, clock.now(), messageOf(error));
      this.#seen = seen;
    }
    this.#options.onFacts(this.#fact);
  }

  #readWithoutIp(): Observed<NetworkFacts> {
    const { files, clock } = this.#options;
    try {
      return known(readWithoutIp(files, networkInterfaces()), `${source} (without ip)`, clock.now());
    } catch (error) {
      return failed(this.#fact, source, clock.now(), messageOf(error));
    }
  }

  #isWifi(name: string): boolean {
    const { files } = this.#options;
    return files.exists(`/sys/class/net/${name}/wireless`) || files.exists(`/sys/class/net/${name}/phy80211`);
  }

  /** What can be seen without a child: enough to notice that an event was missed, or that nobody hears of any. */
  #signature(): string {
    const { files } = this.#options;
    const parts = [
      () => files.list('/sys/class/net'),
      networkInterfaces,
      () => defaultRoutes(files, 4),
      () => defaultRoutes(files, 6),
    ];
    return JSON.stringify(parts.map(quietly));
  }

  async #listen(): Promise<void> {
    const { exec, clock } = this.#options;
    const { signal } = this.#stop;
    let isDeaf = false;
    for (let backoff = firstBackoffMs; !signal.aborted; ) {
      const startedAt = clock.monotonic();
      this.#monitor = exec.lines(this.#ip, ['-o', 'monitor', 'link', 'address', 'route'], (line) => {
        // During a read what we know is about to be replaced: then every kind of change is news.
        const links = this.#fact.known && this.#reading === undefined ? this.#fact.value.links : [];
        if (isNews(line, links)) void this.refresh();
      });
      if (isDeaf && this.#monitor.pid !== undefined) void this.refresh(); // what happened while nobody listened
      await this.#monitor.ended;
      isDeaf = true;
      backoff = clock.monotonic() - startedAt > longestBackoffMs ? firstBackoffMs : backoff * 2;
      await clock.sleep(Math.min(backoff, longestBackoffMs), signal).catch(() => undefined);
    }
  }
}

/** One part that cannot be read (a router's table of a megabyte) takes no other with it. */
function quietly(read: () => unknown): unknown {
  try {
    return read();
  } catch {
    return undefined;
  }
}
