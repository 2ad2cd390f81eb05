import { connect } from 'node:net';
import type { Clock } from '#host/clock.ts';
import { SingleFlight } from '#lib/mutex.ts';

export interface ProbeTarget {
  /** An address, not a name: a resolver that is down is another problem. */
  readonly host: string;
  readonly port: number;
  readonly family: 4 | 6;
}

export interface ConnectivityResult {
  readonly internetConnected?: boolean;
  readonly ipv6Connectivity?: boolean;
}

export interface ConnectivityOptions {
  readonly clock: Clock;
  /** None: nothing outside is ever contacted (the sandbox). */
  readonly targets: readonly ProbeTarget[];
  readonly timeoutMs?: number;
}

export interface LocalAddresses {
  readonly device: string;
  readonly ipv4: string | undefined;
  readonly ipv6: string | undefined;
}

const cachedMs = 30_000;

/**
 * Whether an interface reaches the internet: TCP connections from its own addresses.
 *
 * INVARIANTS: one measurement of an interface at a time; a result is good for 30 s; {@link cached} never measures.
 */
export class Connectivity {
  readonly #options: ConnectivityOptions;
  readonly #flights = new SingleFlight<ConnectivityResult>();
  readonly #cache = new Map<string, { readonly at: number; readonly result: ConnectivityResult }>();

  constructor(options: ConnectivityOptions) {
    this.#options = options;
  }

  /** The last result, if it is still good; empty when there is none. */
  cached(device: string): ConnectivityResult {
    const hit = this.#cache.get(device);
    if (hit === undefined || this.#options.clock.monotonic() - hit.at >= cachedMs) return {};
    return hit.result;
  }

  /** The last result or a new one; at most 5 s. */
  measure(local: LocalAddresses): Promise<ConnectivityResult> {
    const hit = this.cached(local.device);
    if (hit.internetConnected !== undefined || hit.ipv6Connectivity !== undefined)
      return Promise.resolve(hit);
    return this.#flights.run(local.device, async () => {
      const [v4, v6] = await Promise.all([this.#reaches(local.ipv4, 4), this.#reaches(local.ipv6, 6)]);
      const result: ConnectivityResult = {
        ...(v4 === undefined && v6 === undefined ? {} : { internetConnected: v4 === true || v6 === true }),
        ...(v6 === undefined ? {} : { ipv6Connectivity: v6 }),
      };
      this.#cache.set(local.device, { at: this.#options.clock.monotonic(), result });
      return result;
    });
  }

  /** undefined: nothing to try with. */
  async #reaches(localAddress: string | undefined, family: 4 | 6): Promise<boolean | undefined> {
    const targets = this.#options.targets.filter((target) => target.family === family);
    if (localAddress === undefined || targets.length === 0) return undefined;
    const signal = AbortSignal.timeout(this.#options.timeoutMs ?? 5000);
    const tries = targets.map((target) => connects(target, localAddress, signal));
    return Promise.any(tries).then(
      () => true,
      () => false,
    );
  }
}

function connects(target: ProbeTarget, localAddress: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: target.host, port: target.port, localAddress });
    const onAbort = () => socket.destroy(new Error('no answer in time'));
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
    socket.once('error', reject);
    socket.once('close', () => {
      signal.removeEventListener('abort', onAbort);
      reject(new Error('closed')); // after `connect` this changes nothing
    });
  });
}
