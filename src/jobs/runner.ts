import type { Caller } from '#api/caller.ts';
import { type ErrorCode, fault } from '#api/errors.ts';
import type { DryRun } from '#api/operation.ts';
import type { OperationName } from '#api/operations.ts';
import type { Job, JobError, JobState } from '#api/shapes.ts';
import type { Clock } from '#host/clock.ts';
import type { Jobs, StartOptions } from '#jobs/definition.ts';
import { type JobDefinition, type Phase, type PhaseContext, Stopping } from '#jobs/definition.ts';
import { Cancelled, Interrupted, jobErrorOf } from '#jobs/outcome.ts';
import { Pace } from '#jobs/pace.ts';
import { canTakeOver, planOf, refuseUnmet } from '#jobs/plan.ts';
import {
  fromRow,
  isCancellable,
  type JobRecord,
  newId,
  newPhase,
  type PhaseRecord,
  toRow,
  totalPercent,
  toWire,
} from '#jobs/record.ts';
import { lostReason, resumePhase } from '#jobs/resume.ts';
import type { Fault } from '#lib/fault.ts';
import { Mutex } from '#lib/mutex.ts';
import { laneOf, ruleOf } from '#state/policy.ts';
import type { JobJournal } from '#store/jobs.ts';

export interface JobRunnerOptions {
  readonly journal: JobJournal;
  readonly clock: Clock;
  /** Every job that this daemon can run, or resume after a crash. */
  readonly definitions: readonly JobDefinition<never>[];
  /** The question of the door, asked again when the job takes its lane. */
  readonly admit: (operation: OperationName, caller: Caller) => Fault<ErrorCode> | undefined;
  /** `progress` comes at most once a second for each job; `state` at once. */
  readonly onChange: (job: JobRecord, what: 'state' | 'progress') => void;
  /** A fault of ours inside a job, for the log. */
  readonly onInternal: (jobId: string, error: unknown) => void;
}

interface Active {
  readonly job: JobRecord;
  readonly controller: AbortController;
  /** It is in a phase, and hears in there that it shall end: what the phase left running before a crash ends with it. */
  readonly atWork: PromiseWithResolvers<void>;
  ended: Promise<void>;
}

const progressEveryMs = 1000;
/** In the checkpoint of a job: who has cancelled it. */
const cancelledBy = 'cancelledBy';

/**
 * Runs long work.
 *
 * INVARIANTS
 * - at most one job runs in a lane; a second one is refused with the id of the first, unless it takes it over;
 * - a job is in the journal before its id is given out, and a phase is `running` there before its first act;
 * - a job leaves `running` only by its own end, a cancellation, or a start that finds it cannot be resumed;
 * - when the daemon stops, jobs stay `running` in the journal and the next start goes on with them.
 */
export class JobRunner implements Jobs {
  readonly #options: JobRunnerOptions;
  readonly #definitions: ReadonlyMap<string, JobDefinition<never>>;
  readonly #active = new Map<string, Active>();
  readonly #pace: Pace;
  readonly #door = new Mutex();
  #stopping = false;

  constructor(options: JobRunnerOptions) {
    this.#options = options;
    this.#pace = new Pace(options.clock, progressEveryMs);
    this.#definitions = new Map(options.definitions.map((definition) => [definition.operation, definition]));
    for (const { operation } of options.definitions) laneOf(operation); // one without a lane is told at the start
  }

