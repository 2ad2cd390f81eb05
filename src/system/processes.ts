import { basename } from 'node:path';
import type { Files } from '#host/files.ts';
import type { InstallerProcess } from '#state/facts.ts';
import { startTicks } from '#system/machine.ts';

/** A pid file is written right after the start of its process; clocks and file systems round. */
const slackMs = 5000;

/**
 * The process that a pid file names. Alive only when /proc has it, it is no zombie, and it can be the one that was
 * meant: its command line is an installer's, or it started before the file was written (a reused pid starts after).
 * Undefined: no such file, or nothing in it yet.
 */
export function installerProcess(
  files: Files,
  path: string,
  installerNames: readonly string[],
): InstallerProcess | undefined {
  const text = files.readText(path, 4096)?.trim();
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const pid = Number(text);
  return { pid, alive: isAlive(files, pid, files.modifiedAt(path), installerNames) };
}

function isAlive(
  files: Files,
  pid: number,
  writtenAt: number | undefined,
  installerNames: readonly string[],
): boolean {
  const stat = quietText(files, `/proc/${pid}/stat`);
  if (stat === undefined || /\) [ZX] /.test(stat)) return false;
  const words = commandLine(files, String(pid)).map((word) => basename(word));
  if (words.some((word) => installerNames.includes(word))) return true;
  const startedAt = startMs(files, stat);
  return startedAt !== undefined && writtenAt !== undefined && startedAt <= writtenAt + slackMs;
}

function startMs(files: Files, stat: string): number | undefined {
  const ticks = startTicks(stat);
  const boot = /^btime (\d+)/m.exec(quietText(files, '/proc/stat') ?? '')?.[1];
  return ticks === undefined || boot === undefined ? undefined : Number(boot) * 1000 + ticks * 10;
}

/** Whether some process's command line begins with these words. */
export function isEngineRunning(files: Files, words: readonly string[]): boolean {
  if (words.length === 0) return false;
  return files
    .list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .some((pid) => isCommand(commandLine(files, pid), words));
}

/** `k3s server …`, `/usr/local/bin/k3s server`, or the title that an engine gives itself: `k3s-server`. */
function isCommand(line: readonly string[], words: readonly string[]): boolean {
  const [program = '', ...rest] = line.flatMap((word) => word.split(' '));
  const said = [...basename(program).split('-'), ...rest];
  return words.every((word, index) => said[index] === word);
}

function commandLine(files: Files, pid: string): string[] {
  return (quietText(files, `/proc/${pid}/cmdline`) ?? '').split('\0').filter(Boolean);
}

/** Processes come and go while they are looked at. */
function quietText(files: Files, path: string): string | undefined {
  try {
    return files.readText(path);
  } catch {
    return undefined;
  }
}
