import { access, constants, mkdir } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { SystemExec } from '#host/exec.ts';
import { fileLock, labCache } from './cache.ts';
import { debianSources } from './tree.ts';

export type LabTier = 'container' | 'guest';

/** Debian package → the program that shows that it is installed. */
const needed: Readonly<Record<LabTier, Readonly<Record<string, string>>>> = {
  container: { mmdebstrap: 'mmdebstrap', 'systemd-container': 'systemd-nspawn', 'util-linux': 'nsenter' },
  guest: {
    mmdebstrap: 'mmdebstrap',
    'qemu-system-x86': 'qemu-system-x86_64',
    'qemu-utils': 'qemu-img',
    'busybox-static': 'busybox',
    cpio: 'cpio',
    e2fsprogs: 'mke2fs',
  },
};

/**
 * Undefined when the lab can run here, else the reason for which its tests skip aloud. What is missing is installed
 * from the machine's own apt sources, once. With `CI=true` everything is to be tested: then only a kind of machine for
 * which there is no lab is a reason to skip, and any other is an error.
 */
export async function labAvailable(tier: LabTier): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'the lab needs Linux';
  if (tier === 'guest' && process.arch !== 'x64') return 'the guest of the lab is made for x86-64 only';
  return skipOrFail(await whyNotHere(tier), process.env['CI']);
}

/** @throws Error when there is a reason and this is an integration, whose result would say nothing about the lab */
export function skipOrFail(reason: string | undefined, ci: string | undefined): string | undefined {
  if (reason !== undefined && ci === 'true') throw new Error(`with CI=true the lab has to run: ${reason}`);
  return reason;
}

async function whyNotHere(tier: LabTier): Promise<string | undefined> {
  if (process.getuid?.() !== 0)
    return 'the lab needs root: it boots machines with mounts and namespaces of their own';
  if ((await debianSources()) === '') return 'the lab needs apt sources for Debian bookworm on this machine';
  const missing = await missingPackages(tier);
  if (missing.length === 0) return undefined;
  await mkdir(labCache(), { recursive: true });
  await using _lock = await fileLock(join(labCache(), 'apt.lock'));
  return await install(await missingPackages(tier));
}

async function missingPackages(tier: LabTier): Promise<string[]> {
  const missing: string[] = [];
  for (const [name, program] of Object.entries(needed[tier]))
    if (!(await onPath(program))) missing.push(name);
  return missing;
}

async function onPath(program: string): Promise<boolean> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  for (const folder of folders) {
    const found = await access(join(folder, program), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}

async function install(packages: readonly string[]): Promise<string | undefined> {
  if (packages.length === 0) return undefined;
  const exec = new SystemExec();
  const options = {
    timeoutMs: 10 * 60_000,
    maxOutputBytes: 64 * 1024 * 1024,
    env: { DEBIAN_FRONTEND: 'noninteractive' },
  };
  try {
    await exec.run('apt-get', ['update', '--quiet'], options);
    await exec.run(
      'apt-get',
      ['install', '--yes', '--quiet', '--no-install-recommends', ...packages],
      options,
    );
    return undefined;
  } catch (error) {
    return `the lab could not install ${packages.join(', ')}: ${error instanceof Error ? error.message : error}`;
  }
}
