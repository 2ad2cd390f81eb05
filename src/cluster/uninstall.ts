import { join } from 'node:path';
import { fault } from '#api/errors.ts';
import { foreignCheck, programChecks } from '#cluster/install.ts';
import { installerPhase } from '#cluster/installer-phase.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import type { JobDefinition, Phase } from '#jobs/definition.ts';
import { messageOf } from '#lib/fault.ts';

export type UninstallInput = Readonly<Record<string, never>>;

/** The job behind POST /command/uninstall. A running installation is stopped first, by the runner's take-over. */
export function uninstallDefinition(options: InstallerOptions): JobDefinition<UninstallInput> {
  return {
    operation: 'command.uninstall',
    takesOver: ['command.install'],
    preconditions: () => [
      ...programChecks(options),
      foreignCheck(options, options.profile.install.pidFile),
      foreignCheck(options, options.profile.uninstall.pidFile),
    ],
    phases: () => [uninstall(options), release(options)],
  };
}

function uninstall(options: InstallerOptions): Phase<UninstallInput> {
  return installerPhase(options, {
    name: 'uninstall',
    command: options.profile.uninstall,
    effect: 'the cluster, its data and its users are removed',
    first: (jobId) => stopOthers(options, jobId),
  });
}

/** The take-over has ended the job that runs; a run may go on without one, see {@link idleCheck}. */
async function stopOthers({ longRun, program }: InstallerOptions, jobId: string): Promise<void> {
  for (const id of longRun.ids()) {
    if (id === jobId || longRun.find(id).kind !== 'running') continue;
    await longRun.stop(id).catch((cause: unknown) => {
      const why = `An earlier run of ${program} could not be stopped: ${messageOf(cause)}.`;
      throw fault('conflict', why, { cause });
    });
  }
}

function release(options: InstallerOptions): Phase<UninstallInput> {
  return {
    name: 'release',
    does: 'checks that nothing is installed any more, removes the marks of failed work, and lets go of the owner',
    reversible: false,
    weight: 2,
    cancellable: false,
    afterCrash: 'repeat',
    run: ({ progress }) => {
      progress(null, 'letting go of the owner');
      const mark = join(options.baseDir, options.installedFile);
      if (options.files.exists(mark)) {
        throw fault('installer_failed', `${options.program} ended well, but ${mark} is still there.`);
      }
      // An installer that died by another hand than ours has left its pid file: without a node it failed at nothing.
      for (const name of options.failureMarks) options.files.remove(join(options.baseDir, name));
      options.claim.release();
      return Promise.resolve();
    },
  };
}
