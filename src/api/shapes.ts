import { type Static, type TSchema, Type } from 'typebox';

/** A value that is left out, or null, where the wire has always had null. */
export const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

export const timestamp = (description: string) => Type.String({ format: 'date-time', description });

const octet = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';

export const ipv4 = (description: string) =>
  Type.String({ description, pattern: `^(${octet}\\.){3}${octet}$`, maxLength: 15 });

export const jobStates = ['queued', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted'] as const;
export type JobState = (typeof jobStates)[number];

/** Unsafe only for the type: from a tuple that has a name of its own, Type.Enum would infer any string. */
const oneOf = <const T extends readonly string[]>(values: T, description: string) =>
  Type.Unsafe<T[number]>(Type.Enum([...values], { description }));

export { oneOf };

export const PhaseShape = Type.Object({
  name: Type.String(),
  state: oneOf(['pending', 'running', 'succeeded', 'failed', 'skipped'] as const, 'where this phase is'),
  percent: nullable(Type.Number({ minimum: 0, maximum: 100 })),
  startedAt: nullable(timestamp('when it began')),
  finishedAt: nullable(timestamp('when it ended')),
  message: Type.String({ description: 'what it is doing, and for how long when it has stalled' }),
});

export const ErrorShape = Type.Object(
  {
    code: Type.String(),
    message: Type.Optional(Type.String()),
    field: Type.Optional(Type.String()),
    state: Type.Optional(Type.String()),
    allowedIn: Type.Optional(Type.Array(Type.String())),
    jobId: Type.Optional(Type.String()),
    retryAfter: Type.Optional(Type.Number({ description: 'seconds' })),
    serverTime: Type.Optional(Type.String()),
    remedy: Type.Optional(Type.String()),
  },
  { description: 'what went wrong and what the caller can do' },
);

export const JobShape = Type.Object({
  id: Type.String(),
  operation: Type.String(),
  state: oneOf(jobStates, 'where the job is'),
  phase: nullable(Type.String({ description: 'the phase that runs, or ran last' })),
  percent: nullable(Type.Number({ minimum: 0, maximum: 100, description: 'null while nobody knows' })),
  phases: Type.Array(PhaseShape),
  error: nullable(ErrorShape),
  caller: Type.String({ description: 'who asked' }),
  cancellable: Type.Boolean(),
  createdAt: timestamp('when it was asked for'),
  startedAt: nullable(timestamp('when it took its lane')),
  finishedAt: nullable(timestamp('when it ended')),
});
export type Job = Static<typeof JobShape>;
export type JobPhase = Static<typeof PhaseShape>;
export type JobError = Static<typeof ErrorShape>;

export const JobStarted = Type.Object({
  jobId: Type.String({ description: 'follow it with GET /jobs/:id or /events' }),
});

export const ConditionShape = Type.Object({
  code: Type.String({ description: 'stable, e.g. clock_not_synchronised' }),
  severity: oneOf(['info', 'warning', 'error'] as const, 'how bad it is'),
  message: Type.String({ description: 'what is wrong here' }),
  remedy: Type.String({ description: 'what to do' }),
  fixedBy: Type.Array(Type.String(), { description: 'routes that mend it, e.g. POST /command/change-host' }),
  since: timestamp('when it was first seen'),
});
export type Condition = Static<typeof ConditionShape>;

export const ListQuery = Type.Object({
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 500, description: 'how many (default 50)' })),
  before: Type.Optional(Type.String({ maxLength: 64, description: 'the `next` of the page before' })),
});

export const DryRunShape = Type.Object({
  allowed: Type.Boolean(),
  preconditions: Type.Array(Type.Object({ name: Type.String(), ok: Type.Boolean(), reason: Type.String() })),
  steps: Type.Array(Type.Object({ name: Type.String(), does: Type.String(), reversible: Type.Boolean() })),
});
