import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  realpath,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SystemExec } from '#host/exec.ts';
import { cached } from './cache.ts';
import { debianTree } from './tree.ts';

/** What QEMU needs to boot the guest. */
export interface GuestImage {
  /** The folder of the three, whose name changes with their contents. */
  readonly folder: string;
  /** Raw ext4 root file system; never written, machines put a layer over it. */
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
}

const diskSize = '3G';
const rootModules = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'crc32c-intel', 'ext4'];
const ownFiles = ['guest-init.sh', 'guest-disk.sh', 'agent.ts', 'frames.ts'];

/** Units that the guest does without: each costs about a second under emulation. */
const masked = [
  ...['getty@tty1.service', 'serial-getty@ttyS0.service', 'e2scrub_reap.service', 'systemd-pstore.service'],
  ...['dev-hugepages.mount', 'dev-mqueue.mount', 'sys-kernel-debug.mount', 'sys-kernel-tracing.mount'],
  ...['systemd-machine-id-commit.service', 'systemd-timesyncd.service', 'systemd-random-seed.service'],
  ...['proc-sys-fs-binfmt_misc.automount', 'systemd-binfmt.service', 'systemd-update-utmp.service'],
  ...['systemd-update-utmp-runlevel.service', 'sys-kernel-config.mount', 'sys-fs-fuse-connections.mount'],
  ...['drm', 'loop', 'dm_mod', 'fuse', 'configfs'].map((name) => `modprobe@${name}.service`),
];

/** Masked in the tree for the container's sake; here the kernel has them and the servers need them. */
const unmasked = ['run-rpc_pipefs.mount', 'proc-fs-nfsd.mount'];

const agentUnit = [
  '[Unit]\nDescription=runs what the lab asks for\nDefaultDependencies=no\nAfter=sysinit.target dbus.socket',
  '[Service]\nExecStart=/usr/local/bin/node --disable-warning=ExperimentalWarning /usr/local/lib/lab/agent.ts',
  'Environment=HOME=/root\nRestart=always\nKillMode=process\nOOMScoreAdjust=-900\n',
].join('\n');

const files: Readonly<Record<string, string>> = {
  '/etc/hostname': 'labvm\n',
  '/etc/hosts': '127.0.0.1 localhost labvm\n::1 localhost\n',
  // Not checked at boot (the journal is replayed by the mount): the check would wait seconds for udev to name the disk.
  '/etc/fstab': '/dev/vda / ext4 rw,noatime 0 0\n',
  '/etc/systemd/system/lab-agent.service': agentUnit,
  '/etc/systemd/journald.conf.d/lab.conf': '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n',
  '/etc/modprobe.d/lab.conf': ['iTCO_wdt', 'i2c_i801', 'lpc_ich', 'bochs', 'psmouse', 'pcspkr', 'joydev']
    .map((name) => `blacklist ${name}\n`)
    .join(''),
};

/** The guest's disk, kernel and initrd; built from the Debian tree on first use (about 20 s), then cached. */
export async function guestImage(): Promise<GuestImage> {
  const tree = await debianTree();
  const sources = await Promise.all(ownFiles.map((name) => readFile(ownPath(name), 'utf8')));
  const own = createHash('sha256').update(sources.join('\0')).digest('hex');
  const recipe = {
    tree: basename(dirname(tree)),
    own,
    node: process.version,
    files,
    masked,
    unmasked,
    diskSize,
    rootModules,
  };
  const folder = await cached('guest', recipe, (into) => buildImage(tree, into));
  return {
    folder,
    disk: join(folder, 'disk.img'),
    kernel: join(folder, 'vmlinuz'),
    initrd: join(folder, 'initrd'),
  };
}

const ownPath = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

async function buildImage(tree: string, into: string): Promise<void> {
  const exec = new SystemExec();
  const added = join(into, 'files');
  await addFiles(added);
  const alone = ['--mount', '--propagation', 'private', ownPath('guest-disk.sh')];
  const work = join(into, 'merged');
  await exec.run('unshare', [...alone, added, tree, work, join(into, 'disk.img'), diskSize], {
    timeoutMs: 300_000,
  });
  const [kernel] = (await readdir(join(tree, 'boot'))).filter((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error('lab: the tree has no kernel');
  await copyFile(join(tree, 'boot', kernel), join(into, 'vmlinuz'));
  await buildInitrd(join(tree, 'lib/modules', kernel.slice('vmlinuz-'.length)), into);
  for (const name of ['files', 'merged', 'initrd.d']) await rm(join(into, name), { recursive: true });
}

async function addFiles(root: string): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  const units = join(root, 'etc/systemd/system');
  for (const unit of masked) await symlink('/dev/null', join(units, unit));
  for (const unit of unmasked) await symlink(`/lib/systemd/system/${unit}`, join(units, unit));
  await mkdir(join(units, 'multi-user.target.wants'));
  await symlink('../lab-agent.service', join(units, 'multi-user.target.wants/lab-agent.service'));
  await mkdir(join(root, 'usr/local/lib/lab'), { recursive: true });
  for (const name of ['agent.ts', 'frames.ts']) {
    await copyFile(ownPath(name), join(root, 'usr/local/lib/lab', name));
  }
  await writeFile(join(root, 'usr/local/lib/lab/package.json'), '{"type":"module"}\n');
  await mkdir(join(root, 'usr/local/bin'), { recursive: true });
  await copyFile(await realpath(process.execPath), join(root, 'usr/local/bin/node'));
  await chmod(join(root, 'usr/local/bin/node'), 0o755);
}

/** Three megabytes instead of thirty: under emulation QEMU's loading of the initrd is what takes the time. */
async function buildInitrd(modules: string, into: string): Promise<void> {
  const exec = new SystemExec();
  const root = join(into, 'initrd.d');
  for (const name of ['bin', 'dev', 'proc', 'sys', 'root', 'modules'])
    await mkdir(join(root, name), { recursive: true });
  const busybox = (await exec.run('sh', ['-c', 'command -v busybox'])).stdout.trim();
  await copyFile(busybox, join(root, 'bin/busybox'));
  for (const applet of ['sh', 'mount', 'insmod', 'switch_root'])
    await symlink('busybox', join(root, 'bin', applet));
  await copyFile(ownPath('guest-init.sh'), join(root, 'init'));
  await chmod(join(root, 'init'), 0o755);
  const ordered = modulesInOrder(await readFile(join(modules, 'modules.dep'), 'utf8'), rootModules);
  for (const [at, path] of ordered.entries()) {
    await copyFile(
      join(modules, path),
      join(root, 'modules', `${String(at).padStart(2, '0')}-${basename(path)}`),
    );
  }
  const pack = 'cd "$1" && find . | cpio --create --format=newc --quiet | gzip -1 > "$2"';
  await exec.run('sh', ['-c', pack, 'pack', root, join(into, 'initrd')], { timeoutMs: 60_000 });
}

/** The files of the named modules, each after those it depends on, from the text of modules.dep. */
export function modulesInOrder(dep: string, names: readonly string[]): string[] {
  const lines = dep.split('\n').map((line) => line.split(/[:\s]+/).filter((word) => word !== ''));
  const ordered = new Set<string>();
  for (const name of names) {
    const found = lines.find(([path]) => path?.endsWith(`/${name}.ko`));
    if (found === undefined) continue; // built into the kernel
    for (const path of found.toReversed()) ordered.add(path); // modules.dep lists the nearest dependency first
  }
  return [...ordered];
}
