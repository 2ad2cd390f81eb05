import assert from 'node:assert/strict';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'beosd-files-'));

test('replace keeps the mode of the file and leaves no temp file', () => {
  const dir = folder();
  const path = join(dir, 'hosts');
  writeFileSync(path, 'old');
  chmodSync(path, 0o640);
  new Files().replace(path, 'new');
  assert.equal(readFileSync(path, 'utf8'), 'new');
  assert.equal(statSync(path).mode & 0o777, 0o640);
  assert.deepEqual(readdirSync(dir), ['hosts']);
});

test('replace follows a link to the file and keeps the link', () => {
  const dir = folder();
  writeFileSync(join(dir, 'real'), 'old');
  symlinkSync('real', join(dir, 'link'));
  new Files().replace(join(dir, 'link'), 'new');
  assert.equal(readFileSync(join(dir, 'real'), 'utf8'), 'new');
  assert.deepEqual(readdirSync(dir), ['link', 'real']);
});

test('a missing file reads as undefined, an unreadable one throws', () => {
  const dir = folder();
  const files = new Files();
  assert.equal(files.readText(join(dir, 'none')), undefined);
  assert.throws(() => files.readText(dir), /EISDIR/);
  writeFileSync(join(dir, 'big'), 'x'.repeat(11));
  assert.throws(() => files.readText(join(dir, 'big'), 10), /larger than 10 bytes/);
});

test('the root prefixes built-in paths only when they are asked for as such', () => {
  const files = new Files('/sandbox');
  assert.equal(files.systemPath('/etc/hosts'), '/sandbox/etc/hosts');
  assert.equal(new Files().systemPath('/etc/hosts'), '/etc/hosts');
});

test('new folders have the mode that was asked for under any umask; those that were there keep theirs', () => {
  const root = mkdtempSync(join(tmpdir(), 'beosd-files-'));
  mkdirSync(join(root, 'theirs'), { mode: 0o750 });
  const before = process.umask(0o077); // as the unit has it
  try {
    new Files().makeDir(join(root, 'theirs', 'a', 'b'));
    new SystemFolders().ensure(join(root, 'theirs', 'share', 'deep'));
    new SystemFolders().make(join(root, 'theirs', 'share', 'STICK'));
    new Files().makeDir(join(root, 'closed'), 0o700);
  } finally {
    process.umask(before);
  }
  const modes = [
    'theirs',
    'theirs/a',
    'theirs/a/b',
    'theirs/share',
    'theirs/share/deep',
    'theirs/share/STICK',
    'closed',
  ];
  assert.deepEqual(
    modes.map((name) => (statSync(join(root, name)).mode & 0o777).toString(8)),
    ['750', '755', '755', '755', '755', '755', '700'],
  );
});

test('sweepTemps removes only what a crashed replace left', () => {
  const dir = folder();
  writeFileSync(join(dir, 'hosts'), 'x');
  writeFileSync(join(dir, '.hosts.0123456789ab.tmp'), 'half');
  writeFileSync(join(dir, '.hosts.mine.tmp'), 'foreign');
  new Files().sweepTemps(join(dir, 'hosts'));
  assert.deepEqual(readdirSync(dir).sort(), ['.hosts.mine.tmp', 'hosts']);
});

test('a file is read to its end, whatever its size, and refused one byte above the limit', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'beosd-files-')), 'file');
  const files = new Files();
  for (const size of [0, 1, 2047, 2048, 2049, 65_536, 65_537, 200_000]) {
    const bytes = Buffer.from(Array.from({ length: size }, (_, at) => at % 251));
    writeFileSync(path, bytes);
    assert.ok(files.readBytes(path)?.equals(bytes), `${size} bytes`);
    assert.ok(files.readBytes(path, size)?.equals(bytes), `${size} bytes and no more allowed`);
    if (size > 0) assert.throws(() => files.readBytes(path, size - 1), RangeError);
  }
  assert.match(files.readText('/proc/self/status') ?? '', /^Name:/);
});

test('a path leads to where its links lead, also while its end does not exist yet', () => {
  const dir = realpathSync(folder());
  const files = new Files();
  mkdirSync(join(dir, 'big/share'), { recursive: true });
  symlinkSync(join(dir, 'big'), join(dir, 'olares'));
  symlinkSync(join(dir, 'nowhere'), join(dir, 'dangling'));
  assert.equal(files.leadsTo(join(dir, 'olares/share')), join(dir, 'big/share'));
  assert.equal(files.leadsTo(join(dir, 'olares/new/share')), join(dir, 'big/new/share'));
  assert.equal(files.leadsTo(join(dir, 'dangling')), join(dir, 'dangling'));
  assert.equal(files.leadsTo('/'), '/');
});
