import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MountEntry } from '#host/mounts.ts';
import { standing } from '#storage/own.ts';
import type { MountRow } from '#storage/registry.ts';

const path = '/srv/share/Pool';
const entry: MountEntry = {
  ...{ id: 74, parent: 66, dev: '0:42', root: '/', target: path, options: ['rw'], propagation: [] },
  ...{ fstype: 'btrfs', source: '/dev/sda', superOptions: [] },
};
const row: MountRow = {
  ...{ identity: 'pool', kind: 'usb', name: 'Pool', disk: 'S1', source: '/dev/sda', fstype: 'btrfs' },
  ...{ wanted: true, phase: 'mounted', dev: '0:42', mountId: 74, bootId: 'boot-1' },
  ...{ folder: undefined, folderToken: undefined, heldOff: undefined, sealed: undefined },
  extra: { mountedAs: 'btrfs' },
};
const kindOf = (seen: MountEntry, known = row) => standing(known, path, [seen], 'boot-1').kind;

test('a mount of somebody else that got the numbers of ours, which is gone, is not ours', () => {
  assert.equal(kindOf(entry), 'ours');
  assert.equal(kindOf({ ...entry, fstype: 'tmpfs', source: 'theirs' }), 'foreign');
});

test('a mount from before its kind was recorded is still known by its numbers', () => {
  assert.equal(kindOf(entry, { ...row, extra: {} }), 'ours');
  assert.equal(kindOf({ ...entry, dev: '0:43' }, { ...row, extra: {} }), 'foreign');
});

test('what the kernel mounts within our NFS mount does not cover it, anything else within does', () => {
  const at = '/srv/share/exp';
  const share: MountRow = { ...row, kind: 'nfs', name: 'exp', source: 'nas:/exp', fstype: 'nfs', extra: {} };
  const options = ['rw', 'nosuid', 'nodev', 'relatime'];
  const superOptions = ['rw', 'vers=4.2', 'rsize=1048576', 'soft', 'timeo=50', 'retrans=2', 'addr=10.0.0.2'];
  const own: MountEntry = {
    ...{ ...entry, target: at, fstype: 'nfs4', source: 'nas:/exp' },
    ...{ options, superOptions },
  };
  const reached = (was: string, is: string) => superOptions.map((each) => (each === was ? is : each));
  const sub = { ...own, id: 80, parent: own.id, dev: '0:50', target: `${at}/a`, source: 'nas:/exp/a' };
  const deep = { ...sub, id: 81, parent: 80, dev: '0:51', target: `${at}/a/b/c`, source: 'nas:/exp/a/b/c' };
  const kindWith = (...within: MountEntry[]) => standing(share, at, [own, ...within], 'boot-1').kind;
  assert.equal(kindWith(sub), 'ours');
  assert.equal(kindWith(sub, deep), 'ours');
  const root = { ...own, source: 'nas:/' };
  const ofRoot = { ...sub, source: 'nas:/a' };
  assert.equal(standing(share, at, [root, ofRoot], 'boot-1').kind, 'ours', 'of the pseudo root of a server');
  const tuned = { ...sub, superOptions: reached('rsize=1048576', 'rsize=65536') };
  assert.equal(kindWith(tuned), 'ours', 'what the server allows differs from export to export');
  const others: Record<string, MountEntry[]> = {
    'another export': [{ ...sub, source: 'nas:/other' }],
    'another export with a name that begins alike': [{ ...sub, source: 'nas:/exp/aa' }],
    'another server': [{ ...sub, source: 'nas2:/exp/a' }],
    'another spelling': [{ ...sub, source: 'nas:/exp//a' }],
    'another kind': [{ ...sub, fstype: 'tmpfs' }],
    'another version of NFS': [{ ...sub, fstype: 'nfs' }],
    'a folder of an export': [{ ...sub, root: '/x' }],
    'a bind mount of our own folder': [{ ...sub, dev: own.dev }],
    'a mount that ours has covered': [{ ...sub, parent: own.parent }],
    'something over such a mount': [sub, { ...sub, id: 82, parent: 80, fstype: 'tmpfs', source: 'theirs' }],
    'its like over such a mount': [sub, { ...sub, id: 82, parent: 80, dev: '0:52' }],
    'something within such a mount': [sub, { ...deep, source: 'nas:/other' }],
    'such a mount within something else': [{ ...sub, source: 'nas:/other' }, deep],
    'such a mount whose parent is not seen': [deep],
    'the same export by hand with other flags': [{ ...sub, options: ['rw', 'relatime'] }],
    'the same export by hand that only reads': [{ ...sub, options: ['ro', ...options.slice(1)] }],
    'the same export by hand that waits for ever': [{ ...sub, superOptions: reached('soft', 'hard') }],
    'the same export by hand with more patience': [
      { ...sub, superOptions: reached('timeo=50', 'timeo=600') },
    ],
    'the same export by hand with more tries': [{ ...sub, superOptions: reached('retrans=2', 'retrans=3') }],
    'the same export by hand in another version': [{ ...sub, superOptions: reached('vers=4.2', 'vers=4.1') }],
    'the same export by hand at another address': [
      { ...sub, superOptions: reached('addr=10.0.0.2', 'addr=10.0.0.3') },
    ],
    'such a mount within the same export by hand': [{ ...sub, options: ['rw'] }, deep],
  };
  for (const [what, within] of Object.entries(others)) assert.equal(kindWith(...within), 'covered', what);
  const disk = { ...own, fstype: 'btrfs' };
  assert.equal(standing(row, at, [disk, { ...sub, fstype: 'btrfs' }], 'boot-1').kind, 'covered', 'of a disk');
});
