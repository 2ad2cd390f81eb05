import assert from 'node:assert/strict';
import { realpath } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { labAvailable } from './available.ts';
import { bootGuest, type Guest } from './guest.ts';
import { type BeosNode, daemonUnit, shareRoot, startNode, untilRemoved } from './node.ts';

const reason = await labAvailable('guest');
const bundle = fileURLToPath(new URL('../../dist/beosd.cjs', import.meta.url));
const canary = 'c4nary, "q" \'s\'';

const smbConf = `[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
disable netbios = yes
smb ports = 445
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

/** A machine that is its own file server, and has an interface so that it counts as connected. */
const servers = {
  recipe: { daemon: daemonUnit.recipe, servers: 3 },
  async setUp(vm: Guest) {
    await daemonUnit.setUp(vm);
    await vm.put('/etc/samba/smb.conf', smbConf);
    await vm.put('/etc/exports', '/srv/nfs 127.0.0.1(rw,no_subtree_check,no_root_squash,fsid=1)\n');
    await vm.put('/etc/systemd/system/lan.service', lanUnit);
    const script = [
      'set -e; mkdir -p /srv/smb /srv/nfs; echo smb > /srv/smb/a.txt; echo nfs > /srv/nfs/a.txt',
      'id lab || useradd --no-create-home lab; cat /root/pw /root/pw | smbpasswd -s -a lab',
      'systemctl daemon-reload; systemctl enable --now lan; systemctl enable smbd nfs-server',
    ];
    await vm.put('/root/pw', `${canary}\n`, 0o600);
    await vm.run(['sh', '-c', script.join('\n')], { timeoutMs: 120_000 });
    await vm.run(['rm', '/root/pw']);
  },
};

const lanUnit = `[Unit]
Before=beosd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link add lan0 type veth peer name lan1
ExecStart=ip address add 10.77.0.1/24 dev lan0
ExecStart=ip link set lan0 up
ExecStart=ip link set lan1 up
[Install]
WantedBy=multi-user.target
`;

describe('shares of real servers, through the API', { skip: reason ?? false, timeout: 30 * 60_000 }, () => {
  let node: BeosNode;
  before(async () => {
    const vm = await bootGuest({ prepare: servers });
    await vm.copyIn(await realpath(bundle), '/opt/beosd/beosd.cjs');
    await vm.run(['systemctl', 'start', 'smbd', 'nfs-server'], { timeoutMs: 180_000 });
    // The first listing makes smbd start its helpers, which takes half a minute under emulation.
    const listing = ['smbclient', '--grepable', '--no-pass', '--list=127.0.0.1'];
    await vm.run(listing, { timeoutMs: 180_000, okCodes: [0, 1] });
    node = await startNode(vm);
  });
  after(() => node.vm[Symbol.asyncDispose]());

  const mount = (smbPath: string, user?: string, password?: string) =>
    node.call('POST', '/command/mount-samba', { smbPath, ...(user === undefined ? {} : { user, password }) });
  const left = async () => (await node.vm.run(['sh', '-c', `ls -A ${shareRoot} 2>/dev/null || true`])).stdout;

  it('wrong password, unknown share, server off, bad names: the right error, and nothing is left', async () => {
    const wrong = await mount('//127.0.0.1/private', 'lab', 'wrong');
    assert.equal(wrong.status, 422);
    assert.match(wrong.message, /mount error\(13\)/);
    const unknown = await mount('//127.0.0.1/nowhere', 'lab', canary);
    assert.equal(unknown.status, 422);
    assert.match(unknown.message, /mount error\(2\)/);
    const off = await mount('//127.0.0.1:4455/public');
    assert.equal(off.status, 503, off.message);
    assert.match(off.message, /mount error\(11[0-5]\)/);
    for (const path of ['//127.0.0.1/..', '//127.0.0.1/ai', '//127.0.0.1/a,uid=0'])
      assert.equal((await mount(path)).status, 400, path);
    assert.equal((await mount('//127.0.0.1/private', 'lab', 'new\nline')).status, 400);
    assert.equal(await left(), '');
    assert.deepEqual(await node.paths(), []);
  });

  it('v2 lists the shares to choose from; NFS lists its exports', async () => {
    const choice = await node.call('POST', '/command/v2/mount-samba', { smbPath: '//127.0.0.1' });
    assert.equal(choice.status, 300, choice.message);
    assert.deepEqual(choice.data, [
      { path: '//127.0.0.1/public', mounted: false },
      { path: '//127.0.0.1/private', mounted: false },
    ]);
    const exports = await node.call('POST', '/command/list-nfs', { server: '127.0.0.1' });
    assert.deepEqual(exports.data, [{ path: '/srv/nfs', acl: '127.0.0.1', mounted: false }], exports.message);
  });

  it('a share with a password of commas and quotes is mounted, and so is an export', async () => {
    const smb = await mount('//127.0.0.1/private', 'lab', canary);
    assert.deepEqual([smb.status, smb.data], [200, { path: `${shareRoot}/private` }], smb.message);
    const nfs = await node.call('POST', '/command/mount-nfs', {
      server: '127.0.0.1',
      sharedPath: '/srv/nfs',
    });
    assert.deepEqual([nfs.status, nfs.data], [200, { path: `${shareRoot}/nfs` }], nfs.message);
    const { stdout } = await node.vm.run(['cat', `${shareRoot}/private/a.txt`, `${shareRoot}/nfs/a.txt`]);
    assert.equal(stdout, 'smb\nnfs\n');
    const paths = await node.paths();
    assert.deepEqual(
      paths.map(({ type, invalid }) => [type, invalid]),
      [
        ['nfs', false],
        ['smb', false],
      ],
    );
  });

  it('the password is nowhere: no argv, environment, journal, store or log', async () => {
    const search = [
      'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -ac c4nary',
      'journalctl --no-pager | grep -c c4nary',
      'grep -rac c4nary /var/lib/beosd /run/beosd/credentials 2>/dev/null | grep -vc ":0$"',
    ];
    // The search itself names it: the shell and the agent are the only processes that may.
    for (const each of search.slice(1)) {
      const { stdout } = await node.vm.run(['sh', '-c', `${each.replace('c4nary', 'c4na[r]y')} || true`]);
      assert.equal(stdout.trim(), '0', each);
    }
    const { stdout } = await node.vm.run(['sh', '-c', `${search[0]?.replace('c4nary', 'c4na[r]y')} || true`]);
    assert.equal(stdout.trim(), '0');
  });

  it('both servers die: invalid soon, the API answers as ever, no thread waits; both come back with their servers', async (t) => {
    const { vm } = node;
    const pid = (await vm.run(['systemctl', 'show', '--property=MainPID', '--value', 'beosd'])).stdout.trim();
    const pace = async () => {
      const times: number[] = [];
      for (let n = 0; n < 40; n++) {
        const began = performance.now();
        assert.equal((await node.call('GET', '/system/mounted-path')).status, 200);
        times.push(performance.now() - began);
      }
      return times.toSorted((a, b) => a - b);
    };
    const before = await pace();
    await vm.run(['sh', '-c', 'systemctl kill --signal=KILL smbd; systemctl stop smbd nfs-server'], {
      timeoutMs: 120_000,
    });
    const dead = await node.until(
      'both are invalid',
      60_000,
      (paths) => paths.length === 2 && paths.every((each) => each.invalid),
    );
    const during = await pace();
    const { stdout } = await vm.run(['sh', '-c', `cat /proc/${pid}/task/*/stat | sed 's/.*) //' | cut -c1`]);
    assert.ok(!stdout.includes('D'), `threads: ${stdout}`);
    const at = (times: readonly number[]) => (times[Math.floor(times.length * 0.97)] ?? 0).toFixed(0);
    t.diagnostic(
      `invalid after ${Math.round(dead)} ms; API p97 ${at(before)} ms before, ${at(during)} ms while dead`,
    );
    await vm.run(['systemctl', 'start', 'smbd', 'nfs-server'], { timeoutMs: 180_000 });
    const back = await node.until(
      'both are back',
      120_000,
      (paths) => paths.length === 2 && paths.every((each) => !each.invalid),
    );
    t.diagnostic(`back ${Math.round(back)} ms after the servers`);
    const read = await vm.run(['cat', `${shareRoot}/private/a.txt`, `${shareRoot}/nfs/a.txt`]);
    assert.equal(read.stdout, 'smb\nnfs\n');
  });

  it('after a reboot both are there again', async (t) => {
    await node.vm.run(['sync']);
    await node.vm.reboot();
    node = await startNode(node.vm);
    const took = await node.until(
      'both are back',
      180_000,
      (paths) => paths.length === 2 && paths.every((each) => !each.invalid),
    );
    t.diagnostic(`both mounted ${Math.round(took)} ms after the daemon answered`);
  });

  it('unmounted they are gone, with their folders and for good', async () => {
    const smb = await node.call('POST', '/command/umount-samba', { path: `${shareRoot}/private` });
    assert.equal(smb.status, 200, smb.message);
    const nfs = await node.call('POST', '/command/umount-nfs-incluster', { path: 'nfs' });
    assert.equal(nfs.status, 200, nfs.message);
    await untilRemoved(node.vm, `${shareRoot}/private`);
    assert.equal(await left(), '');
    assert.deepEqual(await node.paths(), []);
  });
});
