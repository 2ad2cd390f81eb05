import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { FakeSecrets } from '#host/fake/secrets.ts';
import { isFault } from '#lib/fault.ts';
import type { NetworkTools } from '#storage/ports.ts';
import { pass, shares } from '../../tests/support/fake-shares.ts';
import { quickStore, shareRoot } from '../../tests/support/fake-storage.ts';

test('a login that is refused is not tried again and again because its server comes and goes', async () => {
  for (const words of ['mount error(13): Permission denied', 'mount error(127): Key has expired']) {
    let tries = 0;
    const guard = (call: string) => {
      if (call === 'mount') tries++;
    };
    const { storage, machine, clock, mount, lose } = await shares({ guard });
    await mount('nas', { user: 'ann', password: 'pw' });
    await lose('nas', words);
    const [before, began] = [tries, clock.monotonic()];
    while (clock.monotonic() - began < 3_600_000) {
      machine.servers.delete('nas');
      await pass(clock, 10_000);
      machine.servers.add('nas');
      await pass(clock, 50_000);
    }
    // Once for the return of the server, then after 10, 20 and 40 minutes.
    assert.ok(tries - before >= 2 && tries - before <= 4, `${words}: ${tries - before} tries in an hour`);
    await storage.close();
  }
});

test('credentials that are good are kept until others have proved to be, also over a crash between', async () => {
  const sealedMeanwhile: (string | undefined)[] = [];
  let spy: (call: string) => void = () => undefined;
  const { storage, machine, mount, row, refuse, entryOf } = await shares({ guard: (call) => spy(call) });
  await mount('nas', { user: 'ann', password: 'good' });
  const good = row('nas').sealed;
  assert.ok(good);
  machine.umountForeign(entryOf('nas')?.id ?? Number.NaN);
  const mend = refuse('nas', 'mount error(13): Permission denied');
  spy = (call) => {
    if (call === 'mount') sealedMeanwhile.push(row('nas').sealed);
  };
  const refused = mount('nas', { user: 'ann', password: 'wrong' });
  await assert.rejects(refused, (error) => isFault(error) && error.code === 'mount_refused');
  assert.deepEqual([...sealedMeanwhile, row('nas').sealed], [good, good]);
  assert.equal(row('nas').wanted, true);
  mend();
  await mount('nas', { user: 'ann', password: 'new' });
  assert.notEqual(row('nas').sealed, good);
  await storage.close();
});

test('a login that differs is kept for a share that is mounted, once it has opened the share itself', async () => {
  const asked: string[] = [];
  let refuses = false;
  const smbEnter: NetworkTools['smbEnter'] = async (server, port, path, file) => {
    asked.push(`${server}:${port ?? ''} ${path} ${file === undefined ? 'nobody' : 'a login'}`);
    if (!refuses) return;
    const how = { file: 'smbclient', args: [], reason: 'exit', exitCode: 1, stdout: '' } as const;
    throw new ExecError({ ...how, stderr: 'tree connect failed: NT_STATUS_ACCESS_DENIED' });
  };
  // A server that takes strangers for guests lists its shares for every user, and opens few of them.
  const smbShares = async () => 'Disk|nas-files|\n';
  const { storage, secrets, mount, row } = await shares({ network: { smbShares, smbEnter } });
  const kept = () => secrets.open('smb://nas:445/nas-files', row('nas').sealed ?? '');
  await mount('nas', { user: 'ann', password: 'old' });
  await mount('nas', { user: 'ann', password: 'old' });
  await mount('nas');
  assert.deepEqual(asked, [], 'nothing new');
  refuses = true;
  const wrong = mount('nas', { user: 'ann', password: 'wrong' });
  await assert.rejects(wrong, (error) => isFault(error) && /mount error\(13\)/.test(error.message));
  assert.equal(await kept(), 'username=ann\npassword=old\n');
  refuses = false;
  assert.equal(await mount('nas', { user: 'ann', password: 'new' }), `${shareRoot}/nas-files`);
  assert.equal(await kept(), 'username=ann\npassword=new\n');
  assert.deepEqual(new Set(asked), new Set(['nas: nas-files a login']));
  await storage.close();
});

