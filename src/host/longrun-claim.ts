import { join } from 'node:path';
import { livingIn, startOf } from '#host/boot.ts';
import type { Files } from '#host/files.ts';
import { errnoOf } from '#lib/fault.ts';

/** Who runs a run: enough to recognise the process for good. */
export interface Claim {
  readonly pid: number;
  readonly startTime: string;
  readonly boot: string;
}

/** Written in place of a pid by a daemon that has given up on a runner: the runner will find its run taken. */
export const abandoned = 'abandoned';

/** The claim of a run. `unreadable`: its text was lost with the power, as the file system keeps names before content. */
export function readClaim(files: Files, dir: string): Claim | 'unreadable' | typeof abandoned | undefined {
  const text = textIn(files, join(dir, 'claim'));
  if (text === undefined) return undefined;
  if (text.trim() === abandoned) return abandoned;
  // Never 0 or 1: a signal to them would be one to ourselves, or to everybody.
  const [, pid, startTime, boot] = /^([1-9]\d{1,9}|[2-9]) (\d+) (\S+) \w+\n$/.exec(text) ?? [];
  if (pid === undefined || startTime === undefined || boot === undefined) return 'unreadable';
  return { pid: Number(pid), startTime, boot };
}

/** What is there but is no file of that size was not written by a runner; other failures may pass and are thrown. */
function textIn(files: Files, path: string): string | undefined {
  try {
    return files.readText(path, 4096);
  } catch (error) {
    if (errnoOf(error) === 'EISDIR' || error instanceof RangeError) return '';
    throw error;
  }
}

/** The exit code that the runner has written; undefined while there is none. */
export function readExit(files: Files, dir: string): number | undefined {
  const code = /^(\d{1,3})\n$/.exec(textIn(files, join(dir, 'exit')) ?? '')?.[1];
  return code === undefined ? undefined : Number(code);
}

/**
 * The processes of the run: the runner, and, should somebody have killed just the runner, what is left of its session. A
 * command whose runner is gone still runs, and nothing may be started beside it. The kernel does not give the number of
 * a session away while it has members, so a stranger with that number means that the session is gone.
 */
export function livingMembers(claim: Claim): number[] {
  const startTime = startOf(claim.pid);
  if (startTime !== undefined && startTime !== claim.startTime) return [];
  return livingIn(claim.pid);
}

/** As {@link livingMembers}, without looking further while the runner itself is there. */
export function isAlive(claim: Claim): boolean {
  return startOf(claim.pid) === claim.startTime || livingMembers(claim).length > 0;
}
