import { type Caller, callerLabel } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import { type Handlers, specOf } from '#api/operations.ts';
import type { Files } from '#host/files.ts';
import type { EventHub } from '#jobs/events.ts';
import { tailOf } from '#jobs/log-tail.ts';
import type { JobRecord } from '#jobs/record.ts';
import type { JobRunner } from '#jobs/runner.ts';
import { redact } from '#lib/redact.ts';
import { refusalByCaller } from '#state/admit.ts';

type JobOperations = 'jobs.list' | 'jobs.get' | 'jobs.log' | 'jobs.cancel' | 'events.stream';

export interface JobHandlerOptions {
  readonly runner: JobRunner;
  readonly events: EventHub;
  readonly files: Files;
  /** Whether the proof of a caller still counts, for a stream that outlives it. */
  readonly stillHolds: (caller: Caller) => boolean;
}

const lastBytes = 256 * 1024;

/** Looking at jobs, ending them, and the stream of what happens. */
export function jobHandlers(options: JobHandlerOptions): Pick<Handlers, JobOperations> {
  const { runner, events, files, stillHolds } = options;
  const existing = (id: string): JobRecord => {
    const record = runner.record(id);
    if (record === undefined) throw fault('not_found', `There is no job ${id}.`);
    return record;
  };
  return {
    'jobs.list': ({ query }) => {
      const limit = query.limit ?? 50;
      const jobs = runner.list(limit, query.before);
      const last = jobs.length === limit ? jobs.at(-1) : undefined;
      return { data: jobs, beside: last === undefined ? {} : { next: last.id } };
    },
    'jobs.get': ({ params }) => {
      existing(params.id);
      const job = runner.get(params.id);
      if (job === undefined) throw fault('not_found', `There is no job ${params.id}.`);
      return { data: job };
    },
    'jobs.log': ({ params }) => {
      const { checkpoint } = existing(params.id);
      const file = checkpoint['logFile'];
      if (typeof file !== 'string') return { data: { lines: [], truncated: false } };
      const place = { from: numberIn(checkpoint['logOffset']) ?? 0, to: numberIn(checkpoint['logEnd']) };
      const { text, truncated } = tailOf(files, file, place, lastBytes);
      const lines = text.split('\n').filter((line) => line !== '');
      return { data: { lines: lines.map(redact), truncated } };
    },
    'jobs.cancel': ({ params }, { caller }) => {
      refuseForeign(existing(params.id), caller);
      return { data: runner.cancel(params.id, callerLabel(caller)) };
    },
    'events.stream': (_input, call) => events.stream(call, () => stillHolds(call.caller)),
  };
}

/** Who may start an operation may also end it (contract §4); a signer only what it started itself. */
function refuseForeign(job: JobRecord, caller: Caller): void {
  const refused = refusalByCaller(job.operation, caller);
  if (refused !== undefined) throw refused;
  if (caller.class === 'signer' && job.caller.name !== caller.name) {
    throw fault('forbidden', `${specOf(job.operation).path} was asked for by somebody else.`);
  }
}

const numberIn = (value: unknown) => (typeof value === 'number' ? value : undefined);
