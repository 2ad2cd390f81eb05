import type { JobError } from '#api/shapes.ts';
import type { JobDefinition, Phase, PhaseContext } from '#jobs/definition.ts';
import { Interrupted } from '#jobs/outcome.ts';
import type { JobRecord } from '#jobs/record.ts';
import { ruleOf } from '#state/policy.ts';

/** Why a job that is found open has to be let go; undefined: it is gone on with. */
export function lostReason(
  job: JobRecord,
  definition: JobDefinition<never> | undefined,
): JobError | undefined {
  if (definition === undefined)
    return { code: 'internal', message: 'This beosd does not know the operation.' };
  const is = (state: JobRecord['phases'][number]['state']) => job.phases.some((each) => each.state === state);
  // It may have been done since then, or be wanted no more: nobody expects a machine to go down as its daemon starts.
  if (is('running') || !is('pending') || ruleOf(job.operation).withoutStore !== true) return undefined;
  return { code: 'interrupted', message: 'The daemon ended before it came to that; ask for it again.' };
}

/** Goes on with a phase that a crash has cut off, in the way that it allows. */
export async function resumePhase<I>(phase: Phase<I>, context: PhaseContext<I>): Promise<void> {
  if (phase.afterCrash === 'repeat') await phase.run(context);
  else if (phase.afterCrash === 'resume' && phase.resume !== undefined) await phase.resume(context);
  else throw new Interrupted(`The daemon ended during ${phase.name}, which cannot be taken up again.`);
}
