import { dirname } from 'node:path';
import { fault } from '#api/errors.ts';
import { errnoOf, messageOf } from '#lib/fault.ts';

/**
 * Runs one act on a mount point, or on the folder that it lies in. What the file system refuses is no fault of ours:
 * it becomes `mount_failed`, in words that say what to do. Anything else that is thrown stays what it is.
 */
export function onFolder<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined || !/^E[A-Z0-9]+$/.test(errno)) throw error;
    throw fault('mount_failed', whatToDo(errno, path) ?? `${path} cannot be used: ${messageOf(error)}.`, {
      cause: error,
    });
  }
}

function whatToDo(errno: string, path: string): string | undefined {
  const within = dirname(path);
  switch (errno) {
    case 'EEXIST':
      return `Somebody else has made ${path} just now; move it out of the way, or try again.`;
    case 'EROFS':
      return `${within} is on a file system that can only be read, so ${path} cannot be made or removed.`;
    case 'ENOSPC':
    case 'EDQUOT':
      return `The file system of ${within} is full, so ${path} cannot be made; free some space.`;
    case 'EACCES':
    case 'EPERM':
      return `beosd may not make, remove or read ${path}; look at who may write to ${within}, and whether it is immutable.`;
    default:
      return undefined;
  }
}
