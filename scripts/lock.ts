import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * `scripts/node scripts/lock.ts`: makes package-lock.json anew from package.json. npm leaves out optional packages of
 * platforms that its registry does not serve, and then `npm ci` calls the lock incomplete; they are named here with
 * the platform that they are for, so that npm passes them over.
 */
const root = join(import.meta.dirname, '..');
const scratch = mkdtempSync(join(tmpdir(), 'beosd-lock-'));
cpSync(join(root, 'package.json'), join(scratch, 'package.json'));
const npm = [
  'install',
  '--package-lock-only',
  '--ignore-scripts',
  '--no-audit',
  '--no-fund',
  '--omit-lockfile-registry-resolved',
];
const { status } = spawnSync('npm', npm, { cwd: scratch, stdio: 'inherit' });
if (status !== 0) process.exit(status ?? 1);

interface Entry {
  version?: string;
  optional?: boolean;
  dev?: boolean;
  os?: string[];
  cpu?: string[];
  libc?: string[];
  optionalDependencies?: Record<string, string>;
}

const systems = [
  'android',
  'darwin',
  'linux',
  'win32',
  'freebsd',
  'openbsd',
  'netbsd',
  'sunos',
  'aix',
  'openharmony',
];
const cpus: Record<string, string> = { armv7: 'arm', aarch64: 'arm64' };
const known = [
  'x64',
  'arm64',
  'arm',
  'ia32',
  'ppc64',
  'riscv64',
  's390x',
  'loong64',
  'mips64el',
  'wasm32',
  ...Object.keys(cpus),
];

function placeholder(name: string, version: string, parent: Entry): Entry {
  const words = name.split(/[/-]/);
  const cpu = words.find((word) => known.includes(word));
  const os = words.find((word) => systems.includes(word));
  const musl = words.some((word) => word.startsWith('musl'));
  const glibc = words.some((word) => word === 'gnu' || word === 'gnueabihf');
  return {
    version,
    optional: true,
    ...(parent.dev ? { dev: true } : {}),
    ...(cpu === undefined ? {} : { cpu: [cpus[cpu] ?? cpu] }),
    ...(os === undefined ? {} : { os: [os] }),
    ...(musl ? { libc: ['musl'] } : glibc ? { libc: ['glibc'] } : {}),
  };
}

const lock = JSON.parse(readFileSync(join(scratch, 'package-lock.json'), 'utf8')) as {
  packages: Record<string, Entry>;
};
for (const parent of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    lock.packages[`node_modules/${name}`] ??= placeholder(name, version, parent);
  }
}
const sorted = Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1));
writeFileSync(
  join(root, 'package-lock.json'),
  `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, null, 2)}\n`,
);
