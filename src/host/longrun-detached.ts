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
    // TERM is for the runner, which passes it on; without a runner, and for KILL, everybody is meant.
    if (signal === 'SIGKILL' || !send(pid, signal)) signalSession(pid, signal);
    return Promise.resolve();
  }

  cleanUp(): void {
    // Nothing was put aside: secrets went through the environment of the child alone.
  }
}

/** Signals the group of a session's leader and whoever of the session has left it. Who has just ended is no error. */
export function signalSession(session: number, signal: 'SIGTERM' | 'SIGKILL'): void {
  for (const target of [-session, ...livingIn(session, 'strays')]) send(target, signal);
}

/** False when there is nobody of that number. */
function send(target: number, signal: 'SIGTERM' | 'SIGKILL'): boolean {
  try {
    process.kill(target, signal);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
    throw error;
  }
}
