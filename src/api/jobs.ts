import { Type } from 'typebox';
import type { OperationSpec } from '#api/operation.ts';
import { JobShape, ListQuery } from '#api/shapes.ts';

const JobParams = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) });

/** Long work and the stream of what happens (contract §4, §10). */
export const jobOperations = {
  'jobs.list': {
    method: 'GET',
    path: '/jobs',
    summary: 'Jobs, newest first',
    origin: 'added',
    query: ListQuery,
    data: Type.Array(JobShape),
    statuses: [503],
  },
  'jobs.get': {
    method: 'GET',
    path: '/jobs/:id',
    summary: 'One job',
    origin: 'added',
    params: JobParams,
    data: JobShape,
    statuses: [404, 503],
  },
  'jobs.log': {
    method: 'GET',
    path: '/jobs/:id/log',
    summary: 'The end of what the job has printed, with secrets taken out',
    origin: 'added',
    params: JobParams,
    data: Type.Object({ lines: Type.Array(Type.String()), truncated: Type.Boolean() }),
    statuses: [404, 503],
  },
  'jobs.cancel': {
    method: 'DELETE',
    path: '/jobs/:id',
    summary: 'Cancel a job where its phase allows it',
    origin: 'added',
    params: JobParams,
    data: JobShape,
    message: 'cancelling',
    statuses: [404, 409, 503],
  },
  'events.stream': {
    method: 'GET',
    path: '/events',
    summary: 'Server-sent events; Last-Event-ID resumes, also across a restart',
    origin: 'added',
    raw: 'text/event-stream',
    statuses: [429],
    cli: false,
  },
} as const satisfies Record<string, OperationSpec>;
