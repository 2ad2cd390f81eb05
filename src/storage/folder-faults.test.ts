import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeMachine } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { onFolder } from '#storage/folder-faults.ts';
import { pass, shares } from '../../tests/support/fake-shares.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const errno = (code: string) => Object.assign(new Error(`${code}: mkdir`), { code });
const path = `${shareRoot}/nas-files`;

test('what a file system refuses a mount point for is told in words that say what to do', () => {
  const told: [string, RegExp][] = [
    ['EEXIST', /somebody else has made/i],
    ['EROFS', /can only be read/],
    ['ENOSPC', /is full/],
    ['EDQUOT', /is full/],
    ['EACCES', /may not/],
    ['EIO', /EIO: mkdir/],
  ];
  for (const [code, words] of told) {
    const cause = errno(code);
    const refused = (error: unknown) =>
      isFault(error) && error.code === 'mount_failed' && words.test(error.message) && error.cause === cause;
    assert.throws(
      () =>
        onFolder(path, () => {
          throw cause;
        }),
      refused,
      code,
    );
  }
  for (const other of [errno('ERR_SQLITE_ERROR'), new Error('a fault of ours')])
    assert.throws(
      () =>
        onFolder(path, () => {
          throw other;
        }),
      other,
    );
});

test('a share whose mount point cannot be made is refused, and nothing of it is left', async () => {
  for (const call of ['ensure', 'list', 'look', 'make', 'rename']) {
    let broken = false;
    const guard = (name: string) => {
      if (!broken || name !== call) return;
      broken = false; // what is cleared up after it is not refused
      throw errno('ENOSPC');
    };
    const { storage, machine, mount, entryOf } = await shares({ guard });
    broken = true;
    await assert.rejects(mount('nas'), (error) => isFault(error) && error.code === 'mount_failed', call);
    assert.equal(broken, false);
    await storage.shares.tend();
    assert.deepEqual([storage.registry.all(), entryOf('nas'), machine.wrongs], [[], undefined, []], call);
    assert.equal(await mount('nas'), path);
    await storage.close();
  }
});

test('a folder that somebody makes while a share is being mounted stays theirs, and the request is refused', async () => {
  let meddle: () => void = () => undefined;
  const guard = (call: string) => {
    if (call === 'rename') meddle();
  };
  const { storage, machine, mount } = await shares({ guard });
  meddle = () => {
    machine.makeForeign(path, 'folder');
    machine.makeForeign(`${path}/note`, 'file');
  };
  const refused = mount('nas');
  await assert.rejects(refused, (error) => isFault(error) && /Somebody else has made/.test(error.message));
  assert.ok(machine.hasFolder(path));
  assert.deepEqual(storage.registry.all(), []);
  await storage.close();
});

test('a disk whose mount point cannot be made is tried again within a minute, not as one that is broken', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const volumes = [{ fstype: 'ext4', uuid: 'u-1', label: 'STICK', files: new Map() }];
  machine.plug({ serial: 'S1', model: 'Acme', transport: 'usb', volumes });
  let full = true;
  const guard = (call: string) => {
    if (full && call === 'make') throw errno('ENOSPC');
  };
  const { storage, clock } = rig({ machine, store: quickStore(), guard });
  await storage.start();
  const [volume] = (await storage.disks()).flatMap((disk) => disk.volumes);
  assert.match(volume?.notMountedBecause ?? '', /is full, so .*STICK cannot be made/);
  full = false;
  await pass(clock, 61_000);
  assert.ok(machine.entries().some(({ target }) => target === `${shareRoot}/STICK`));
  await storage.close();
});
