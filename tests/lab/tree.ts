import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SystemExec } from '#host/exec.ts';
import { cached } from './cache.ts';

const suite = 'bookworm';

/** What is installed beyond Debian's essential packages; each line is one reason to be there. */
const packages = [
  ...['systemd', 'systemd-sysv', 'udev', 'dbus', 'polkitd', 'libpam-systemd', 'kmod', 'procps', 'psmisc'],
  ...['libstdc++6', 'libatomic1', 'curl', 'ca-certificates', 'zstd'], // the pinned Node, and ways to look at the daemon
  ...['iproute2', 'nftables', 'network-manager', 'avahi-daemon', 'libnss-mdns'],
  ...['wpasupplicant', 'hostapd', 'iw', 'rfkill', 'wireless-regdb', 'bluez', 'bluez-test-tools'],
  ...['samba', 'smbclient', 'cifs-utils', 'nfs-kernel-server', 'nfs-common'],
  ...['e2fsprogs', 'xfsprogs', 'btrfs-progs', 'dosfstools', 'exfatprogs', 'ntfs-3g', 'fuse3'],
  ...['fdisk', 'gdisk', 'parted', 'cryptsetup-bin', 'lvm2', 'mdadm', 'smartmontools'],
  'linux-image-amd64',
];

/**
 * Left out of the packages: texts nobody reads here, the making of a 30 MB initrd (the guest brings a small one of
 * its own), and kernel modules for hardware that QEMU does not have. A later line wins over an earlier one.
 */
const pathRules = [
  ...['man', 'doc', 'locale', 'info', 'lintian'].map((name) => `path-exclude=/usr/share/${name}/*`),
  'path-exclude=/etc/kernel/postinst.d/initramfs-tools',
  ...['gpu', 'media', 'infiniband', 'iio', 'staging', 'isdn', 'net/ethernet', 'net/wireless', 'video'].map(
    (name) => `path-exclude=/lib/modules/*/kernel/drivers/${name}/*`,
  ),
  'path-exclude=/lib/modules/*/kernel/sound/*',
  'path-include=/lib/modules/*/kernel/drivers/net/wireless/mac80211_hwsim.ko',
];

/** Units that only cost time at boot; a test starts what it needs. */
const notAtBoot = [
  ...['smbd', 'nmbd', 'samba-ad-dc', 'winbind', 'nfs-server', 'nfs-blkmap', 'hostapd', 'wpa_supplicant'],
  ...['rpcbind', 'ssh', 'NetworkManager-wait-online', 'e2scrub_reap', 'mdmonitor', 'lvm2-monitor'],
  ...['NetworkManager', 'avahi-daemon', 'bluetooth', 'ModemManager', 'blk-availability', 'smartmontools'],
].map((name) => `${name}.service`);
const timersAndSockets = [
  ...[
    'apt-daily.timer',
    'apt-daily-upgrade.timer',
    'dpkg-db-backup.timer',
    'e2scrub_all.timer',
    'fstrim.timer',
  ],
  ...['mdcheck_start.timer', 'mdcheck_continue.timer', 'mdmonitor-oneshot.timer', 'man-db.timer'],
  ...[
    'rpcbind.socket',
    'avahi-daemon.socket',
    'nfs-client.target',
    'lvm2-lvmpolld.socket',
    'dm-event.socket',
  ],
];
/** The host's kernel may lack them, and under emulation each costs a second. */
const masked = ['run-rpc_pipefs.mount', 'proc-fs-nfsd.mount', 'systemd-networkd-wait-online.service'];

const recipe = {
  version: 3,
  suite,
  arch: process.arch,
  packages,
  pathRules,
  units: [notAtBoot, timersAndSockets, masked],
};

/** The Debian tree that container and guest are made from; built on first use (about two minutes), then cached. */
export async function debianTree(): Promise<string> {
  return join(await cached('tree', recipe, buildTree), 'root');
}

async function buildTree(into: string): Promise<void> {
  const sources = await debianSources();
  if (sources === '') throw new Error(`lab: no apt source for Debian ${suite} on this machine`);
  const exec = new SystemExec();
  const root = join(into, 'root');
  // Its mounts below the tree must never outlive it: a later removal of the folder would walk into them.
  const alone = ['--mount', '--propagation', 'private', 'mmdebstrap'];
  await exec.run('unshare', [...alone, ...mmdebstrapArgs(root)], {
    stdin: sources,
    timeoutMs: 20 * 60_000,
    maxOutputBytes: 64 * 1024 * 1024,
    env: proxyVariables(),
  });
  await exec.run('rm', ['-rf', join(root, 'var/cache/apt'), join(root, 'var/lib/apt/lists')]);
  // mmdebstrap copies these from the machine it runs on.
  await exec.run('rm', ['-f', join(root, 'etc/resolv.conf')]);
  await writeFile(join(root, 'etc/hostname'), 'labbox\n');
  await writeFile(join(root, 'etc/hosts'), '127.0.0.1 localhost labbox\n::1 localhost\n');
  const offline = ['--root', root, '--quiet'];
  const present = await unitsIn(root);
  const listed = (names: readonly string[]) => names.filter((name) => present.has(name));
  await exec.run('systemctl', [...offline, 'disable', ...listed([...notAtBoot, ...timersAndSockets])]);
  await exec.run('systemctl', [...offline, 'mask', ...masked]);
}

function mmdebstrapArgs(root: string): string[] {
  return [
    ...['--mode=root', '--variant=minbase', `--include=${packages.join(',')}`],
    '--aptopt=Apt::Install-Recommends "false"',
    ...pathRules.map((rule) => `--dpkgopt=${rule}`),
    ...['--dpkgopt=force-unsafe-io', suite, root, '-'],
  ];
}

async function unitsIn(root: string): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for (const folder of ['lib/systemd/system', 'etc/systemd/system', 'etc/init.d']) {
    for (const name of await readdir(join(root, folder)).catch(() => [])) names.add(name);
  }
  return names;
}

function proxyVariables(): Record<string, string> {
  const names = ['http_proxy', 'https_proxy', 'no_proxy'];
  return Object.fromEntries(names.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])));
}

/** The machine's own apt sources for the suite and its updates, in the format each was written in; else empty. */
export async function debianSources(folder = '/etc/apt'): Promise<string> {
  const names = await readdir(join(folder, 'sources.list.d')).catch(() => []);
  const files = ['sources.list', ...names.sort().map((name) => join('sources.list.d', name))];
  const oneLine: string[] = [];
  const stanzas: string[] = [];
  for (const name of files) {
    const text = await readFile(join(folder, name), 'utf8').catch(() => '');
    if (name.endsWith('.list')) oneLine.push(...text.split('\n').filter(ofSuite));
    if (name.endsWith('.sources')) stanzas.push(...text.split(/\n\s*\n/).filter(ofSuite));
  }
  // mmdebstrap tells the format by the first line, so one kind only; deb822 is what current Debian writes.
  return (stanzas.length > 0 ? stanzas : oneLine).map((entry) => `${entry.trim()}\n`).join('\n');
}

function ofSuite(entry: string): boolean {
  const words = entry
    .split('\n')
    .filter((line) => !line.trimStart().startsWith('#'))
    .join(' ')
    .split(/\s+/);
  const debian = words.some(
    (word) => /^https?:.*\/debian(-security)?\/?$/.test(word) || word.startsWith('mirror'),
  );
  return debian && words.some((word) => word === suite || word.startsWith(`${suite}-`));
}
