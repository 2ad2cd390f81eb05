import type { InstallerOptions } from '#cluster/ports.ts';

/** An open job, as the journal has it. */
export interface OpenJob {
  readonly id: string;
  readonly input: unknown;
}

/**
 * At start, before the open jobs are taken up: removes what is left of jobs that the journal knows to be over, secrets
 * first. Not sooner: a run that is forgotten while its job is open would be started again. A process that still runs keeps
 * its folder, whoever it belongs to.
 */
export function sweepLeftovers(
  { secrets, longRun }: Pick<InstallerOptions, 'secrets' | 'longRun'>,
  open: readonly OpenJob[],
): void {
  const ids = new Set(open.map(({ id }) => id));
  secrets.sweep(new Set(open.flatMap(({ id, input }) => [`${id}.env`, ...secretsIn(input)])));
  for (const id of longRun.ids()) if (!ids.has(id)) longRun.forget(id);
}

function secretsIn(input: unknown): string[] {
  if (typeof input !== 'object' || input === null || !('secret' in input)) return [];
  return typeof input.secret === 'string' ? [input.secret] : [];
}
