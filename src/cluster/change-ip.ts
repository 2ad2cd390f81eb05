import { join } from 'node:path';
import { foreignCheck, idleCheck, programChecks } from '#cluster/install.ts';
import { installerPhase } from '#cluster/installer-phase.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import type { JobDefinition, Phase } from '#jobs/definition.ts';

export interface ChangeIpInput {
  /** The IPv4 address that the node shall have from now on. */
  readonly ip: string;
}

export interface ChangeIpOptions extends InstallerOptions {
  /** Binds the node's name to the address in the hosts file; safe to repeat. */
  readonly bindHost: (ip: string) => Promise<void>;
  /** The address that the node has now, if it can be told. */
  readonly currentAddress: () => string | undefined;
  /** Names of the marker files that the installer's own tools read. */
  readonly marks: { readonly previousAddress: string; readonly failed: string };
}

/** The job behind POST /command/change-host on an installed node: the cluster moves to another address of the machine. */
export function changeIpDefinition(options: ChangeIpOptions): JobDefinition<ChangeIpInput> {
  const failedMark = join(options.baseDir, options.marks.failed);
  return {
    operation: 'command.changeHost',
    preconditions: () => [
      ...programChecks(options),
      idleCheck(options),
      ...[options.profile.install, options.profile.uninstall, options.profile.changeIp].map(({ pidFile }) =>
        foreignCheck(options, pidFile),
      ),
    ],
    phases: () => [bind(options), move(options)],
    finished: (_input, { state }) => {
      if (state === 'succeeded') options.files.remove(failedMark);
      else options.files.replace(failedMark, `${state}\n`);
    },
  };
}

function bind(options: ChangeIpOptions): Phase<ChangeIpInput> {
  return {
    name: 'bind',
    does: 'keeps the present address for the way back, and binds the name of the node to the new one',
    reversible: true,
    weight: 2,
    cancellable: true,
    afterCrash: 'repeat',
    run: async ({ input, checkpoint, remember, progress }) => {
      progress(null, `binding ${input.ip}`);
      // Of the first try, before anything has changed: a repeated one would see the new address already.
      if (checkpoint['before'] === undefined) remember({ before: options.currentAddress() ?? '' });
      const before = String(checkpoint['before'] ?? options.currentAddress() ?? '');
      if (before !== '' && before !== input.ip) {
        options.files.replace(join(options.baseDir, options.marks.previousAddress), before);
      }
      await options.bindHost(input.ip);
    },
  };
}

function move(options: ChangeIpOptions): Phase<ChangeIpInput> {
  return installerPhase(options, {
    name: 'move',
    command: options.profile.changeIp,
    effect: 'certificates and services of the cluster get the new address',
  });
}
