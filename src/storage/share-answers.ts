import { fault } from '#api/errors.ts';
import type { LocalParts } from '#storage/local.ts';
import type { MountRow } from '#storage/registry.ts';
import type { UsageProbe } from '#storage/usage.ts';

/** So long who wants to use a share that is thought dead waits for its answer, ms: asking it takes up to 7.5 s. */
const patience = 8000;

export interface AnswerParts extends LocalParts {
  readonly probe: UsageProbe;
}

/**
 * A mount that is there and does not answer is no answer to who wants to use it; it is kept, and comes back.
 *
 * INVARIANT: nobody holds the lock of a share while it is asked. Clients that ask again and again would have it all the
 * time, and who makes the share anew, or unmounts it by force, would wait behind them.
 */
export class ShareAnswers {
  readonly #parts: AnswerParts;

  constructor(parts: AnswerParts) {
    this.#parts = parts;
  }

  /**
   * Asks a share that is mounted and thought dead; undefined: there is nothing to ask. Rejects with
   * `server_unreachable` when it does not answer, and with the signal's reason when that is aborted.
   */
  ask(identity: string, signal: AbortSignal): Promise<void> | undefined {
    const row = this.#parts.registry.get(identity);
    return row !== undefined && this.#isDead(row) ? this.#askDead(row, signal) : undefined;
  }

  /** Throws `server_unreachable` for a share that is mounted and thought dead, without asking it. */
  refuseDead(row: MountRow): void {
    if (!this.#isDead(row)) return;
    const words = `mount error(113): could not connect to ${row.extra.server ?? 'the server'}`;
    const path = this.#parts.mounter.pathOf(row);
    throw fault('server_unreachable', `${words} (${path} is mounted, but does not answer)`);
  }

  async #askDead({ identity, name }: MountRow, signal: AbortSignal): Promise<void> {
    const { probe, mounter, machine, registry } = this.#parts;
    const answered = new AbortController();
    const deadline = machine.clock.sleep(patience, AbortSignal.any([signal, answered.signal]));
    try {
      await Promise.race([probe.check(identity, mounter.pathOf({ name })), deadline]);
    } finally {
      answered.abort();
    }
    // It may have been detached meanwhile, to be made anew: that is waited for.
    const after = registry.get(identity);
    if (after !== undefined) this.refuseDead(after);
  }

  #isDead(row: MountRow): boolean {
    const { probe, mounter } = this.#parts;
    return row.wanted && probe.isInvalid(row.identity) && mounter.standing(row).kind === 'ours';
  }
}
