import type { InstallerOptions } from '#cluster/ports.ts';

/** An open job, as the journal has it. */
export interface OpenJob {
  readonly id: string;
  readonly input: unknown;
}

/**
 * At start, before the open jobs are taken up: removes what is left of jobs that the journal knows to be over, secrets
 * first. Not sooner: a run that is forgotten while its job is open would be started again. A process that still runs keeps
 * its folder, whoever it belongs to. What cannot be removed keeps nothing else from it.
 *
 * @throws the first failure, after everything was tried
 */
export function sweepLeftovers(
  { secrets, longRun }: Pick<InstallerOptions, 'secrets' | 'longRun'>,
  open: readonly OpenJob[],
): void {
  const ids = new Set(open.map(({ id }) => id));
  const failures: unknown[] = [];
  const attempt = (act: () => void) => {
    try {
      act();
    } catch (error) {
      failures.push(error);
    }
  };
  attempt(() => secrets.sweep(new Set(open.flatMap(({ id, input }) => [`${id}.env`, ...secretsIn(input)]))));
  attempt(() => {
    for (const id of longRun.ids()) if (!ids.has(id)) attempt(() => longRun.forget(id));
  });
  if (failures.length > 0) throw failures[0];
}

function secretsIn(input: unknown): string[] {
  if (typeof input !== 'object' || input === null || !('secret' in input)) return [];
  return typeof input.secret === 'string' ? [input.secret] : [];
}
