import { accessSync, constants, existsSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { startOf } from '#host/boot.ts';

/** Questions about file systems and programs that need no child process. */
export class Disk {
  /** Of the file system that holds `path` or its nearest existing ancestor (statfs(2)); access(2) says whether it can be written. */
  usage(path: string): { readonly freeBytes: number; readonly readOnly: boolean } {
    let at = path;
    while (!existsSync(at) && at !== '/') at = dirname(at);
    const { bavail, bsize } = statfsSync(at);
    return { freeBytes: bavail * bsize, readOnly: !allows(at, constants.W_OK) };
  }

  isExecutable(path: string): boolean {
    return allows(path, constants.X_OK) && statSync(path).isFile();
  }

  /** As the port of the installer wants it (cluster/ports.ts). */
  isMeant(pid: number, pidFile: string, program: string): boolean {
    const ticks = startOf(pid);
    if (ticks === undefined) return false;
    if (commandLine(pid).some((word) => basename(word) === basename(program))) return true;
    const writtenAt = statSync(pidFile, { throwIfNoEntry: false })?.mtimeMs;
    return writtenAt !== undefined && bootedAt() + Number(ticks) * 10 <= writtenAt + slackMs;
  }
}

/** A pid file is written right after the start of its process; clocks and file systems round. */
const slackMs = 5000;

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return []; // it has just ended
  }
}

/** ms since the epoch, as the clock is now (proc(5), btime). */
function bootedAt(): number {
  return Number(/^btime (\d+)/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1]) * 1000;
}

function allows(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
