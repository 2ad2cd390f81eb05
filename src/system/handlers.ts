import type { Static } from 'typebox';
import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { RawAnswer } from '#api/operation.ts';
import type { Handlers, Operations } from '#api/operations.ts';
import type { Snapshot } from '#state/observatory.ts';
import { type ProcessMeter, renderMetrics, type Tallies } from '#system/metrics.ts';

export type AuditRow = Static<Operations['system.audit']['data']>[number];

export interface SystemHandlerOptions {
  readonly snapshot: () => Snapshot;
  readonly meter: ProcessMeter;
  /** Numbers that others keep: jobs by state, the last event, processes started. */
  readonly tallies: () => Tallies;
  /** A page of the audit, newest first. */
  readonly audit: (page: { limit: number; before: number | undefined }) => readonly AuditRow[];
}

type SystemHandlers = Pick<
  Handlers,
  'system.status' | 'system.conditions' | 'system.live' | 'system.ready' | 'system.metrics' | 'system.audit'
>;

/** Operations that tell how the node is; all answer from memory, the audit from the store. */
export function systemHandlers(options: SystemHandlerOptions): SystemHandlers {
  return {
    'system.status': () => ({ data: options.snapshot().status }),
    'system.conditions': (_input, { caller }) => ({
      data: options
        .snapshot()
        .conditions.map((condition) => (seesReasons(caller) ? condition : { code: condition.code })),
    }),
    'system.live': () => ({ data: { alive: true } }),
    'system.ready': (_input, { caller }) => ready(options.snapshot(), caller),
    'system.metrics': async () => metrics(options),
    'system.audit': ({ query }) => audit(options, query.limit ?? 50, query.before),
  };
}

function seesReasons(caller: Caller): boolean {
  return caller.class === 'root' || caller.class === 'owner' || caller.class === 'workload';
}

function ready({ state, because, facts }: Snapshot, caller: Caller) {
  const reasons = [
    ...(state === 'checking' ? [`checking: ${because}`] : []),
    ...(state === 'shutdown' ? [`going down: ${because}`] : []),
    ...(facts.store.durable
      ? []
      : [`the store cannot be written: ${facts.store.reason ?? 'unknown reason'}`]),
    ...Object.values(facts.reported)
      .flat()
      .filter(({ code }) => code === 'runtime_unavailable')
      .map(({ message }) => message),
  ];
  const isReady = reasons.length === 0;
  return {
    data: { ready: isReady, ...(seesReasons(caller) ? { reasons } : {}) },
    ...(isReady ? {} : { status: 503 as const, message: 'not ready' }),
  };
}

async function metrics(options: SystemHandlerOptions): Promise<RawAnswer> {
  const text = renderMetrics(options.snapshot(), options.tallies(), await options.meter.read());
  return { raw: text, contentType: 'text/plain; version=0.0.4; charset=utf-8' };
}

function audit(options: SystemHandlerOptions, limit: number, before: string | undefined) {
  const from = before === undefined ? undefined : Number(before);
  if (from !== undefined && !Number.isSafeInteger(from)) {
    throw fault('invalid_input', `${before} is no id of an audit row.`, { field: 'before' });
  }
  const rows = options.audit({ limit, before: from });
  const last = rows.length < limit ? undefined : rows.at(-1)?.id;
  return { data: [...rows], ...(last === undefined ? {} : { beside: { next: String(last) } }) };
}
