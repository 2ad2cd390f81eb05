import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { randomFrom } from '../support/random.ts';
import { labAvailable } from './available.ts';
import { bootDaemonBox, type DaemonBox, jobOf } from './daemon-box.ts';

const reason = await labAvailable('container');
const install = { username: 'alice', domain: 'example.com', password: 'canary-4711-secret' };
const moments = 20;

describe('the daemon as it is delivered, under systemd', {
  skip: reason ?? false,
  timeout: 25 * 60_000,
}, () => {
  let node: DaemonBox;
  before(async () => {
    node = await bootDaemonBox();
  });
  after(() => node[Symbol.asyncDispose]());

  it('says that it is ready, and is the main process of its unit', async () => {
    assert.equal(await node.property('ActiveState'), 'active');
    assert.equal(await node.property('SubState'), 'running');
    assert.equal(await node.property('Type'), 'notify');
    assert.equal(await node.property('NRestarts'), '0');
    const pid = await node.property('MainPID');
    assert.match((await node.box.run(['cat', `/proc/${pid}/comm`])).stdout, /^(node|MainThread)/);
    const status = (await node.box.http('/system/status')).json() as { data: { terminusState: string } };
    assert.equal(status.data.terminusState, 'not-installed');
    assert.equal((await node.box.run(['stat', '--format=%a', '/run/beosd/beosd.sock'])).stdout, '600\n');
  });

  it('starts what needs the mounts, when it has tried them', async () => {
    await node.active('beosd-mounts.target');
    const dependent = 'needs-mounts.service';
    const text = [
      ...['[Unit]', 'After=beosd-mounts.target', '[Service]', 'Type=oneshot', 'RemainAfterExit=yes'],
      ...['ExecStart=/bin/true', '[Install]', 'WantedBy=beosd-mounts.target', ''],
    ].join('\n');
    await writeFile(node.box.pathOf(`/etc/systemd/system/${dependent}`), text);
    await node.box.run(['systemctl', 'enable', dependent]);
    await node.box.run(['systemctl', 'stop', 'beosd.service', 'beosd-mounts.target']);
    await node.box.run(['systemctl', 'start', 'beosd.service']);
    await node.active(dependent);
    await node.active('beosd-mounts.target');
    await node.known();
  });

  it('refuses a claim from the loopback, and takes none for it', async () => {
    const answer = await node.signed('loopback', '/command/install', install);
    assert.equal(answer.code, 403);
    assert.equal(answer.error?.code, 'not_on_link', JSON.stringify(answer));
    assert.equal((await node.status()).owned, false);
    assert.deepEqual(await node.installers(), []);
  });

  it(`survives kill -9 at ${moments} random moments of installs: never killed, never twice, the true result`, async (context) => {
    const random = randomFrom(context, 20261124);
    const ends = ['success', 'fail-late', 'success', 'fail'] as const;
    let killed = 0;
    for (let round = 0; killed < moments; round++) {
      const end = ends[round % ends.length] ?? 'success';
      killed += await installWithKills(node, end, random, moments - killed);
      assert.ok(round < moments, 'every install ended before it could be disturbed');
    }
    context.diagnostic(`${killed} kills, each in a running install`);
    assert.equal(await node.property('NRestarts'), String(moments));
    assert.equal(await node.property('ActiveState'), 'active');
  });

  it('is restarted by the watchdog when it hangs, and the installer goes on', async () => {
    await node.play('hang', 0.01);
    const job = jobOf(await node.signed('phone', '/command/install', install));
    const running = await runningInstaller(node);
    await node.box.run(['mkdir', '-p', '/run/systemd/system/beosd.service.d']);
    const shorter = '[Service]\nWatchdogSec=6\nTimeoutAbortSec=5\n';
    await writeFile(node.box.pathOf('/run/systemd/system/beosd.service.d/shorter.conf'), shorter);
    await node.box.run(['systemctl', 'daemon-reload']);
    await node.killDaemon(); // the new interval holds from the next start
    const before = Number(await node.property('NRestarts'));
    const first = await node.property('WatchdogTimestampMonotonic');
    await pause(8_000); // longer than the interval: whoever says nothing would be gone by now
    assert.equal(Number(await node.property('NRestarts')), before);
    assert.ok(Number(await node.property('WatchdogTimestampMonotonic')) > Number(first));
    await node.killDaemon('-STOP');
    assert.equal(Number(await node.property('NRestarts')), before + 1);
    assert.equal((await node.known()).terminusState, 'installing');
    assert.ok(await node.lives(running));
    await node.play('success', 0.01);
    const end = jobOf((await node.asRoot('POST', '/command/uninstall')).json);
    assert.equal((await node.ended(end, 120_000)).state, 'succeeded');
    assert.equal((await node.job(job)).state, 'cancelled');
    assert.equal(await node.lives(running), false);
  });

  it('reboots the machine when root asks for it, and knows afterwards that it did', async () => {
    const before = node.box.leader;
    const next = node.box.nextBoot();
    next.catch(() => undefined); // awaited below, unless the request itself fails
    const job = jobOf((await node.asRoot('POST', '/command/reboot')).json);
    await next;
    assert.notEqual(node.box.leader, before);
    assert.equal(await node.property('ActiveState'), 'active');
    const ended = await node.ended(job);
    assert.equal(ended.state, 'succeeded', JSON.stringify(ended));
    assert.equal((await node.box.run(['systemctl', '--failed', '--no-legend'])).stdout, '');
  });
});

