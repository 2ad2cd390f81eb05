import { fault } from '#api/errors.ts';
import type { DryRun } from '#api/operation.ts';
import type { JobDefinition } from '#jobs/definition.ts';
import type { JobRecord } from '#jobs/record.ts';

/** Whether the operation ends a running job and takes its place. */
export function canTakeOver<I>(definition: JobDefinition<I>, job: JobRecord): boolean {
  return definition.takesOver?.includes(job.operation) ?? false;
}

/** What a start would do now, with `busy` in its lane; nothing is done. */
export async function planOf<I>(
  definition: JobDefinition<I>,
  input: I,
  busy: readonly JobRecord[],
): Promise<DryRun> {
  const checks = await definition.preconditions(input);
  const preconditions = checks.map(({ name, ok, reason }) => ({ name, ok, reason }));
  const inTheWay = busy.find((job) => !canTakeOver(definition, job));
  preconditions.push({
    name: 'lane',
    ok: inTheWay === undefined,
    reason:
      inTheWay === undefined
        ? 'nothing stands in the way'
        : `${inTheWay.operation} is running (job ${inTheWay.id})`,
  });
  const stops = busy
    .filter((job) => canTakeOver(definition, job))
    .map((job) => ({
      name: 'take-over',
      does: `stop ${job.operation} (job ${job.id})`,
      reversible: false,
    }));
  const steps = definition.phases(input).map(({ name, does, reversible }) => ({ name, does, reversible }));
  return { allowed: preconditions.every((each) => each.ok), preconditions, steps: [...stops, ...steps] };
}

/** Throws the first precondition that does not hold. */
export async function refuseUnmet<I>(definition: JobDefinition<I>, input: I): Promise<void> {
  const unmet = (await definition.preconditions(input)).find((each) => !each.ok);
  if (unmet !== undefined) throw fault(unmet.code ?? 'impossible', unmet.reason);
}
