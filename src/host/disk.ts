import { accessSync, constants, existsSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
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

  isAlive(pid: number): boolean {
    return startOf(pid) !== undefined;
  }
}

function allows(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
