import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { within } from './deadline.ts';

const waitForOtherBuild = 15 * 60_000;
const unusedFor = 7 * 24 * 3600_000;

/** Where the lab keeps trees, images and machine states: outside the repository, shared by all work trees. */
export function labCache(): string {
  return join(process.env['BEOSD_CACHE'] ?? join(homedir(), '.cache', 'beosd'), 'lab');
}

/** A short name for everything that decides what a cached thing contains. */
export function recipeHash(recipe: unknown): string {
  return createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 16);
}

/**
 * Makes the folder `<cache>/<kind>-<hash of recipe>` once and returns its path. The build writes into a folder of
 * another name, which is renamed when it is complete, so a build that was cut off is never taken for a finished
 * one. A lock of the kernel keeps a second test process waiting instead of building the same again.
 */
export async function cached(
  kind: string,
  recipe: unknown,
  build: (into: string) => Promise<void>,
): Promise<string> {
  const target = join(labCache(), `${kind}-${recipeHash(recipe)}`);
  if (await used(target)) return target;
  await mkdir(labCache(), { recursive: true });
  await using _lock = await fileLock(`${target}.lock`);
  if (await used(target)) return target;
  const partial = `${target}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial);
  await build(partial);
  await rename(partial, target);
  await dropUnused(kind);
  return target;
}

/** True when the folder is there; its time is set, so that `dropUnused` sees what is still wanted. */
async function used(path: string): Promise<boolean> {
  const now = new Date();
  return await utimes(path, now, now).then(
    () => true,
    () => false,
  );
}

/** Removes what an older recipe left behind and no run has asked for in a week. */
async function dropUnused(kind: string): Promise<void> {
  for (const name of await readdir(labCache())) {
    if (!name.startsWith(`${kind}-`)) continue;
    const path = join(labCache(), name);
    const found = await stat(path).catch(() => undefined); // another build may just have been finished, or removed
    if (found !== undefined && Date.now() - found.mtimeMs > unusedFor)
      await rm(path, { recursive: true, force: true });
  }
}

/** Holds an exclusive lock on `path` until disposed; the kernel lets go of it too when this process dies. */
export async function fileLock(path: string): Promise<AsyncDisposable> {
  const holder = spawn('flock', ['--exclusive', path, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const ended = new Promise<void>((resolve) => holder.once('close', () => resolve()));
  const held = new Promise<void>((resolve, reject) => {
    holder.once('error', reject);
    createInterface({ input: holder.stdout }).once('line', () => resolve());
    void ended.then(() => reject(new Error(`lab: no lock on ${path}`)));
  });
  await within(waitForOtherBuild, `the lock ${path}`, held);
  return {
    async [Symbol.asyncDispose]() {
      holder.stdin.end();
      await ended;
    },
  };
}
