import { spawn } from 'node:child_process';
import { livingIn } from '#host/boot.ts';
import type { Launcher, LongRunSpec } from '#host/longrun.ts';
import { errnoOf } from '#lib/fault.ts';

/** Where systemd is not process 1: a session of its own, which the end of the daemon does not touch. */
export class DetachedLauncher implements Launcher {
  readonly name = 'detached';

  launch(spec: LongRunSpec, argv: readonly string[]): Promise<void> {
    const [file, ...args] = argv;
    const child = spawn(file ?? '/bin/sh', args, {
      cwd: spec.cwd,
      env: { ...spec.env, ...spec.secretEnv },
      stdio: 'ignore',
      detached: true,
    });
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('spawn', () => {
        child.unref();
        resolve();
      });
    });
  }

  signal(_id: string, pid: number, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    signalSession(pid, signal);
    return Promise.resolve();
  }

  cleanUp(): void {
    // Nothing was put aside: secrets went through the environment of the child alone.
  }
}

/** Signals every process of a session, its groups included; one that has just ended is no error. */
export function signalSession(session: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  for (const pid of livingIn(session)) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (errnoOf(error) !== 'ESRCH') throw error;
    }
  }
}
