/** Runs in a mount namespace of its own, as root: the contract of mounts and folders with the kernel's own. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, symlinkSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';
import { isReadOnly, SystemMounts, topmostAt } from '#host/mounts.ts';
import { LoopDevices, LoopDisk } from './loop-disk.ts';
import { mountsContract } from './mounts-contract.ts';

const mounts = new SystemMounts(new SystemExec(), new Files());
const folders = new SystemFolders();
const scratch = mkdtempSync(join(tmpdir(), 'beosd-contract-'));
execFileSync('mount', ['-t', 'tmpfs', 'scratch', scratch]);
process.env['TMPDIR'] = scratch;
const disks = [0, 1, 2].map(() => new LoopDisk(8).run('mkfs.ext4', '-q', '-F'));
const fstab = join(scratch, 'fstab');
writeFileSync(fstab, '');
execFileSync('mount', ['--bind', fstab, '/etc/fstab']);
after(() => {
  for (const disk of disks) disk.detach();
});

let sequence = 0;
mountsContract(() => {
  const devices = new LoopDevices();
  const root = mkdtempSync(join(scratch, 'root-'));
  writeFileSync(fstab, '');
  const diskOf = (n: number) => disks[n] ?? disks[0] ?? new LoopDisk(1);
  return {
    mounts,
    folders,
    devices,
    root,
    plug: (n) => {
      const disk = diskOf(n);
      if (disk.node === '') disk.attach();
      devices.plug(disk, `S${n}`, String(++sequence));
      return disk.node;
    },
    unplug: (n) => devices.unplug(diskOf(n)),
    makeFile: (path) => writeFileSync(path, 'theirs'),
    hold: (path) => {
      const fd = openSync(path, 'r');
      return () => closeSync(fd);
    },
    link: (path, to) => symlinkSync(to, path),
    fstab: (target, node) => writeFileSync(fstab, `${node} ${target} ext4 rw,nosuid,nodev 0 0\n`),
  };
});

/** Linux 6.6 to 6.14 show an ext4 that has met an error as if nothing had happened. */
function tellsOfErrors(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  return major > 6 || (major === 6 && (minor >= 15 || minor < 6)) || major < 6;
}

const silent = tellsOfErrors() ? false : `Linux ${release()} does not tell`;
test('an ext4 that the kernel has stopped writing to after an error can only be read', {
  skip: silent,
}, async () => {
  using disk = new LoopDisk(8).run('mkfs.ext4', '-q', '-F').attach();
  const target = mkdtempSync(join(scratch, 'error-'));
  const isRead = () => {
    const entry = topmostAt(mounts.list(), target);
    return entry !== undefined && isReadOnly(entry);
  };
  const options = ['rw', 'errors=remount-ro'];
  await mounts.mount({ source: disk.node, target, fstype: 'ext4', options, timeoutMs: 20_000 });
  assert.equal(isRead(), false);
  writeFileSync(`/sys/fs/ext4/${disk.name}/trigger_fs_error`, 'a test');
  assert.equal(isRead(), true);
  assert.throws(() => writeFileSync(join(target, 'file'), 'x'), /EROFS/);
  await mounts.umount(target, { lazy: false, timeoutMs: 20_000 });
});
