import type { Caller } from '#api/caller.ts';
import type { ErrorCode } from '#api/errors.ts';
import type { DryRun, Precondition } from '#api/operation.ts';
import type { OperationName } from '#api/operations.ts';

/** What a job remembers between phases and across a crash. JSON only, never a secret. */
export type Checkpoint = Readonly<Record<string, unknown>>;

export interface PhaseContext<I> {
  readonly jobId: string;
  readonly input: I;
  /** Aborted when the job is cancelled (reason: a Fault `cancelled`) or the daemon stops (reason: {@link Stopping}). */
  readonly signal: AbortSignal;
  readonly checkpoint: Checkpoint;
  /** Written to the store before it returns: what the next start must know. */
  remember(patch: Checkpoint): void;
  /** Real progress of this phase, 0–100, or null when nobody can say; `message` says what is being done. */
  progress(percent: number | null, message: string): void;
}

export interface Phase<I> {
  readonly name: string;
  /** What it does, for the dry run. */
  readonly does: string;
  readonly reversible: boolean;
  /** Its share of the job's percentage. */
  readonly weight: number;
  readonly cancellable: boolean;
  /**
   * What the next start does with a phase that was under way: `repeat` runs it again (it is safe to repeat), `resume`
   * calls `resume`, which finds out what happened and goes on from there, `fail` ends the job as interrupted.
   */
  readonly afterCrash: 'repeat' | 'resume' | 'fail';
  run(context: PhaseContext<I>): Promise<void>;
  /** When the job had been cancelled before the crash, the signal is aborted already: it ends what runs and begins nothing. */
  resume?(context: PhaseContext<I>): Promise<void>;
}

/** A precondition with the code of the refusal when it is not met; `impossible` unless it says otherwise. */
export interface Check extends Precondition {
  readonly code?: ErrorCode;
}

/** A long operation: what it checks, which phases it has, what it takes over. */
export interface JobDefinition<I = never> {
  readonly operation: OperationName;
  /** Running jobs of these operations are cancelled first, and waited for. */
  readonly takesOver?: readonly OperationName[];
  /** Read-only: what stands in the way. A false one refuses the job, with its reason. */
  preconditions(input: I): Promise<readonly Check[]> | readonly Check[];
  phases(input: I): readonly Phase<I>[];
  /** Called once when the job has ended, in whatever way, also after a restart; must be safe to repeat. */
  finished?(input: I, outcome: JobOutcome): Promise<void> | void;
}

export interface JobOutcome {
  readonly jobId: string;
  readonly state: 'succeeded' | 'failed' | 'cancelled' | 'interrupted';
}

/** The abort reason of a daemon that stops: the job is not over, the next start goes on with it. */
export class Stopping extends Error {
  override readonly name = 'Stopping';
  constructor() {
    super('the daemon is stopping');
  }
}

export interface StartOptions<I> {
  readonly input: I;
  readonly caller: Caller;
}

/** What a capability needs of the runner: start a job, or print its plan. */
export interface Jobs {
  /** Journals and starts the job; resolves with its id. Rejects with the refusal. */
  start<I>(definition: JobDefinition<I>, options: StartOptions<I>): Promise<string>;
  /** What `start` would do, without doing it. */
  plan<I>(definition: JobDefinition<I>, input: I): Promise<DryRun>;
}
