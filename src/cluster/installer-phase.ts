import type { InstallerCommand } from '#cluster/installer-profile.ts';
import { makeLogFolder, nodeValues, runInstaller } from '#cluster/installer-run.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import type { Phase, PhaseContext } from '#jobs/definition.ts';

export interface InstallerStep {
  readonly name: string;
  readonly command: InstallerCommand;
  /** What the command does to the node, for people. */
  readonly effect: string;
  /** Done before the command starts; safe to repeat. */
  readonly first?: (jobId: string) => Promise<void>;
}

/**
 * The phase of a job that is one run of the installer with what the node knows, nothing of the caller's. It cannot be
 * taken back or cancelled; after a crash of ours the run is found again.
 */
export function installerPhase<Input>(
  options: InstallerOptions,
  { name, command, effect, first }: InstallerStep,
): Phase<Input> {
  const run = async (context: PhaseContext<Input>) => {
    makeLogFolder(options);
    await first?.(context.jobId);
    await runInstaller(options, context, {
      command,
      values: nodeValues(options),
      redact: (text) => text,
      firstStep: 'waiting for the installer',
    });
  };
  return {
    name,
    does: `runs ${options.program} ${command.argv[0]}: ${effect}`,
    reversible: false,
    weight: 98,
    cancellable: false,
    afterCrash: 'resume',
    run,
    resume: run,
  };
}
