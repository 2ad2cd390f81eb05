import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFault } from '#lib/fault.ts';
import {
  checkLogin,
  credentialsFile,
  listFault,
  mountFault,
  parseSmbPath,
  smbclientFile,
} from '#storage/smb.ts';

test('the words of a mount program tell a refusal from a server that is away and from what this machine lacks', () => {
  const said = {
    mount_refused: [
      'mount error(2): No such file or directory',
      'mount error(6): No such device or address',
      'mount error(13): Permission denied',
      'mount error(16): Device or resource busy',
      'mount error(22): Invalid argument',
      'mount error(95): Operation not supported',
      'mount.nfs: access denied by server while mounting nas:/x',
      'mount.nfs: mounting nas:/x failed, reason given by server: No such file or directory',
    ],
    server_unreachable: [
      'mount error(101): Network is unreachable',
      'mount error(111): Connection refused',
      'mount error(112): Host is down',
      'mount error(113): could not connect to 10.0.0.9',
      'mount error(115): Operation now in progress',
      'mount error: could not resolve address for nas: Unknown error',
      "mount.nfs: mount to NFS server 'nas' failed: RPC Error: Program not registered",
      'mount.nfs: Connection timed out',
      'mount.nfs: Failed to resolve server nas: Name or service not known',
    ],
    mount_failed: [
      'mount error(12): Cannot allocate memory',
      'mount error(19): No such device',
      'mount error(79): Can not access a needed shared library',
      'mount.nfs: No such device',
      'mount.nfs: rpc.statd is not running but is required for remote locking.',
      "mount: /beos/share/x: unknown filesystem type 'cifs'.",
      'mount: /beos/share/x: wrong fs type, bad option, bad superblock on //nas/x, missing codepage or helper program.',
    ],
  };
  for (const [code, all] of Object.entries(said)) {
    for (const words of all) {
      const refusal = mountFault(words, false);
      assert.deepEqual([refusal.code, refusal.message], [code, words]);
    }
  }
  assert.equal(mountFault('', true).code, 'server_unreachable');
});

test('the files of a login part domain and user, and keep what smbclient would drop', () => {
  const files = (user: string, password: string) => {
    const login = checkLogin(user, password);
    assert.ok(login);
    return [credentialsFile(login), smbclientFile(login)];
  };
  const both = 'username=ann\npassword=a,b"\'%=\\ x \ndomain=HOME\n';
  assert.deepEqual(files('HOME\\ann', 'a,b"\'%=\\ x '), [both, both]);
  assert.deepEqual(files('HOME\\ann', ' pw'), [
    'username=ann\npassword= pw\ndomain=HOME\n',
    'username=ann% pw\ndomain=HOME\n',
  ]);
  const upn = 'username=ann@home.example\npassword=\n';
  assert.deepEqual(files('ann@home.example', ''), [upn, upn]);
  for (const user of ['\\ann', 'HOME\\', 'HOME\\ann\\x', 'a%b', 'a/b', 'a,b', 'a\u0085b'])
    assert.throws(() => checkLogin(user, 'pw'), isFault, user);
});

test('a server is a name or an address, also with an underscore as Windows has them, and nothing else', () => {
  const serverOf = (path: string) => parseSmbPath(path).server;
  assert.equal(serverOf('//MY_NAS/public'), 'my_nas');
  assert.equal(serverOf('\\\\NAS.home\\public\\'), 'nas.home');
  assert.equal(serverOf('//[FD77::1]:4455/a b/c'), 'fd77::1');
  for (const server of ['-a', 'a-', 'a b', 'a;b', '$(x)', 'ä', 'user@nas', '%6eas', '[nas]', 'a,b', 'a_.-b'])
    assert.throws(() => parseSmbPath(`//${server}/public`), isFault, server);
});

test('what smbclient says of a share is told in the words of mount.cifs', () => {
  const said = (words: string) => {
    const { code, message } = listFault(words);
    return `${code} ${/^mount error\(\d+\)/.exec(message)?.[0]}`;
  };
  assert.equal(said('session setup failed: NT_STATUS_LOGON_FAILURE'), 'mount_refused mount error(13)');
  assert.equal(said('tree connect failed: NT_STATUS_ACCESS_DENIED'), 'mount_refused mount error(13)');
  assert.equal(said('tree connect failed: NT_STATUS_BAD_NETWORK_NAME'), 'mount_refused mount error(2)');
  assert.equal(said('cd \\sub\\: NT_STATUS_OBJECT_NAME_NOT_FOUND'), 'mount_refused mount error(2)');
  assert.equal(said('cd \\a:b\\: NT_STATUS_OBJECT_NAME_INVALID'), 'mount_refused mount error(2)');
  for (const away of [
    'do_connect: Connection to nas failed (Error NT_STATUS_CONNECTION_REFUSED)',
    'protocol negotiation failed: NT_STATUS_CONNECTION_DISCONNECTED',
    'protocol negotiation failed: NT_STATUS_CONNECTION_RESET',
  ])
    assert.equal(said(away), 'server_unreachable mount error(113)');
});
