import { randomBytes } from 'node:crypto';
import type { Caller } from '#api/caller.ts';
import { callerLabel } from '#api/caller.ts';
import type { OperationName } from '#api/operations.ts';
import type { Job, JobError, JobPhase, JobState } from '#api/shapes.ts';
import type { Checkpoint, Phase } from '#jobs/definition.ts';
import type { Lane } from '#state/policy.ts';
import type { JobRow } from '#store/jobs.ts';

/** A job as the runner works with it: plain data, replaced field by field, written to the journal as a row. */
export interface JobRecord {
  readonly id: string;
  readonly operation: OperationName;
  readonly lane: Lane;
  readonly caller: Caller;
  readonly input: unknown;
  readonly createdAt: number;
  state: JobState;
  phases: PhaseRecord[];
  checkpoint: Checkpoint;
  error: JobError | null;
  startedAt: number | null;
  finishedAt: number | null;
  /** Highest percentage shown so far; progress never goes back. */
  shownPercent: number | null;
}

export interface PhaseRecord {
  readonly name: string;
  readonly weight: number;
  readonly cancellable: boolean;
  state: JobPhase['state'];
  percent: number | null;
  startedAt: number | null;
  finishedAt: number | null;
  message: string;
}

export function newPhase(phase: Pick<Phase<never>, 'name' | 'weight' | 'cancellable'>): PhaseRecord {
  const { name, weight, cancellable } = phase;
  return {
    name,
    weight,
    cancellable,
    state: 'pending',
    percent: null,
    startedAt: null,
    finishedAt: null,
    message: '',
  };
}

/** Real progress of the whole: finished phases count whole, the running one by its own percentage. */
export function totalPercent(phases: readonly PhaseRecord[]): number | null {
  const total = phases.reduce((sum, phase) => sum + phase.weight, 0);
  if (total === 0) return null;
  const done = phases.reduce((sum, phase) => sum + phase.weight * share(phase), 0);
  return Math.floor((done / total) * 1000) / 10;
}

function share(phase: PhaseRecord): number {
  if (phase.state === 'succeeded' || phase.state === 'skipped') return 1;
  return phase.state === 'running' ? (phase.percent ?? 0) / 100 : 0;
}

/** The phase that runs, or that ran last. */
export function currentPhase(job: JobRecord): PhaseRecord | undefined {
  return (
    job.phases.find((phase) => phase.state === 'running' || phase.state === 'failed') ??
    job.phases.findLast((phase) => phase.state === 'succeeded')
  );
}

const isoOrNull = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString());

/** The job as the wire shows it (contract §10). */
export function toWire(job: JobRecord): Job {
  const phase = currentPhase(job);
  return {
    id: job.id,
    operation: job.operation,
    state: job.state,
    phase: phase?.name ?? null,
    percent: job.shownPercent,
    phases: job.phases.map(
      ({ weight: _weight, cancellable: _cancellable, startedAt, finishedAt, ...rest }) => ({
        ...rest,
        startedAt: isoOrNull(startedAt),
        finishedAt: isoOrNull(finishedAt),
      }),
    ),
    error: job.error,
    caller: callerLabel(job.caller),
    cancellable: isCancellable(job),
    createdAt: new Date(job.createdAt).toISOString(),
    startedAt: isoOrNull(job.startedAt),
    finishedAt: isoOrNull(job.finishedAt),
  };
}

export function isCancellable(job: JobRecord): boolean {
  if (job.state === 'queued') return true;
  return (
    job.state === 'running' && (job.phases.find((phase) => phase.state === 'running')?.cancellable ?? true)
  );
}

export function toRow(job: JobRecord): JobRow {
  return {
    id: job.id,
    operation: job.operation,
    lane: job.lane,
    state: job.state,
    phase: currentPhase(job)?.name ?? null,
    percent: job.shownPercent,
    phases: JSON.stringify(job.phases),
    input: JSON.stringify(job.input ?? null),
    checkpoint: JSON.stringify(job.checkpoint),
    error: job.error === null ? null : JSON.stringify(job.error),
    caller: JSON.stringify(job.caller),
    createdAt: job.createdAt,
    startedAt: job.startedAt,
    finishedAt: job.finishedAt,
  };
}

export function fromRow(row: JobRow): JobRecord {
  return {
    id: row.id,
    operation: row.operation as OperationName,
    lane: row.lane as Lane,
    caller: JSON.parse(row.caller) as Caller,
    input: JSON.parse(row.input) as unknown,
    createdAt: row.createdAt,
    state: row.state,
    phases: JSON.parse(row.phases) as PhaseRecord[],
    checkpoint: JSON.parse(row.checkpoint) as Checkpoint,
    error: row.error === null ? null : (JSON.parse(row.error) as JobError),
    startedAt: row.startedAt,
    finishedAt: row.finishedAt,
    shownPercent: row.percent,
  };
}

/** Sortable by time, unguessable: 12 hex of milliseconds, 12 random. */
export function newId(now: number): string {
  return `${now.toString(16).padStart(12, '0')}${randomBytes(6).toString('hex')}`;
}
