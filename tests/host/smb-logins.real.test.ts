import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { SystemExec } from '#host/exec.ts';
import { FakeSecrets } from '#host/fake/secrets.ts';
import { SystemNetworkTools } from '#host/network-tools.ts';
import { isFault } from '#lib/fault.ts';
import { enterShare } from '#storage/share-lists.ts';
import { hasProgram } from '../support/loop-disk.ts';

/** A user of every Debian machine who owns nothing, and here has a password for SMB. */
const user = 'games';
const smbd = '/usr/sbin/smbd';

function missing(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  return existsSync(smbd) && hasProgram('smbclient') ? undefined : 'needs smbd and smbclient';
}

/** What smb.conf has to say so that this server touches nothing but a folder of its own. */
function configOf(dir: string, signing: string): string {
  const folders = ['state', 'cache', 'lock', 'private', 'pid', 'ncalrpc'];
  for (const name of [...folders, 'share', 'cores']) mkdirSync(join(dir, name), { mode: 0o700 });
  const private_ = `private dir = ${dir}/private\npassdb backend = tdbsam:${dir}/private/passdb.tdb`;
  // It goes in as its users.
  for (const path of [dir, join(dir, 'share')]) chmodSync(path, 0o755);
  const config = `[global]
server role = standalone server
map to guest = Bad User
server signing = ${signing}
disable netbios = yes
load printers = no
log file = ${dir}/log
ncalrpc dir = ${dir}/ncalrpc
pid directory = ${dir}/pid
state directory = ${dir}/state
cache directory = ${dir}/cache
lock directory = ${dir}/lock
${private_}
[mixed]
path = ${dir}/share
guest ok = yes
[closed]
path = ${dir}/share
`;
  const path = join(dir, 'smb.conf');
  writeFileSync(path, config);
  return path;
}

/** A real Samba, begun for each connection with it as its input, as inetd does; gone with the test. */
async function samba(t: TestContext, signing: string): Promise<{ port: number; login: string }> {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-smb-'));
  const config = configOf(dir, signing);
  const added = spawnSync('smbpasswd', ['-c', config, '-s', '-a', user], { input: 'pw\npw\n' });
  assert.equal(added.status, 0, String(added.stderr));
  const ended: Promise<unknown>[] = [];
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    // In a group of its own, all of which it ends when it ends.
    const args = ['--configfile', config, '--foreground'];
    const child = spawn(smbd, args, { stdio: [socket, 'ignore', 'ignore'], detached: true });
    ended.push(once(child, 'exit'));
    socket.destroy();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(async () => {
    server.close();
    await Promise.all(ended);
    rmSync(dir, { recursive: true });
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return { port, login: join(dir, 'login') };
}

const skip = missing() ?? false;

for (const signing of ['default', 'disabled']) {
  const title = `a login opens a share of a real Samba as itself or not at all, server signing = ${signing}`;
  test(title, { skip }, async (t) => {
    const { port, login } = await samba(t, signing);
    const network = new SystemNetworkTools(new SystemExec());
    const secrets = Object.assign(new FakeSecrets(), {
      withFile: async <T>(text: string, use: (path: string) => Promise<T>) => {
        writeFileSync(login, text, { mode: 0o600 });
        return await use(login);
      },
    });
    const enter = async (share: string, who: string, password: string) => {
      const target = { server: '127.0.0.1', port, path: share };
      try {
        await enterShare({ network, secrets }, target, { user: who, password });
        return 'opened';
      } catch (error) {
        return isFault(error) ? `${error.code}: ${error.message}` : String(error);
      }
    };
    assert.equal(await enter('mixed', user, 'pw'), 'opened');
    assert.equal(await enter('closed', user, 'pw'), 'opened');
    const asGuest =
      'mount_refused: mount error(13): Permission denied (the server takes this user for a guest)';
    assert.equal(await enter('mixed', 'stranger', 'junk'), asGuest);
    assert.equal(await enter('closed', 'stranger', 'junk'), asGuest);
    assert.match(await enter('mixed', user, 'junk'), /^mount_refused: mount error\(13\).*LOGON_FAILURE/);
    assert.match(await enter('mixed/a:b', user, 'pw'), /^mount_refused: mount error\(2\).*NAME_INVALID/);
    // Without a login a guest is what is asked for.
    await network.smbEnter('127.0.0.1', port, 'mixed', undefined);
  });
}