test('a login by which the server takes its user for a guest does not replace the one that is kept', async () => {
  const smbEnter: NetworkTools['smbEnter'] = async () => {
    // As smbclient 4.17 said it, on both of its outputs.
    const stderr =
      'Bad SMB2 (sign_algo_id=2) signature for message\n[0000] 00 00 00 00 00 00 00 00   ........\n';
    const stdout = 'session setup failed: NT_STATUS_ACCESS_DENIED\n';
    throw new ExecError({ ...{ file: 'smbclient', args: [], reason: 'exit', exitCode: 1 }, stdout, stderr });
  };
  const { storage, mount, row } = await shares({ network: { smbEnter } });
  await mount('nas', { user: 'ann', password: 'good' });
  const good = row('nas').sealed;
  await assert.rejects(mount('nas', { user: 'stranger', password: 'junk' }), (error) => {
    const words = 'mount error(13): Permission denied (the server takes this user for a guest)';
    return isFault(error) && error.code === 'mount_refused' && error.message === words;
  });
  assert.equal(row('nas').sealed, good);
  await storage.close();
});

test('of a share that is not mounted the conditions say why, and what can be done', async () => {
  const { storage, machine, clock, mount, lose, problems } = await shares();
  const dead = () => problems().find((each) => each.code === 'mount_dead');
  await mount('nas', { user: 'ann', password: 'pw' });
  const mend = await lose(
    'nas',
    'mount error(13): Permission denied\nRefer to the mount.cifs(8) manual page',
  );
  await pass(clock, 60_000);
  assert.match(dead()?.message ?? '', /is not mounted .*: mount error\(13\): Permission denied$/);
  assert.match(dead()?.remedy ?? '', /password/);
  const theirs = machine.mountForeign('tmpfs', `${shareRoot}/nas-files`);
  await pass(clock, 61_000);
  assert.match(dead()?.message ?? '', /tmpfs is mounted there by somebody else$/);
  machine.umountForeign(theirs);
  machine.servers.delete('nas');
  await pass(clock, 70_000);
  assert.match(dead()?.message ?? '', /does not answer/);
  machine.servers.add('nas');
  mend();
  await pass(clock, 70_000);
  assert.equal(dead(), undefined);
  await storage.close();
});

test('a share whose credentials cannot be opened any more is kept, and it is told', async () => {
  const store = quickStore();
  const before = await shares({ store });
  await before.mount('nas', { user: 'ann', password: 'pw' });
  await before.storage.close();
  before.machine.forgetWatchers();
  before.machine.reboot();
  const open = () => Promise.reject(new Error('the key is gone'));
  const secrets = Object.assign(new FakeSecrets(), { open });
  const { storage, problems, row } = await shares({
    ...{ store, machine: before.machine, bootId: 'boot-2', real: { secrets } },
  });
  assert.equal(row('nas').sealed, before.row('nas').sealed);
  const dead = problems().find((each) => each.code === 'mount_dead');
  assert.match(dead?.message ?? '', /credentials are kept, but cannot be opened: the key is gone/);
  await storage.close();
});

test('who asks for a share that is mounted but dead hears that its server is away, and the mount stays', async () => {
  const { storage, machine, clock, mount, row, entryOf } = await shares();
  await mount('nas', { user: 'ann', password: 'pw' });
  const before = [row('nas'), entryOf('nas')];
  machine.servers.delete('nas');
  machine.dead.add(`${shareRoot}/nas-files`);
  await pass(clock, 4000);
  for (const password of ['pw', 'other']) {
    const away = (error: unknown) =>
      isFault(error) &&
      error.code === 'server_unreachable' &&
      /^mount error\(113\): could not connect to nas/.test(error.message);
    await assert.rejects(mount('nas', { user: 'ann', password }), away);
  }
  assert.deepEqual([row('nas'), entryOf('nas')], before);
  machine.dead.clear();
  machine.servers.add('nas');
  assert.equal(await mount('nas'), `${shareRoot}/nas-files`, 'as soon as it answers it is there');
  await storage.close();
});
