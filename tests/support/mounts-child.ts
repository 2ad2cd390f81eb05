/** Runs in a mount namespace of its own, as root: the contract of mounts and folders with the kernel's own. */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';
import { SystemMounts } from '#host/mounts.ts';
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
    fstab: (target, node) => writeFileSync(fstab, `${node} ${target} ext4 rw,nosuid,nodev 0 0\n`),
  };
});
