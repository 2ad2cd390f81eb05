import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Terminal, UsageError } from '#cli/terminal.ts';
import { formatKeyFile, parseKeyFile, type SigningKey } from '#client/sign.ts';
import { errnoOf, messageOf } from '#lib/fault.ts';

/** The files of the person who runs beosctl: keys, bodies, passwords. The only file of the CLI that opens any. */

export function defaultKeyFile(terminal: Pick<Terminal, 'home' | 'env'>): string {
  return join(terminal.env['XDG_CONFIG_HOME'] ?? join(terminal.home, '.config'), 'beosd', 'key.json');
}

export function fileExists(path: string): boolean {
  return existsSync(path);
}

/** The key; refuses a file that others can read, as ssh does. */
export function readKey(path: string): SigningKey {
  const text = readText(path, 'Make one with: beosctl key new');
  if ((statSync(path).mode & 0o077) !== 0) {
    throw new UsageError(`${path} can be read by others`, `Close it with: chmod 600 ${path}`);
  }
  try {
    return parseKeyFile(text);
  } catch (error) {
    throw new UsageError(`${path}: ${messageOf(error)}`, 'Make a new one with: beosctl key new --key FILE');
  }
}

/** Writes a new key, 0600; an existing file is never overwritten, for it may own a node. */
export function writeKey(path: string, key: SigningKey): void {
  mkdirSync(dirname(resolve(path)), { recursive: true, mode: 0o700 });
  try {
    writeFileSync(path, formatKeyFile(key), { flag: 'wx', mode: 0o600 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    throw new UsageError(`${path} exists already`, 'Name another file with --key FILE, or move it away.');
  }
}

/** A text file of the user, or standard input for `-`. */
export async function readInput(terminal: Terminal, path: string): Promise<string> {
  return path === '-' ? await terminal.readStdin() : readText(resolve(terminal.cwd, path));
}

/** A secret: the first line of a file, of standard input, or of a prompt when standard input is a terminal. */
export async function readSecret(terminal: Terminal, path: string, what: string): Promise<string> {
  const text =
    path === '-' && terminal.inIsTty
      ? await terminal.readSecret(`${what}: `)
      : await readInput(terminal, path);
  return text.replace(/\r?\n[\s\S]*$/, '');
}

function readText(path: string, remedy?: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${errnoOf(error) ?? messageOf(error)}`, remedy);
  }
}
