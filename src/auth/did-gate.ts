import { isIP } from 'node:net';
import { type ErrorCode, fault } from '#api/errors.ts';
import { signerOfDocument } from '#auth/did-document.ts';
import { RateLimit, RateLimits } from '#auth/rate.ts';
import type { Clock } from '#host/clock.ts';
import type { Fault } from '#lib/fault.ts';
import { SingleFlight } from '#lib/mutex.ts';
import { isLoopback, placeOf } from '#lib/net.ts';
import type { Store } from '#store/store.ts';

const fresh = 24 * 60 * 60_000;
const staleIfError = 30 * fresh;
const freshNegative = 60_000;
const largestAnswer = 64 * 1024;
const cachedNames = 1000;
/** Of the look-ups of a minute, for strangers from one place: six of them have to come together to use up all. */
const perMinuteOfOnePlace = 5;

export interface DidGateOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** From {@link gateUrl}; undefined: there is no gate, as in the sandbox. */
  readonly url: URL | undefined;
  /** Look-ups a minute. Default 30. */
  readonly perMinute?: number;
  /** ms for one look-up, body included. Default 10,000. */
  readonly deadline?: number;
  /** Of the daemon: ends look-ups under way. */
  readonly signal?: AbortSignal;
}

type Cached =
  | { readonly kind: 'known'; readonly document: unknown; readonly age: number }
  | { readonly kind: 'unknown-name'; readonly age: number };

/**
 * The service that knows which DID a name belongs to. TLS is verified (the process-wide settings are never touched), redirects
 * are errors, and what it sends is bounded and believed only as far as auth/did-document.ts allows.
 */
export class DidGate {
  readonly #options: DidGateOptions;
  readonly #limit: RateLimit;
  readonly #places: RateLimits;
  readonly #flights = new SingleFlight<unknown>();

  constructor(options: DidGateOptions) {
    this.#options = options;
    this.#limit = new RateLimit(options.clock, options.perMinute ?? 30);
    this.#places = new RateLimits(options.clock, perMinuteOfOnePlace);
  }

  /**
   * The gate's answer for a name, as JSON: from the cache for a day (a minute when nobody can sign with it), and for 30 days
   * while the gate is down.
   *
   * @param signal of the one who asks; the look-up itself goes on for the others
   * @param stranger the address of one who has proved nothing yet: each place has a share of the look-ups of its own
   * @throws Fault `not_found`, `did_gate_unavailable`, `too_many_requests`, or the signal's reason
   */
  async document(name: string, signal: AbortSignal, stranger?: string): Promise<unknown> {
    const dotted = name.replaceAll('@', '.');
    const cached = this.#cached(dotted);
    if (cached !== undefined && cached.age >= 0 && cached.age < freshFor(cached)) {
      if (cached.kind === 'known') return cached.document;
      throw notKnown(name);
    }
    try {
      if (stranger !== undefined) this.#places.take(placeOf(stranger), 'look-ups of names from this address');
      return await untilAborted(
        this.#flights.run(dotted, () => this.#lookUp(dotted)),
        signal,
      );
    } catch (error) {
      const isStale = cached?.kind === 'known' && cached.age < staleIfError;
      if (isStale && !signal.aborted && !(error instanceof UnknownName)) return cached.document;
      throw error instanceof UnknownName ? notKnown(name) : error;
    }
  }

  async #lookUp(dotted: string): Promise<unknown> {
    const { url } = this.#options;
    if (url === undefined) throw fault('did_gate_unavailable', 'This daemon has no DID gate to ask.');
    this.#limit.take('look-ups of names');
    const path = `${url.pathname.replace(/\/$/, '')}/1.0/name/${encodeURIComponent(dotted)}`;
    const document = await this.#fetched(new URL(path, url));
    this.#remember(dotted, document === undefined ? null : JSON.stringify(document));
    if (document === undefined) throw new UnknownName();
    return document;
  }

  /** Undefined: the gate says that there is no such name. */
  async #fetched(url: URL): Promise<unknown> {
    const deadline = AbortSignal.timeout(this.#options.deadline ?? 10_000);
    const stop = this.#options.signal;
    const signal = stop === undefined ? deadline : AbortSignal.any([deadline, stop]);
    try {
      const response = await fetch(url, {
        redirect: 'error',
        signal,
        headers: { accept: 'application/json' },
      });
      if (response.status === 404) {
        await response.body?.cancel();
        return undefined;
      }
      if (response.status !== 200) {
        await response.body?.cancel();
        throw new Error(`it answered ${response.status}`);
      }
      const value: unknown = JSON.parse(await boundedText(response));
      if (typeof value !== 'object' || value === null) throw new Error('its answer is no JSON object');
      return value;
    } catch (error) {
      throw fault('did_gate_unavailable', 'The name could not be looked up at the DID gate.', {
        cause: error,
      });
    }
  }

  #cached(dotted: string): Cached | undefined {
    const row = this.#options.store.read((db) =>
      db.get('SELECT document, fetched_at FROM did_cache WHERE name = ?', dotted),
    );
    if (row === undefined) return undefined;
    const age = this.#options.clock.now() - Number(row['fetched_at']);
    if (typeof row['document'] !== 'string') return { kind: 'unknown-name', age };
    return { kind: 'known', document: JSON.parse(row['document']), age };
  }

  #remember(dotted: string, document: string | null): void {
    const now = this.#options.clock.now();
    this.#options.store.write((db) => {
      db.run(
        'INSERT OR REPLACE INTO did_cache (name, document, fetched_at) VALUES (?, ?, ?)',
        dotted,
        document,
        now,
      );
      // Names that nobody has go first: they are what a stranger can fill the cache with.
      db.run(
        `DELETE FROM did_cache WHERE name IN (
           SELECT name FROM did_cache ORDER BY document IS NULL, fetched_at DESC LIMIT -1 OFFSET ?)`,
        cachedNames,
      );
    });
  }
}

/**
 * The base URL of a gate: https, or plain http to this machine itself.
 *
 * @throws Fault `invalid_input` that says what is allowed
 */
export function gateUrl(text: string): URL {
  const url = URL.parse(text);
  const host = url?.hostname.replace(/^\[|\]$/g, '') ?? '';
  const isLocal = host === 'localhost' || (isIP(host) !== 0 && isLoopback(host));
  const isFit = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLocal);
  if (url === null || !isFit || url.search !== '' || url.hash !== '' || url.username !== '') {
    throw fault(
      'invalid_input',
      'A DID gate is an https URL, or an http URL of this machine, without query.',
      {
        field: 'DID_GATE_URL',
      },
    );
  }
  return url;
}

/** A document without a usable key is as good as none: a name that is just being registered must not wait for a day. */
function freshFor(cached: Cached): number {
  return cached.kind === 'known' && signerOfDocument(cached.document) !== undefined ? fresh : freshNegative;
}

class UnknownName extends Error {}

function notKnown(name: string): Fault<ErrorCode> {
  return fault('not_found', `The DID gate does not know ${name}.`);
}

async function boundedText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > largestAnswer) throw new Error('its answer is larger than 64 KiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
  });
}
