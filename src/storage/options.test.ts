import assert from 'node:assert/strict';
import { test } from 'node:test';
import { localMount, mountable, ntfs3Of } from '#storage/options.ts';

test('no file system of a disk may bring devices or setuid programs, and owners are set where it has none', () => {
  for (const fstype of mountable)
    for (const readOnly of [true, false])
      for (const ntfs3 of [undefined, ntfs3Of('6.12.9')]) {
        const { options } = localMount(fstype, { uid: 1000, gid: 1001 }, { readOnly, ntfs3 });
        assert.ok(options.includes('nosuid') && options.includes('nodev'), fstype);
        assert.ok(!options.includes('suid') && !options.includes('dev'));
        assert.deepEqual([options.includes('ro'), options.includes('rw')], [readOnly, !readOnly]);
        const owners = options.filter((option) => /^[ug]id=/.test(option));
        const hasNone = ['vfat', 'exfat', 'ntfs'].includes(fstype);
        assert.deepEqual(owners, hasNone ? ['uid=1000', 'gid=1001'] : []);
      }
});

test('a file system that is only to be read has no journal replayed either', () => {
  const how = { readOnly: true, ntfs3: undefined };
  const optionsOf = (fstype: (typeof mountable)[number]) =>
    localMount(fstype, { uid: 1, gid: 1 }, how).options;
  for (const fstype of ['ext3', 'ext4'] as const) assert.ok(optionsOf(fstype).includes('noload'));
  assert.ok(optionsOf('xfs').includes('norecovery'));
  assert.ok(optionsOf('btrfs').includes('rescue=nologreplay'));
});

test('ntfs3 gets only options that it knows in this kernel', () => {
  const ask = (release: string) =>
    localMount('ntfs', { uid: 1, gid: 1 }, { readOnly: false, ntfs3: ntfs3Of(release) }).options;
  for (const release of ['5.15.0-91-generic', '6.1.0-18-amd64', '6.1'])
    assert.ok(!ask(release).includes('windows_names'), release);
  for (const release of ['6.2.0', '6.12.9-arm64', '7.0.1'])
    assert.ok(ask(release).includes('windows_names'), release);
});

test('an NTFS that Windows has not closed keeps its log: ntfs-3g is told not to throw it away', () => {
  const of = (readOnly: boolean) => localMount('ntfs', { uid: 1, gid: 1 }, { readOnly, ntfs3: undefined });
  assert.equal(of(false).type, 'ntfs-3g');
  assert.ok(of(false).options.includes('norecover'));
  assert.ok(!of(true).options.includes('norecover'), 'it is not written to at all');
});
