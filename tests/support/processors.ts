import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';

/** Whether what is measured and what makes the load can have a processor each. */
export const processorsApart = availableParallelism() >= 2;

/** The command that runs `file` on one processor only (taskset(1)); undefined: on any. */
export function onProcessor(
  processor: number | undefined,
  file: string,
  args: readonly string[],
): [string, string[]] {
  if (processor === undefined || !processorsApart) return [file, [...args]];
  return ['taskset', ['--cpu-list', String(processor), file, ...args]];
}

/** From now on this process, and what it starts, stays on one processor. */
export function stayOn(processor: number): void {
  if (!processorsApart) return;
  execFileSync('taskset', ['--all-tasks', '--cpu-list', '--pid', String(processor), String(process.pid)], {
    stdio: 'ignore',
  });
}
