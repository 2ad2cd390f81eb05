import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { messageOf } from '#lib/fault.ts';
import { labAvailable } from './available.ts';
import { within } from './deadline.ts';
import { bootContainer, type Container } from './nspawn.ts';
import { ownRuns } from './runs.ts';

const reason = await labAvailable('container');

/** A server that says it is ready by sd_notify and answers with its pid, restarted by systemd as the daemon is. */
const serverSource = `
import { createServer } from 'node:http';
import { execFileSync } from 'node:child_process';
createServer((_, answer) => answer.end(JSON.stringify({ pid: process.pid })))
  .listen(18088, '127.0.0.1', () => execFileSync('systemd-notify', ['--ready']));
`;
const files = {
  '/opt/server.mjs': serverSource,
  '/etc/systemd/system/server.service': [
    '[Service]\nType=notify\nNotifyAccess=all\nRestart=always\nRestartSec=50ms',
    'ExecStart=/usr/local/bin/node /opt/server.mjs\n',
  ].join('\n'),
};

describe('a container of the lab', { skip: reason ?? false, timeout: 15 * 60_000 }, () => {
  let box: Container;
  before(async () => {
    box = await bootContainer({ files, enable: ['server.service'] });
  });
  after(() => box[Symbol.asyncDispose]());

  it('boots systemd as PID 1 with no failed unit', async () => {
    assert.equal(await box.booted(), 'running');
    assert.equal((await box.run(['cat', '/proc/1/comm'])).stdout, 'systemd\n');
    assert.equal((await box.run(['systemctl', '--failed', '--no-legend'])).stdout, '');
  });

  it('has the loopback and no other network', async () => {
    const { stdout } = await box.run(['ip', '-json', 'link']);
    const links = JSON.parse(stdout) as { ifname: string }[];
    assert.deepEqual(
      links.map((link) => link.ifname),
      ['lo'],
    );
  });

  it('runs the Node of the tests', async () => {
    const { stdout } = await box.run(['node', '--version']);
    assert.equal(stdout.trim(), process.version);
  });

  it('reports the exit code and the words of a command that fails', async () => {
    const failed = { name: 'ExecError', exitCode: 3, stderr: 'no\n' };
    await assert.rejects(box.run(['sh', '-c', 'echo no >&2; exit 3']), failed);
    assert.equal((await box.run(['sh', '-c', 'exit 3'], { okCodes: [3] })).exitCode, 3);
  });

  it('copies a folder in with its modes', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lab-copy-'));
    await writeFile(join(folder, 'secret'), 'x', { mode: 0o600 });
    await box.copyIn(folder, '/opt/copied');
    await rm(folder, { recursive: true });
    assert.equal((await box.run(['stat', '--format=%a %s', '/opt/copied/secret'])).stdout, '600 1\n');
  });

  it('lets systemd restart a killed server while a transient unit goes on', async () => {
    const first = (await box.http('/')).json() as { pid: number };
    await box.run(['systemd-run', '--unit=installer', '--collect', 'sleep', '1000']);
    const cursor = await box.journalEnd();
    await box.run(['kill', '-9', String(first.pid)]);
    await box.journalLine(cursor, 'server.service', /^Started /);
    const second = (await box.http('/')).json() as { pid: number };
    assert.notEqual(second.pid, first.pid);
    assert.equal((await box.run(['systemctl', 'is-active', 'installer'])).stdout, 'active\n');
  });

  it('reboots on the request of logind and keeps its disk', async () => {
    const before = box.leader;
    await box.run(['sh', '-c', 'echo kept > /root/kept; touch /run/lost']);
    assert.equal(await box.reboot(), 'running');
    assert.notEqual(box.leader, before);
    assert.equal((await box.run(['cat', '/root/kept'])).stdout, 'kept\n');
    assert.equal((await box.run(['test', '-e', '/run/lost'], { okCodes: [0, 1] })).exitCode, 1);
    assert.equal((await box.http('/')).status, 200);
  });

  it('comes up again after all its processes were killed at once', async () => {
    await box.run(['sh', '-c', 'echo kept > /root/cut']);
    assert.equal(await box.killAll(), 'running');
    assert.equal((await box.run(['cat', '/root/cut'])).stdout, 'kept\n');
  });

  it('says when it has powered off, and leaves nothing behind', async () => {
    const runs = async () => (await ownRuns()).length;
    const before = await runs();
    const other = await bootContainer();
    const leader = other.leader;
    // Its answer may be lost on the way down.
    const said = await other.run(['systemctl', 'poweroff']).catch(messageOf);
    const what = `the end of the container (${JSON.stringify(said)})`;
    assert.equal(await within(60_000, what, other.ended), 0);
    assert.equal(await runs(), before + 1);
    await other[Symbol.asyncDispose]();
    assert.throws(() => process.kill(leader, 0), { code: 'ESRCH' });
    assert.equal(await runs(), before);
  });
});
