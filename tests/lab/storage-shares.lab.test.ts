import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { labAvailable } from './available.ts';
import { deferred, within } from './deadline.ts';
import { saysWhatDfSays } from './df.ts';
import {
  bootFileServers,
  canary,
  needle,
  otherPort,
  type ServerKind,
  server,
  server6,
  startServers,
  turn,
  untilGoneAreForgotten,
} from './file-servers.ts';
import { type BeosNode, shareRoot, startNode, untilRemoved } from './node.ts';
import { hangs, SharesWatch } from './shares-watch.ts';

const reason = await labAvailable('guest');
const long = process.env['BEOSD_SOAK'] === '1';
/** How often the API is asked in each phase. */
const count = long ? 2000 : 500;
/** How long each server is away at least, ms: so long that the kernel tries ever more rarely to connect. */
const awayMs = 60_000;
const losses = ['kill', 'silence'] as const;

const folders: Readonly<Record<ServerKind, readonly string[]>> = {
  smb: ['private', 'public', 'sub'],
  nfs: ['nfs', 'nfs2'],
};
const pathsOf = (kind: ServerKind) => folders[kind].map((name) => `${shareRoot}/${name}`);
const allPaths = [...pathsOf('smb'), ...pathsOf('nfs')].sort();

describe('shares of real servers, through the API', { skip: reason ?? false, timeout: 45 * 60_000 }, () => {
  let node: BeosNode;
  /** All that the API has said. */
  const said: string[] = [];
  before(async () => {
    node = await bootFileServers();
  });
  after(() => node.vm[Symbol.asyncDispose]());

  const post = async (command: string, body: unknown) => {
    const answer = await node.call('POST', `/command/${command}`, body);
    said.push(JSON.stringify(answer));
    return answer;
  };
  const mount = (smbPath: string, user?: string, password?: string) =>
    post('mount-samba', { smbPath, ...(user === undefined ? {} : { user, password }) });
  const mountNfs = (address: string, sharedPath: string, mountPath?: string) =>
    post('mount-nfs', { server: address, sharedPath, ...(mountPath === undefined ? {} : { mountPath }) });
  const left = async () => (await node.vm.run(['sh', '-c', `ls -A ${shareRoot} 2>/dev/null || true`])).stdout;
  const nothingLeft = async () => {
    assert.equal(await left(), '');
    assert.deepEqual(await node.paths(), []);
    const { stdout } = await node.vm.run(['cat', '/proc/mounts']);
    assert.doesNotMatch(stdout, new RegExp(` ${shareRoot}/`));
  };
  const words = { smb: 'smb\nsmb\nsub\n', nfs: 'nfs\nnfs2\n' } as const;
  /** Reads a file of every share; when that was done, ms of the guest's clock. */
  const read = async (kind: ServerKind) => {
    const files = pathsOf(kind).map((path) => `${path}/a.txt`);
    const script = ['sh', '-c', 'cat "$@" && date +%s%3N', 'sh', ...files];
    const { stdout } = await node.vm.run(script, { timeoutMs: 120_000 });
    assert.ok(stdout.startsWith(words[kind]), stdout);
    return Number(stdout.slice(words[kind].length));
  };
  const readable = async () => {
    for (const kind of ['smb', 'nfs'] as const) await read(kind);
  };
  /** Brings a server back, and reads what is on it: all is there within 15 s + 1 s per share. */
  const comeBack = async (watch: SharesWatch, kind: ServerKind) => {
    const returned = await turn(node.vm, 'restore', kind);
    const back = Math.max(0, (await watch.allInvalid(pathsOf(kind), false, 120_000)) - returned);
    const wasRead = (await read(kind)) - returned;
    const said = `${folders[kind].length} of ${kind} back after ${back} ms, read after ${wasRead} ms`;
    assert.ok(wasRead <= 15_000 + 1000 * folders[kind].length, `${said}\n${await daemonLog()}`);
    return said;
  };
  /** By which versions the NFS shares are mounted. */
  const nfsVersions = async () => {
    const { stdout } = await node.vm.run(['cat', '/proc/mounts']);
    const versions = [...stdout.matchAll(/ nfs4 \S*,(vers=[\d.]+),/g)].map(([, version]) => version);
    assert.equal(versions.length, folders.nfs.length);
    return versions.join(' and ');
  };
  const daemonLog = async () =>
    (await node.vm.run(['journalctl', '--boot', '--unit=beosd', '--no-pager', '--output=short-precise']))
      .stdout;
  const daemonPid = async () =>
    (await node.vm.run(['systemctl', 'show', '--property=MainPID', '--value', 'beosd'])).stdout.trim();

  it('wrong password, unknown share, server off, bad names: the right error, and nothing is left', async () => {
    const refused = async (
      answer: Promise<{ status: number; message: string }>,
      status: number,
      words: RegExp,
    ) => {
      const { status: got, message } = await answer;
      assert.equal(got, status, message);
      assert.match(message, words);
      await nothingLeft();
    };
    await refused(mount(`//${server}/private`, 'lab', 'wrong'), 422, /mount error\(13\)/);
    await refused(mount(`//${server}/private`, 'lab', `${canary}x`), 422, /mount error\(13\)/);
    await refused(mount(`//${server}/private`, 'lab', canary.slice(0, -1)), 422, /mount error\(13\)/);
    await refused(mount(`//${server}/nowhere`, 'lab', canary), 422, /mount error\(2\)/);
    await refused(mount(`//${server}/public/nowhere`), 422, /mount error\(2\)/);
    await refused(mountNfs(server, '/srv/nowhere'), 422, /No such file|access denied/);
    await refused(mount(`//${server}:4477/public`), 503, /mount error\(11[0-5]\)/);
    for (const name of ['..', '.', 'ai', 'a,uid=0', 'public/../private', 'public/ai'])
      await refused(mount(`//${server}/${name}`), 400, /./);
    for (const name of ['..', 'ai', 'a,uid=0', '../x', 'a/b'])
      await refused(mountNfs(server, '/srv/nfs', name), 400, /./);
    for (const path of ['/srv/../etc', '/srv/nfs,rw', 'srv', '/srv/ai'])
      await refused(mountNfs(server, path), 400, /./);
    for (const password of ['new\nline', 'uid=0\r', '\u0000', 'a\u0085b'])
      await refused(mount(`//${server}/private`, 'lab', password), 400, /password/);
    await refused(mount(`//${server}/private`, 'lab,uid=0', 'x'), 400, /user/);
  });

  it('servers that are off: the right error, and nothing is left', async () => {
    for (const loss of losses) {
      for (const kind of ['smb', 'nfs'] as const) {
        await turn(node.vm, loss, kind);
        const answer = await (kind === 'smb' ? mount(`//${server}/public`) : mountNfs(server, '/srv/nfs'));
        assert.equal(answer.status, 503, answer.message);
        if (kind === 'smb') assert.match(answer.message, /mount error\s?\(11[0-5]\)/);
        await turn(node.vm, 'restore', kind);
        await nothingLeft();
      }
    }
    await startServers(node.vm);
  });

  it('v2 lists the shares to choose from; NFS lists its exports', async () => {
    const listed = [`//${server}/public`, `//${server}/private`].map((path) => ({ path, mounted: false }));
    for (const smbPath of [`//${server}`, `//${server}/nowhere`]) {
      const choice = await post('v2/mount-samba', { smbPath, user: 'lab', password: canary });
      assert.equal(choice.status, 300, choice.message);
      assert.equal(choice.message, 'Choose a valid share path');
      assert.deepEqual(choice.data, listed);
    }
    const elsewhere = await post('v2/mount-samba', { smbPath: `//[${server6}]:${otherPort}` });
    assert.equal(elsewhere.status, 300, elsewhere.message);
    assert.deepEqual(elsewhere.data, [
      { path: `//[${server6}]:${otherPort}/public`, mounted: false },
      { path: `//[${server6}]:${otherPort}/private`, mounted: false },
    ]);
    const wrong = await post('v2/mount-samba', { smbPath: `//${server}`, user: 'lab', password: 'wrong' });
    assert.equal(wrong.status, 422, wrong.message);
    const { data, message } = await post('list-nfs', { server });
    const paths = (data as { path: string; mounted: boolean }[]).map(({ path, mounted }) => [path, mounted]);
    assert.deepEqual(
      paths.toSorted(),
      [
        ['/srv/nfs', false],
        ['/srv/nfs2', false],
      ],
      message,
    );
    await nothingLeft();
  });

  it('shares with a password of commas and quotes, by an IPv6 address, by a port, below a share: all are mounted', async (t) => {
    const mounted = async (
      answer: Promise<{ status: number; data: unknown; message: string }>,
      name: string,
    ) => {
      const { status, data, message } = await answer;
      assert.deepEqual([status, data], [200, { path: `${shareRoot}/${name}` }], message);
    };
    const watch = new SharesWatch(node.vm);
    await node.vm.put('/run/lab/needle', needle, 0o600);
    await watch.start('needles', '/run/lab/needle');
    await watch.until('a look at all processes', 60_000, () => watch.rounds > 0);
    await mounted(mount(`//${server}/private`, 'lab', canary), 'private');
    await mounted(post('v2/mount-samba', { smbPath: `//[${server6}]/public` }), 'public');
    await mounted(mount(`//${server}:${otherPort}/public/sub`), 'sub');
    await mounted(mountNfs(server, '/srv/nfs'), 'nfs');
    await mounted(mountNfs(server6, '/srv/nfs2'), 'nfs2');
    await post('v2/mount-samba', { smbPath: `//${server}`, user: 'lab', password: canary });
    await post('mount-samba', { smbPath: `//${server}/nowhere`, user: 'lab', password: `${canary}x` });
    const before = watch.rounds;
    await watch.until('more looks', 60_000, () => watch.rounds >= before + 20);
    // What it would have found it in was seen while it ran; and it does find what is there.
    const programs = [...watch.programs].filter((name) => /(^|\/)(mount\.cifs|mount|smbclient)$/.test(name));
    assert.ok(programs.length >= 2, `seen: ${[...watch.programs].join(' ')}`);
    assert.deepEqual(watch.found, []);
    await node.vm.run(['sh', '-c', `X=${needle} sleep 2; exit 0`], { env: { PLANTED: needle } });
    await watch.until('what was planted', 60_000, () => watch.found.length > 0);
    watch.stop();
    t.diagnostic(
      `arguments and environments of all processes read ${watch.rounds} times; ${programs.join(', ')} among them`,
    );
    const paths = await node.paths();
    assert.deepEqual(
      paths.map(({ path, type, invalid }) => [path, type, invalid]),
      allPaths.map((path) => [path, pathsOf('smb').includes(path) ? 'smb' : 'nfs', false]),
    );
    await readable();
    for (const path of allPaths) {
      const { used, inodesUsed } = await saysWhatDfSays(node, path);
      t.diagnostic(`${path}: ${used} bytes, ${inodesUsed} inodes used, as df says`);
    }
  });

  for (const loss of losses) {
    const how = loss === 'kill' ? 'killed: connections are refused' : 'silent: nothing comes back';
    it(`servers that are ${how}`, async (t) => {
      const pid = await daemonPid();
      const watch = new SharesWatch(node.vm);
      // What the watch costs when it starts is no measure of the daemon.
      await watch.phase('start');
      await watch.start('threads', pid);
      await watch.start('pace');
      await watch.allInvalid(allPaths, false, 120_000);
      await watch.answers('start', count / 5);
      await watch.phase('before');
      await watch.answers('before', 2 * count);
      await watch.phase('dead');
      const figures: string[] = [];
      const before = await nfsVersions();
      for (const kind of ['smb', 'nfs'] as const) {
        const lost = await turn(node.vm, loss, kind);
        const invalid = (await watch.allInvalid(pathsOf(kind), true, 60_000)) - lost;
        figures.push(`${kind} invalid after ${invalid} ms`);
        assert.ok(invalid <= 10_000, `${kind}: invalid after ${invalid} ms`);
      }
      const lostAt = performance.now();
      await watch.answers('dead', count);
      await setTimeout(lostAt + awayMs - performance.now());
      if (loss === 'silence') await aHangIsSeen();
      await watch.phase('return');
      for (const kind of ['smb', 'nfs'] as const) figures.push(await comeBack(watch, kind));
      figures.push(`nfs by ${before}, then by ${await nfsVersions()}`);
      // A server that was started again waits for those that it knew.
      if (loss === 'kill') assert.equal(await nfsVersions(), before);
      await watch.answers('return', 200);
      watch.stop();
      assert.equal(await daemonPid(), pid, 'the daemon was not started anew');
      report(t, watch, figures);
    });
  }

  /** The same watch finds a program that waits for a dead server, as the daemon would if it asked one itself. */
  async function aHangIsSeen(): Promise<void> {
    const pid = deferred<string>();
    const argv = ['sh', '-c', 'echo $$; exec stat --file-system "$1"', 'sh', `${shareRoot}/nfs`];
    const asking = node.vm.follow(argv, pid.resolve);
    const watch = new SharesWatch(node.vm);
    await watch.start('threads', await within(30_000, 'a program that asks', pid.promise));
    await watch.until('its hang', 60_000, () => hangs(watch.waits).length > 0);
    watch.stop();
    asking.stop();
  }

  function report(t: TestContext, watch: SharesWatch, figures: readonly string[]): void {
    const told = (['start', 'before', 'dead', 'return'] as const).map((phase) => {
      const [half, most] = [0.5, 0.99].map((share) => watch.percentile(share, phase).toFixed(1));
      return `${phase} p50 ${half} ms, p99 ${most} ms of ${watch.count(phase)} answers`;
    });
    t.diagnostic(figures.join('; '));
    t.diagnostic(`API ${told.join('; ')}`);
    t.diagnostic(
      `${watch.looks} looks at ${watch.threads} threads: ${watch.waits.length} found one in a moment's wait for memory or own disk`,
    );
    assert.deepEqual(hangs(watch.waits), []);
    assert.ok(watch.looks >= 500, `${watch.looks} looks`);
    const [quiet, lost] = [watch.percentile(0.99, 'before'), watch.percentile(0.99, 'dead', 'return')];
    assert.ok(lost <= 2 * quiet, `API p99 ${lost} ms from the loss until all are back, ${quiet} ms before`);
  }

  it('a share whose server is silent can be unmounted all the same, and is mounted anew when it is back', async (t) => {
    const again = {
      smb: { name: 'sub', mount: () => mount(`//${server}:${otherPort}/public/sub`) },
      nfs: { name: 'nfs2', mount: () => mountNfs(server6, '/srv/nfs2') },
    };
    for (const kind of ['smb', 'nfs'] as const) {
      await turn(node.vm, 'silence', kind);
      const { name } = again[kind];
      const path = `${shareRoot}/${name}`;
      const isDead = (rows: readonly { path: string; invalid: boolean }[]) =>
        rows.some((row) => row.path === path && row.invalid);
      await node.until(`${path} invalid`, 60_000, isDead);
      const began = performance.now();
      const { status, message } = await post(`umount-${kind === 'smb' ? 'samba' : 'nfs'}`, { path });
      t.diagnostic(
        `${name} unmounted while its server is silent: ${Math.round(performance.now() - began)} ms`,
      );
      assert.equal(status, 200, message);
      assert.ok((await node.paths()).every((row) => row.path !== path));
      await untilRemoved(node.vm, path);
      await turn(node.vm, 'restore', kind);
    }
    await node.until('the others valid', 60_000, (rows) => rows.every((row) => !row.invalid));
    for (const { mount: anew } of Object.values(again)) {
      const { status, message } = await anew();
      assert.equal(status, 200, message);
    }
    await readable();
  });

  it('the password is nowhere: no environment, journal, store, log or answer', async () => {
    for (const path of [
      '/audit',
      '/jobs',
      '/system/conditions',
      '/system/mounted-path',
      '/metrics',
      '/storage/disks',
    ]) {
      const script = 'curl --silent --show-error --unix-socket /run/beosd/beosd.sock "http://localhost$1"';
      said.push((await node.vm.run(['sh', '-c', script, 'sh', path])).stdout);
    }
    const events =
      'curl --silent --max-time 5 --unix-socket /run/beosd/beosd.sock --header "Last-Event-ID: 1" http://localhost/events';
    const { stdout } = await node.vm.run(['sh', '-c', events], { okCodes: [28] });
    assert.match(stdout, /event: mount/);
    said.push(stdout);
    assert.ok(said.every((text) => !text.includes(needle)));
    // The search itself must not be found: it gets what it looks for from a file.
    const searches = [
      'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | grep -acFf /run/lab/needle',
      'journalctl --no-pager | grep -acFf /run/lab/needle',
      'grep -raFf /run/lab/needle --files-with-matches /var/lib/beosd /var/log /etc /tmp /run --exclude=needle | wc -l',
      'cat /proc/mounts /proc/[0-9]*/mountinfo 2>/dev/null | grep -acFf /run/lab/needle',
    ];
    for (const each of searches) {
      const { stdout: found } = await node.vm.run(['sh', '-c', `${each} || true`]);
      assert.equal(found.trim(), '0', each);
    }
  });

  it('after a reboot with the servers off all come when they do, and can be read', async (t) => {
    await untilGoneAreForgotten(node.vm);
    await node.vm.run(['systemctl', 'disable', 'smbd', 'nfs-server']);
    await node.vm.run(['sync']);
    const began = performance.now();
    await node.vm.reboot();
    const rebooted = performance.now() - began;
    node = await startNode(node.vm);
    const watch = new SharesWatch(node.vm);
    await watch.phase('off');
    await watch.start('pace');
    await watch.allInvalid(allPaths, true, 60_000);
    t.diagnostic(`reboot ${Math.round(rebooted)} ms`);
    for (const kind of ['smb', 'nfs'] as const) t.diagnostic(await comeBack(watch, kind));
    watch.stop();
  });

  it('unmounted they are gone, with their folders and for good', async () => {
    for (const name of folders.smb) {
      const { status, message } = await post('umount-samba', { path: `${shareRoot}/${name}` });
      assert.equal(status, 200, message);
      await untilRemoved(node.vm, `${shareRoot}/${name}`);
    }
    for (const path of folders.nfs) {
      const { status, message } = await post('umount-nfs-incluster', { path });
      assert.equal(status, 200, message);
    }
    await nothingLeft();
  });
});
