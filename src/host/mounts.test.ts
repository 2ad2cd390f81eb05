import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Exec, ExecError } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { isPlainOption, parseMountInfo, SystemMounts, topmostAt, wordsOf } from '#host/mounts.ts';

const sample = String.raw`27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
90 27 8:1 / /olares/share/My\040Stick rw,nosuid,nodev shared:7 master:2 - vfat /dev/sda1 rw,uid=1000
91 27 0:52 / /olares/share/nas rw - cifs //nas/a\134b rw,vers=3.1.1
92 91 0:53 /sub /olares/share/nas ro - tmpfs tmpfs rw
torn line`;

test('mountinfo is read with its escapes, and of two mounts on one path the later one is on top', () => {
  const entries = parseMountInfo(sample);
  assert.equal(entries.length, 4);
  assert.deepEqual(entries[1], {
    ...{ id: 90, parent: 27, dev: '8:1', root: '/', target: '/olares/share/My Stick' },
    ...{ options: ['rw', 'nosuid', 'nodev'], propagation: ['shared:7', 'master:2'], fstype: 'vfat' },
    ...{ source: '/dev/sda1', superOptions: ['rw', 'uid=1000'] },
  });
  assert.equal(entries[2]?.source, '//nas/a\\b');
  assert.equal(topmostAt(entries, '/olares/share/nas')?.id, 92);
  assert.equal(topmostAt(entries, '/olares/share'), undefined);
});

test('an option that would be two, or that a program could read otherwise, is refused before anything runs', async () => {
  for (const option of ['a,uid=0', 'user=a b', 'x="y"', 'a\nb', '-o', '', 'a=\\'])
    assert.equal(isPlainOption(option), false, option);
  for (const option of ['rw', 'uid=1000', 'credentials=/run/beosd/x', 'errors=remount-ro'])
    assert.equal(isPlainOption(option), true, option);
  const exec: Exec = {
    started: 0,
    run: () => Promise.reject(new Error('nothing may run')),
    lines: () => assert.fail(),
  };
  const mounts = new SystemMounts(exec, new Files());
  const base = { source: '/dev/sda1', target: '/x', fstype: 'vfat', timeoutMs: 1 };
  await assert.rejects(mounts.mount({ ...base, options: ['rw,suid'] }), /not one mount option/);
  await assert.rejects(mounts.mount({ ...base, source: '-a', options: ['rw'] }), RangeError);
  await assert.rejects(mounts.mount({ ...base, target: 'x', options: ['rw'] }), RangeError);
});

test('the words of a failure are those of the program', () => {
  const error = new ExecError({
    ...{ file: 'mount', args: [], reason: 'exit', exitCode: 32, stdout: 'out' },
    stderr: ' mount error(13): Permission denied\n',
  });
  assert.equal(wordsOf(error), 'mount error(13): Permission denied');
});
