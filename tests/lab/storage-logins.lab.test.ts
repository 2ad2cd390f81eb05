import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { labAvailable } from './available.ts';
import { bootFileServers, canary, server } from './file-servers.ts';
import { type BeosNode, shareRoot } from './node.ts';

const reason = await labAvailable('guest');

/** A server as Debian sets it up: who it does not know is a guest, and may list the shares. */
describe('the login of a share that is mounted', { skip: reason ?? false, timeout: 20 * 60_000 }, () => {
  let node: BeosNode;
  before(async () => {
    node = await bootFileServers();
  });
  after(() => node.vm[Symbol.asyncDispose]());

  const mount = (share: string, user: string, password: string) =>
    node.call('POST', '/command/mount-samba', { smbPath: `//${server}/${share}`, user, password });
  /** What the store keeps of the login, sealed. */
  const sealed = async (share: string) => {
    const script = `
      const { DatabaseSync } = require('node:sqlite');
      const db = new DatabaseSync('/var/lib/beosd/beosd.db', { readOnly: true });
      console.log(db.prepare('SELECT sealed FROM mounts WHERE name = ?').get(process.argv[1]).sealed);`;
    return (await node.vm.run(['node', '-e', script, share])).stdout;
  };

  for (const share of ['private', 'public']) {
    it(`is replaced by one that opens it, and by no other: ${share}`, async () => {
      const first = await mount(share, 'lab', canary);
      assert.equal(first.status, 200, first.message);
      const kept = await sealed(share);
      assert.match(kept, /^(systemd|key):\S{20}/);
      for (const [user, password] of [
        ['labb', canary],
        ['lab', 'wrong'],
      ] as const) {
        const { status, message } = await mount(share, user, password);
        assert.equal(status, 422, `${user}: ${message}`);
        assert.match(message, /mount error\(13\)/);
        assert.equal(await sealed(share), kept, 'the good login is still there');
      }
      assert.equal((await mount(share, 'lab', canary)).status, 200);
      assert.equal((await node.vm.run(['cat', `${shareRoot}/${share}/a.txt`])).stdout, 'smb\n');
    });
  }
});