  /** Checks, journals and starts a job; returns its id. Throws the refusal. */
  start<I>(definition: JobDefinition<I>, { input, caller }: StartOptions<I>): Promise<string> {
    return this.#door.run(async () => {
      this.#inTheWay(definition); // who is refused for another job hears which, whatever else is amiss
      await refuseUnmet(definition, input);
      const inTheWay = this.#inTheWay(definition);
      const job = this.#journalled(definition, input, caller);
      this.#launch(job, definition, async () => {
        for (const other of inTheWay) await this.#takeOver(other, definition.operation);
      });
      return job.id;
    });
  }

  /** What `start` would do, without doing it. */
  async plan<I>(definition: JobDefinition<I>, input: I): Promise<DryRun> {
    const busy = this.#besides(definition).map(({ job }) => job);
    return await planOf(definition, input, busy);
  }

  get(id: string): Job | undefined {
    const record = this.#active.get(id)?.job ?? this.#fromJournal(id);
    return record === undefined ? undefined : toWire(record);
  }

  /** The record behind a job, for those who need its checkpoint or who asked for it. */
  record(id: string): JobRecord | undefined {
    return this.#active.get(id)?.job ?? this.#fromJournal(id);
  }

  /** Newest first, strictly older than `before`. */
  list(limit: number, before?: string): Job[] {
    return this.#options.journal
      .list(limit, before)
      .map((row) => toWire(this.#active.get(row.id)?.job ?? fromRow(row)));
  }

  /** The newest job of each operation, running ones as they are now. */
  newestOfEach(): JobRecord[] {
    return this.#options.journal.newestOfEach().map((row) => this.#active.get(row.id)?.job ?? fromRow(row));
  }

  /** Asks a job to end; it may take a moment. Refused where the phase does not allow it. */
  cancel(id: string, by: string): Job {
    const active = this.#active.get(id);
    if (active === undefined) {
      const ended = this.get(id);
      if (ended === undefined) throw fault('not_found', `There is no job ${id}.`);
      throw fault('not_cancellable', `Job ${id} has ended (${ended.state}).`, { jobId: id });
    }
    if (!isCancellable(active.job)) {
      const phase = active.job.phases.find((each) => each.state === 'running');
      throw fault('not_cancellable', `Job ${id} cannot be cancelled in its phase ${phase?.name}.`, {
        jobId: id,
      });
    }
    active.job.checkpoint = { ...active.job.checkpoint, [cancelledBy]: by };
    this.#write(active.job); // should the daemon end before the job has, the next start ends it
    active.controller.abort(new Cancelled(by));
    return toWire(active.job);
  }

  /** Settles when the job has ended (or the daemon stops). */
  async ended(id: string): Promise<void> {
    await this.#active.get(id)?.ended;
  }

  /** After a start, and when a lost journal is back: takes up every open job that nobody works at, the oldest first. */
  resume(): void {
    if (this.#stopping) return;
    for (const row of this.#options.journal.open()) {
      const job = fromRow(row);
      if (this.#active.has(job.id)) continue;
      const definition = this.#definitions.get(job.operation);
      const lost = lostReason(job, definition);
      if (definition === undefined || lost !== undefined) this.#settle(job, 'interrupted', lost);
      else this.#takeUp(job, definition);
    }
  }

  #takeUp<I>(job: JobRecord, definition: JobDefinition<I>): void {
    const before = this.#inLane(job.lane);
    const active = this.#launch(job, definition, () => this.#comeAfter(before, definition));
    const by = job.checkpoint[cancelledBy];
    if (typeof by === 'string') active.controller.abort(new Cancelled(by));
  }

  /** What is open in the lane already ends first: a crash may have come while one job was taking another one over. */
  async #comeAfter<I>(before: readonly Active[], definition: JobDefinition<I>): Promise<void> {
    for (const other of before) {
      const isTaken = canTakeOver(definition, other.job);
      await Promise.race(isTaken ? [other.atWork.promise, other.ended] : [other.ended]);
      if (isTaken) await this.#takeOver(other, definition.operation);
    }
  }

  /** Lets go of every job without ending it. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const running = [...this.#active.values()];
    for (const active of running) active.controller.abort(new Stopping());
    await Promise.all(running.map((active) => active.ended));
  }

  /** What runs in the lane and is taken over; throws when something there is not, and when the daemon stops. */
  #inTheWay<I>(definition: JobDefinition<I>): Active[] {
    if (this.#stopping)
      throw fault('conflict', 'The daemon is stopping; ask again in a moment.', { retryAfter: 5 });
    const busy = this.#besides(definition);
    for (const { job } of busy) {
      if (canTakeOver(definition, job)) continue;
      throw fault('conflict', `${job.operation} is running (job ${job.id}).`, {
        jobId: job.id,
        retryAfter: 5,
      });
    }
    return busy;
  }

  /** What is in the lane. A job that is not listed, a mistake of ours, could not go on after a crash. */
  #besides<I>({ operation }: JobDefinition<I>): Active[] {
    if (!this.#definitions.has(operation)) throw new Error(`the job ${operation} is not listed`);
    return this.#inLane(laneOf(operation));
  }

  #inLane(lane: string): Active[] {
    return [...this.#active.values()].filter(({ job }) => job.lane === lane);
  }

  #journalled<I>(definition: JobDefinition<I>, input: I, caller: Caller): JobRecord {
    const now = this.#options.clock.now();
    const job: JobRecord = {
      id: newId(now),
      operation: definition.operation,
      lane: laneOf(definition.operation),
      caller,
      input,
      createdAt: now,
      state: 'queued',
      phases: definition.phases(input).map(newPhase),
      checkpoint: {},
      error: null,
      startedAt: null,
      finishedAt: null,
      shownPercent: null,
    };
    this.#options.journal.insert(toRow(job), ruleOf(job.operation).withoutStore !== true);
    return job;
  }

  #launch<I>(job: JobRecord, definition: JobDefinition<I>, clearTheWay: () => Promise<void>): Active {
    const active: Active = {
      job,
      controller: new AbortController(),
      atWork: Promise.withResolvers(),
      ended: Promise.resolve(),
    };
    this.#active.set(job.id, active);
    this.#options.onChange(job, 'state');
    active.ended = this.#run(active, definition, clearTheWay).finally(() => {
      this.#active.delete(job.id);
      this.#pace.forget(job.id);
    });
    return active;
  }

  async #run<I>(
    active: Active,
    definition: JobDefinition<I>,
    clearTheWay: () => Promise<void>,
  ): Promise<void> {
    const { job } = active;
    let outcome: JobState;
    let error: JobError | undefined;
    try {
      await clearTheWay();
      this.#takeLane(job, definition, active.controller.signal);
      await this.#runPhases(active, definition);
      outcome = 'succeeded';
    } catch (thrown) {
      if (thrown instanceof Stopping || this.#stopping) return;
      outcome =
        thrown instanceof Cancelled ? 'cancelled' : thrown instanceof Interrupted ? 'interrupted' : 'failed';
      error = jobErrorOf(thrown);
      if (error.code === 'internal') this.#options.onInternal(job.id, thrown);
    }
    try {
      await definition.finished?.(job.input as I, { jobId: job.id, state: outcome });
    } catch (thrown) {
      this.#options.onInternal(job.id, thrown);
    }
    this.#settle(job, outcome, error);
  }

  /** The world may have changed while the job waited: it is admitted again, now that the lane is its own. */
  #takeLane<I>(job: JobRecord, definition: JobDefinition<I>, signal: AbortSignal): void {
    if (job.startedAt !== null) return; // resumed: it held the lane before
    signal.throwIfAborted();
    const refused = this.#options.admit(job.operation, job.caller);
    // What the job itself takes over has just changed the state; its own start was admitted at the door.
    if (refused !== undefined && definition.takesOver === undefined) throw refused;
    job.state = 'running';
    job.startedAt = this.#options.clock.now();
    this.#write(job);
    this.#options.onChange(job, 'state');
  }

  async #runPhases<I>(active: Active, definition: JobDefinition<I>): Promise<void> {
    const { job } = active;
    for (const phase of definition.phases(job.input as I)) {
      const record = job.phases.find((each) => each.name === phase.name);
      if (record === undefined) throw new Interrupted(`This beosd does not know how far ${phase.name} came.`);
      if (record.state === 'succeeded' || record.state === 'skipped') continue;
      // What a crash has cut off is entered even when it is cancelled: only the phase can end what it has begun.
      const { signal } = active.controller;
      if (record.state !== 'running' || !(signal.reason instanceof Cancelled)) signal.throwIfAborted();
      await this.#runPhase(active, phase, record);
    }
  }

  async #runPhase<I>(active: Active, phase: Phase<I>, record: PhaseRecord): Promise<void> {
    const { job, controller } = active;
    const crashed = record.state === 'running';
    const context = this.#context<I>(job, record, controller.signal);
    if (!crashed) this.#begin(job, phase, record);
    this.#show(job, 'state');
    active.atWork.resolve();
    try {
      if (crashed) await resumePhase(phase, context);
      else await phase.run(context);
    } catch (error) {
      if (!(error instanceof Stopping) && !this.#stopping) {
        record.state = 'failed';
        record.finishedAt = this.#options.clock.now();
        // An abort surfaces as whatever the phase threw; the reason is what counts.
        if (controller.signal.aborted) throw controller.signal.reason;
      }
      throw error;
    }
    record.state = 'succeeded';
    record.percent = 100;
    record.finishedAt = this.#options.clock.now();
    this.#show(job, 'state');
  }

  /** What can neither be undone nor repeated is not begun unless a start after a power cut would know of it. */
  #begin<I>(job: JobRecord, phase: Phase<I>, record: PhaseRecord): void {
    const { reversible, afterCrash } = phase;
    const mustLast = !reversible && afterCrash !== 'repeat' && ruleOf(job.operation).withoutStore !== true;
    record.state = 'running';
    record.startedAt = this.#options.clock.now();
    try {
      this.#options.journal.update(toRow(job), mustLast);
    } catch (error) {
      record.state = 'pending';
      record.startedAt = null;
      throw error;
    }
  }

  #context<I>(job: JobRecord, record: PhaseRecord, signal: AbortSignal): PhaseContext<I> {
    return {
      jobId: job.id,
      input: job.input as I,
      signal,
      get checkpoint() {
        return job.checkpoint;
      },
      remember: (patch) => {
        job.checkpoint = { ...job.checkpoint, ...patch };
        this.#write(job);
      },
      progress: (percent, message) => {
        if (percent !== null) record.percent = Math.max(record.percent ?? 0, Math.min(100, percent));
        record.message = message;
        this.#measure(job); // who asks for the job itself sees it at once
        this.#pace
          .show(job.id, () => this.#show(job, 'progress'))
          .catch((error: unknown) => this.#options.onInternal(job.id, error));
      },
    };
  }

  async #takeOver(other: Active, by: OperationName): Promise<void> {
    other.controller.abort(new Cancelled(by));
    await other.ended;
  }

  #settle(job: JobRecord, state: JobState, error?: JobError): void {
    job.state = state;
    job.error = error ?? null;
    job.finishedAt = this.#options.clock.now();
    for (const phase of job.phases) if (phase.state === 'running') phase.state = 'failed';
    this.#show(job, 'state');
  }

  #measure(job: JobRecord): void {
    const total = job.state === 'succeeded' ? 100 : totalPercent(job.phases);
    if (total !== null) job.shownPercent = Math.max(job.shownPercent ?? 0, total);
  }

  /** Makes a change visible: in the journal, and to those who watch. */
  #show(job: JobRecord, what: 'state' | 'progress'): void {
    this.#measure(job);
    this.#write(job);
    this.#options.onChange(job, what);
  }

  /**
   * Durable wherever the disk allows it. A phase that has begun goes on when the disk fails under it: what must not
   * happen twice is guarded where it happens (the claim of a long process, the boot identity of a reboot).
   */
  #write(job: JobRecord): void {
    this.#options.journal.update(toRow(job), false);
  }

  #fromJournal(id: string): JobRecord | undefined {
    const row = this.#options.journal.get(id);
    return row === undefined ? undefined : fromRow(row);
  }
}