/**
 * One signed install from the phone, the daemon killed at random moments of it; then an uninstall that frees the node.
 * Returns how many kills met an install that had not ended.
 */
async function installWithKills(
  node: DaemonBox,
  mode: 'success' | 'fail' | 'fail-late',
  random: () => number,
  most: number,
): Promise<number> {
  const before = await node.installers();
  await node.play(mode, 1);
  const job = jobOf(await node.signed('phone', '/command/install', install));
  let kills = 0;
  let percent = 0;
  let latest = await node.job(job);
  while (latest.finishedAt === null && kills < most) {
    // The moment itself: from the start of the job, or from the last return of the daemon.
    const after = Math.floor(random() * (kills === 0 ? 1_500 : 3_000));
    await pause(after);
    if ((await node.job(job)).finishedAt !== null) break;
    const own = (await node.installers()).slice(before.length);
    await node.killDaemon();
    kills++;
    latest = await node.job(job);
    const where = `${mode}, kill ${kills} after ${after} ms: ${JSON.stringify(latest)}`;
    const now = (await node.installers()).slice(before.length);
    if (own.length > 0) assert.deepEqual(now, own, `started again: ${where}`);
    if (latest.finishedAt === null && own[0] !== undefined && !(await node.lives(own[0]))) {
      // It may have ended by itself just now; then the job says so in a moment, with the true result.
      latest = await node.ended(job, 10_000);
    }
    assert.ok((latest.percent ?? 0) >= percent, `progress fell from ${percent}: ${where}`);
    percent = latest.percent ?? 0;
  }
  const ended = await node.ended(job);
  assert.equal(ended.state, mode === 'success' ? 'succeeded' : 'failed', JSON.stringify(ended));
  if (mode === 'success') assert.equal(ended.percent, 100);
  else assert.match(ended.error?.message ?? '', /code 1/);
  assert.equal((await node.installers()).length, before.length + 1);
  assert.equal((await node.status()).owned, true);
  await node.play('success', 0.01);
  const uninstall = jobOf((await node.asRoot('POST', '/command/uninstall')).json);
  assert.equal((await node.ended(uninstall)).state, 'succeeded');
  assert.equal((await node.status()).owned, false);
  return kills;
}

async function runningInstaller(node: DaemonBox): Promise<number> {
  for (let look = 0; look < 200; look++) {
    const pid = (await node.installers()).at(-1);
    if (pid !== undefined && (await node.lives(pid))) return pid;
    await pause(50);
  }
  throw new Error('no installer was started');
}
