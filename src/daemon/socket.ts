import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Files } from '#host/files.ts';
import { errnoOf } from '#lib/fault.ts';

/** sun_path has 108 bytes with its final NUL (unix(7)). */
const longestPath = 107;

/** Where the socket really goes: a path that is too long for the kernel moves to the temp folder (contract §10). */
export function socketPath(wanted: string, pid: number): string {
  if (Buffer.byteLength(wanted) <= longestPath) return wanted;
  return join(process.env['TMPDIR'] ?? tmpdir(), `beosd-${pid}.sock`);
}

/**
 * Makes room for the socket: its folder, 0700, and no dead socket of a daemon that was killed.
 *
 * @throws Error when another daemon answers there
 */
export async function clearSocket(files: Files, path: string): Promise<void> {
  files.makeDir(dirname(path), 0o700);
  if (!files.exists(path)) return;
  if (await answers(path)) throw new Error(`another beosd is running (it answers on ${path})`);
  files.remove(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => {
      const errno = errnoOf(error);
      if (errno === 'ECONNREFUSED' || errno === 'ENOENT' || errno === 'ENOTSOCK') resolve(false);
      else reject(error);
    });
  });
}
