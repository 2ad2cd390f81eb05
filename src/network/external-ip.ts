import { request } from 'node:https';
import { isIP } from 'node:net';
import type { Clock } from '#host/clock.ts';
import { messageOf } from '#lib/fault.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import { notObserved } from '#state/derive.ts';

/** Fetches a small text. Throws when there is none. */
export type FetchText = (url: string, signal: AbortSignal) => Promise<string>;

export interface ExternalIpOptions {
  readonly clock: Clock;
  /** https only; undefined (as in the sandbox): nobody is asked. */
  readonly url: string | undefined;
  readonly hasDefaultRoute: () => boolean;
  readonly onFacts: (facts: Observed<string>) => void;
  /** Default: a client of its own, TLS verified. */
  readonly fetchText?: FetchText;
}

const source = 'external-ip';
const everyMs = 60 * 60_000;
const timeoutMs = 10_000;

/**
 * The address under which the internet sees the node.
 *
 * INVARIANTS: asked at most once an hour, only where a profile names whom to ask and a default route leads out; an
 * answer that is no address is a failure.
 */
export class ExternalIp {
  readonly #options: ExternalIpOptions;
  readonly #stop = new AbortController();
  #fact: Observed<string>;
  #askedAt = Number.NEGATIVE_INFINITY;

  constructor(options: ExternalIpOptions) {
    this.#options = options;
    this.#fact = unknown(source, options.clock.now(), notObserved);
  }

  start(): void {
    this.resync();
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Asks when it is time; cheap otherwise. */
  resync(): void {
    const { clock, url, hasDefaultRoute } = this.#options;
    if (url === undefined || !hasDefaultRoute() || clock.monotonic() - this.#askedAt < everyMs) return;
    this.#askedAt = clock.monotonic();
    void this.#ask(url);
  }

  async #ask(url: string): Promise<void> {
    const { clock, onFacts, fetchText = fetchOverTls } = this.#options;
    try {
      const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(timeoutMs)]);
      const text = (await fetchText(url, signal)).trim();
      if (isIP(text) === 0) throw new Error('the answer is no address');
      this.#fact = known(text, source, clock.now());
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#fact = failed(this.#fact, source, clock.now(), messageOf(error));
    }
    onFacts(this.#fact);
  }
}

/** The body as text, at most 1 KiB. TLS is verified, redirects are not followed. */
function fetchOverTls(url: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = request(url, { signal, agent: false, headers: { accept: 'text/plain' } }, (response) => {
      if (response.statusCode !== 200) {
        response.resume();
        reject(new Error(`${new URL(url).host} answers ${response.statusCode ?? 'nothing'}`));
        return;
      }
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > 1024) response.destroy(new Error('the answer is too long'));
      });
      response.once('end', () => resolve(text));
      response.once('error', reject);
    });
    call.once('error', reject);
    call.end();
  });
}
