import { mkdir, mkdtemp, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { labCache } from './cache.ts';

/** The cgroup hierarchies a container of the lab may own a group in: version 2, or version 1 with its hybrid. */
const hierarchies = ['/sys/fs/cgroup', '/sys/fs/cgroup/systemd', '/sys/fs/cgroup/unified'];

/** Makes the folder of one running machine, after removing those whose owner was killed before it could. */
export async function makeRunFolder(kind: string): Promise<string> {
  const base = join(labCache(), 'run');
  await mkdir(base, { recursive: true });
  for (const name of await readdir(base)) {
    const folder = join(base, name);
    const owner = await readFile(join(folder, 'owner'), 'utf8').catch(() => undefined);
    // Without words it is being made at this moment, by a test that runs beside us.
    if (owner !== undefined && owner !== '' && owner !== (await startMark(Number.parseInt(owner, 10)))) {
      await removeRunFolder(folder);
    }
  }
  const folder = await mkdtemp(join(base, `${kind}-`));
  await writeFile(join(folder, 'owner'), (await startMark(process.pid)) ?? '');
  return folder;
}

/** The machines that this process has and has not disposed of. */
export async function ownRuns(): Promise<string[]> {
  const base = join(labCache(), 'run');
  const mine: string[] = [];
  for (const name of await readdir(base)) {
    const owner = await readFile(join(base, name, 'owner'), 'utf8').catch(() => '');
    if (Number.parseInt(owner, 10) === process.pid) mine.push(name);
  }
  return mine;
}

/** Removes a machine's folder and the cgroups named after it; its processes are gone by then. */
export async function removeRunFolder(folder: string): Promise<void> {
  for (const hierarchy of hierarchies) await removeGroup(join(hierarchy, groupOf(folder)));
  await rm(folder, { recursive: true, force: true });
}

/** The name of a machine's cgroup, and of the container in it. */
export function groupOf(folder: string): string {
  return `beosd-lab-${folder.slice(-6).toLowerCase()}`;
}

/** `<pid> <start time>` of a process that is there: a pid alone may have been given to another one since. */
async function startMark(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  // The name, in brackets, may contain spaces; the start time is field 22 of all.
  return stat && `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`;
}

async function removeGroup(path: string): Promise<void> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => undefined);
  if (entries === undefined) return;
  for (const entry of entries) if (entry.isDirectory()) await removeGroup(join(path, entry.name));
  await rmdir(path).catch(() => undefined); // busy while a last process is being reaped: an empty group costs nothing
}
