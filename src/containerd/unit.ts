import { fault } from '#api/errors.ts';
import type { RuntimeUnit } from '#containerd/config-switch.ts';
import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { causeChain } from '#lib/fault.ts';

export interface SystemdUnitOptions {
  readonly exec: Exec;
  readonly files: Files;
  readonly sandboxed: boolean;
}

const unit = 'containerd.service';

/** containerd as a unit of systemd. Its containers live on through a restart: each has a shim of its own. */
export function systemdRuntimeUnit({ exec, files, sandboxed }: SystemdUnitOptions): RuntimeUnit {
  return {
    check: async () => {
      if (sandboxed) {
        throw fault(
          'sandbox',
          'The runtime would have to be restarted once, to look for mirrors in certs.d.',
        );
      }
      // sd_booted(3): the folder is there exactly when systemd is the system manager.
      if (!files.exists('/run/systemd/system')) {
        throw fault(
          'systemd_unavailable',
          'The runtime would have to be restarted once, and systemd does not run here.',
        );
      }
    },
    restart: async () => {
      try {
        // Returns when the unit is up again (Type=notify), or has failed.
        await exec.run('systemctl', ['--no-ask-password', 'restart', unit], { timeoutMs: 120_000 });
      } catch (error) {
        throw fault('systemd_unavailable', `${unit} could not be restarted: ${causeChain(error)}`, {
          cause: error,
        });
      }
    },
  };
}
