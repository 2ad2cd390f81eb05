import { bootGuest, type Guest } from './guest.ts';
import { type BeosNode, startNode } from './node.ts';
import { bringDaemon, shippedUnit } from './storage-node.ts';

/** A password with all that an option list, a shell or a file of lines could stumble over, but for what is refused. */
export const canary = ' c4nary, "q" \'s\' #;=%\\$x';
/** The part of it that is searched for; it stands nowhere else. */
export const needle = 'c4nary';
/** The addresses of the file server: it is the same machine, by an interface of its own. */
export const server = '10.77.0.1';
export const server6 = 'fd77::1';
/** Where the SMB server listens beside 445. */
export const otherPort = 4455;

export type ServerKind = 'smb' | 'nfs';

const smbConf = `[global]
server role = standalone server
interfaces = lo lan0
bind interfaces only = yes
disable netbios = yes
smb ports = 445 ${otherPort}
load printers = no
map to guest = Bad User
[public]
path = /srv/smb
guest ok = yes
read only = no
force user = root
[private]
path = /srv/smb
valid users = lab
read only = no
force user = root
`;

const who = ['127.0.0.1', '10.77.0.0/24', 'fd77::/64'];
const exports = ['/srv/nfs', '/srv/nfs2']
  .map(
    (path, at) => `${path} ${who.map((each) => `${each}(rw,no_subtree_check,fsid=${at + 1})`).join(' ')}\n`,
  )
  .join('');

const lanUnit = `[Unit]
Before=beosd.service smbd.service nfs-server.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link add lan0 type veth peer name lan1
ExecStart=ip address add ${server}/24 dev lan0
ExecStart=ip address add ${server6}/64 dev lan0 nodad
ExecStart=ip link set lan0 up
ExecStart=ip link set lan1 up
[Install]
WantedBy=multi-user.target
`;

/**
 * `servers.sh kill|silence|restore smb|nfs`. Prints the moment, ms: of a loss when it begins, of a return when the
 * server takes connections again.
 */
const script = `#!/bin/bash
set -eu
case $2 in
  smb) ports='445, ${otherPort}' ;;
  nfs) ports='2049' ;;
esac
now() { date +%s%3N; }
answers() { for port in \${ports//,/ }; do (exec 3<>/dev/tcp/${server}/$port) 2>/dev/null || return 1; done; }
case $1 in
  kill)
    now
    # Its port is closed from now on: who connects is refused.
    if [ $2 = smb ]; then systemctl kill --signal=KILL smbd; systemctl stop smbd; else rpc.nfsd 0; fi ;;
  silence)
    now
    # Nothing that is sent to it arrives, and nothing of it gets out.
    nft -f - <<END
      table inet lab-$2 {
        chain in { type filter hook input priority 0; tcp dport { $ports } drop; tcp sport { $ports } drop; }
      }
END
    ;;
  restore)
    if nft list table inet lab-$2 >/dev/null 2>&1; then nft delete table inet lab-$2
    elif [ $2 = smb ]; then systemctl start smbd
    else systemctl start nfs-server; rpc.nfsd 8
    fi
    until answers; do sleep 0.02; done
    now ;;
esac
`;

/** A machine that is its own file server, and has an interface so that it counts as connected. */
export const fileServers = {
  recipe: { daemon: shippedUnit.recipe, smbConf, exports, lanUnit, script, version: 2 },
  async setUp(vm: Guest): Promise<void> {
    await shippedUnit.setUp(vm);
    await vm.put('/etc/samba/smb.conf', smbConf);
    await vm.put('/etc/exports', exports);
    await vm.put('/etc/systemd/system/lan.service', lanUnit);
    await vm.put('/opt/lab/servers.sh', script, 0o755);
    const lines = [
      'set -e; mkdir -p /srv/smb/sub /srv/nfs /srv/nfs2; chmod 777 /srv/smb /srv/smb/sub /srv/nfs /srv/nfs2',
      'echo smb > /srv/smb/a.txt; echo sub > /srv/smb/sub/a.txt; echo nfs > /srv/nfs/a.txt; echo nfs2 > /srv/nfs2/a.txt',
      'id lab || useradd --no-create-home lab; cat /root/pw /root/pw | smbpasswd -s -a lab',
      'systemctl daemon-reload; systemctl enable --now lan; systemctl enable smbd nfs-server',
      'nft list ruleset',
    ];
    await vm.put('/root/pw', `${canary}\n`, 0o600);
    await vm.run(['sh', '-c', lines.join('\n')], { timeoutMs: 120_000 });
    await vm.run(['rm', '/root/pw']);
  },
};

/** A guest with both servers serving, and the daemon in it. */
export async function bootFileServers(): Promise<BeosNode> {
  const vm = await bootGuest({ prepare: fileServers });
  await bringDaemon(vm);
  await startServers(vm);
  return await startNode(vm);
}

/** Starts both servers, and waits until they serve. */
export async function startServers(vm: Guest): Promise<void> {
  await vm.run(['systemctl', 'start', 'smbd', 'nfs-server'], { timeoutMs: 180_000 });
  // The first listing makes smbd start its helpers, which takes half a minute under emulation.
  const listing = ['smbclient', '--grepable', '--no-pass', `--list=${server}`];
  await vm.run(listing, { timeoutMs: 180_000, okCodes: [0, 1] });
}

/** Takes a server away, or brings it back; the moment, in ms of the guest's clock. */
export async function turn(
  vm: Guest,
  act: 'kill' | 'silence' | 'restore',
  kind: ServerKind,
): Promise<number> {
  const { stdout } = await vm.run(['/opt/lab/servers.sh', act, kind], { timeoutMs: 180_000 });
  return Number(stdout.trim());
}

/**
 * Waits until the NFS server knows no client that is gone. One that had to change its version in a test before leaves
 * one behind (docs/adr/2026-11-29-nfs-mounts-made-anew.md), which is forgotten after a lease of 90 s; a server that is
 * started earlier waits for it before it opens a file for anybody (RFC 8881 §8.4.2).
 */
export async function untilGoneAreForgotten(vm: Guest): Promise<void> {
  const script = `
    mounted=$(awk '$3 == "nfs4"' /proc/mounts | grep -o 'vers=4.[12]' | sort -u | wc -l)
    until [ "$(cat /proc/fs/nfsd/clients/*/info | grep -c '^name:')" -le "$mounted" ]; do sleep 1; done`;
  await vm.run(['sh', '-c', script], { timeoutMs: 180_000 });
}
