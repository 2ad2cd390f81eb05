import { createHash, createHmac } from 'node:crypto';
import { type Caller, callerLabel } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Clock } from '#host/clock.ts';
import type { Idempotency } from '#store/idempotency.ts';

export interface OnceOptions {
  readonly idempotency: Idempotency;
  readonly clock: Clock;
  /** Secret of this node: of a body only its keyed hash is kept. */
  readonly hashKey: Uint8Array;
  /** The answer that a request whose daemon died under it would have got: the job that it had started by then, if any. */
  readonly startedSince: (operation: string, caller: string, at: number) => unknown;
}

export interface OnceRequest {
  readonly key: string;
  readonly caller: Caller;
  readonly operation: string;
  readonly method: string;
  readonly path: string;
  readonly rawBody: Uint8Array;
}

export interface FirstAnswer {
  readonly status: number;
  /** The envelope, serialised. */
  readonly body: string;
}

/** `Idempotency-Key`: the same request under the same key gives the first answer again, also after a restart (contract §10). */
export class Once {
  readonly #options: OnceOptions;
  readonly #flying = new Set<string>();

  constructor(options: OnceOptions) {
    this.#options = options;
  }

  /**
   * Runs `work` the first time; afterwards returns what it returned. `work` gives the answer to send, and the one to
   * keep (without secrets). A refusal is not kept: the next try may fare better.
   */
  async run(
    request: OnceRequest,
    work: () => Promise<{ sent: FirstAnswer; kept: FirstAnswer }>,
  ): Promise<FirstAnswer> {
    const scope = scopeOf(request);
    const mac = createHmac('sha256', this.#options.hashKey).update(request.rawBody).digest('hex');
    if (this.#flying.has(scope)) throw stillRunning();
    const earlier = this.#options.idempotency.begin(scope, mac, this.#options.clock.now());
    switch (earlier.kind) {
      case 'other-body':
        throw fault('idempotency_mismatch', 'The Idempotency-Key was used before with another body.');
      case 'answered':
        return { status: earlier.status, body: earlier.answer };
      case 'unanswered': {
        const data = this.#options.startedSince(request.operation, callerLabel(request.caller), earlier.at);
        if (data === undefined) break; // it died before it did anything: this is the first time
        const body = JSON.stringify({ code: 200, message: 'accepted before', data });
        this.#options.idempotency.finish(scope, 200, body); // the next try may not find the job any more
        return { status: 200, body };
      }
      case 'none':
        break;
    }
    return await this.#first(scope, work);
  }

  async #first(
    scope: string,
    work: () => Promise<{ sent: FirstAnswer; kept: FirstAnswer }>,
  ): Promise<FirstAnswer> {
    this.#flying.add(scope);
    try {
      const { sent, kept } = await work();
      if (sent.status < 400) this.#options.idempotency.finish(scope, kept.status, kept.body);
      else this.#options.idempotency.forget(scope);
      return sent;
    } catch (error) {
      this.#options.idempotency.forget(scope);
      throw error;
    } finally {
      this.#flying.delete(scope);
    }
  }
}

function stillRunning() {
  return fault('conflict', 'The first request under this Idempotency-Key is still being worked on.', {
    retryAfter: 2,
  });
}

function scopeOf(request: OnceRequest): string {
  if (!/^[\x21-\x7e]{1,128}$/.test(request.key)) {
    throw fault('invalid_input', 'An Idempotency-Key has 1 to 128 visible ASCII characters.', {
      field: 'Idempotency-Key',
    });
  }
  // By name where there is one: the signer of an install is its owner by the time it tries again.
  const who = request.caller.name ?? callerLabel(request.caller);
  return createHash('sha256')
    .update([who, request.method, request.path, request.key].join('\n'))
    .digest('hex');
}
