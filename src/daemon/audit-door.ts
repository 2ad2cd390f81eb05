import { callerLabel } from '#api/caller.ts';
import { RateLimit } from '#auth/rate.ts';
import type { Clock } from '#host/clock.ts';
import type { AuditLine } from '#http/pipeline.ts';
import type { AuditLog } from '#store/audit.ts';

/** Refusals of strangers that are written down in a minute. */
const strangersPerMinute = 20;

/**
 * What becomes of a request in the audit. Every line is a write that the disk has to confirm, so who has proved nothing
 * gets only so many of them: what is left out is counted, and the next line that is written says how many.
 */
export class AuditDoor {
  readonly #audit: Pick<AuditLog, 'append'>;
  readonly #clock: Clock;
  readonly #strangers: RateLimit;
  #leftOut = 0;

  constructor(options: { readonly audit: Pick<AuditLog, 'append'>; readonly clock: Clock }) {
    this.#audit = options.audit;
    this.#clock = options.clock;
    this.#strangers = new RateLimit(options.clock, strangersPerMinute);
  }

  record({ caller, operation, outcome, jobId, detail }: AuditLine): void {
    if (caller.proof === 'none' && outcome !== 'done' && !this.#mayWrite()) return;
    const said = this.#leftOut === 0 ? detail : `${detail ?? ''} ${this.#leftOut} refusals left out`.trim();
    this.#leftOut = 0;
    this.#audit.append({
      ...{ at: this.#clock.now(), caller: callerLabel(caller), proof: caller.proof, operation, outcome },
      ...(jobId === undefined ? {} : { jobId }),
      ...(said === undefined ? {} : { detail: said }),
    });
  }

  #mayWrite(): boolean {
    try {
      this.#strangers.take('refusals of strangers');
      return true;
    } catch {
      this.#leftOut += 1;
      return false;
    }
  }
}
