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
