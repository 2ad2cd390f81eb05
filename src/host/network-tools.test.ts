import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { type Exec, ExecError, SystemExec } from '#host/exec.ts';
import { type Resolve, SystemNetworkTools } from '#host/network-tools.ts';

test('a name that is not resolved in time is asked for once, however often its server is dialled', async () => {
  let asked = 0;
  const answers: (() => void)[] = [];
  const resolve: Resolve = (_, __, done) => {
    asked++;
    answers.push(() => done(null, [{ address: '127.0.0.1', family: 4 }]));
  };
  const tools = new SystemNetworkTools(new SystemExec(), resolve);
  for (let n = 0; n < 5; n++) assert.equal(await tools.answers('nas.test', 445, 5), false);
  assert.equal(asked, 1);
  for (const answer of answers.splice(0)) answer();
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const dialled = tools.answers('nas.test', port, 5000);
  for (const answer of answers.splice(0)) answer();
  assert.equal(await dialled, true);
  assert.equal(asked, 2, 'an answer is not kept: a server may move');
  server.close();
});

test('a server that refuses, and a name that nobody has, do not answer', async () => {
  const none: Resolve = (_, __, done) => done(new Error('ENOTFOUND'), []);
  assert.equal(await new SystemNetworkTools(new SystemExec(), none).answers('nas.test', 445, 5000), false);
  // A port that the kernel hands out to nobody, unlike one that a server has just left.
  assert.equal(await new SystemNetworkTools(new SystemExec()).answers('127.0.0.1', 1, 5000), false);
});

test('the shares of an IPv6 address are those that smbclient lists, although it fails for a workgroup then', async () => {
  const rows = 'Disk|public|\nIPC|IPC$|IPC Service\n';
  const saying = (stdout: string): Exec => ({
    run: (file, args) =>
      Promise.reject(new ExecError({ file, args, reason: 'exit', exitCode: 1, stdout, stderr: '' })),
    lines: () => assert.fail('no listener'),
    started: 0,
  });
  const list = (stdout: string) =>
    new SystemNetworkTools(saying(stdout)).smbShares('fd77::1', 445, undefined);
  const note = 'fd77::1 is an IPv6 address -- no workgroup available';
  assert.equal(await list(`${rows}${note}`), `${rows}${note}`);
  await assert.rejects(list(`${rows}session setup failed: NT_STATUS_LOGON_FAILURE`), ExecError);
  await assert.rejects(list(note), /listed nothing/);
});

test('a share is entered, and the folder of it that was named, by arguments that nothing in them can make more', async () => {
  const ran: (readonly string[])[] = [];
  const exec: Exec = {
    run: async (file, args) => {
      ran.push([file, ...args]);
      return { exitCode: 0, stdout: '', stderr: '' };
    },
    lines: () => assert.fail('no listener'),
    started: 0,
  };
  const tools = new SystemNetworkTools(exec);
  await tools.smbEnter('nas', undefined, 'public', '/run/login');
  await tools.smbEnter('fd77::1', 4455, 'a b/-x/y z', undefined);
  const signed = ['--authentication-file=/run/login', '--option=clientsigning=required'];
  assert.deepEqual(ran, [
    ['smbclient', ...signed, '--command=exit', '//nas/public'],
    ['smbclient', '--no-pass', '--port=4455', '--ip-address=fd77::1'].concat([
      '--directory=-x/y z',
      '--command=exit',
      '//fd77::1/a b',
    ]),
  ]);
});
