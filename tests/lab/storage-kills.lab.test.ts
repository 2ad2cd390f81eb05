import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ProvisionFilesystem } from '#api/storage.ts';
import { labAvailable } from './available.ts';
import { type BeosNode, startNode } from './node.ts';
import { armable, formattedInstead, killAt, type Moment, outcome, provision } from './provisioning.ts';
import { makeStick } from './sticks.ts';
import { bootStorageGuest, diskOf } from './storage-node.ts';

const reason = await labAvailable('guest');

type Cut = readonly [program: string, moment: Moment, filesystem: ProvisionFilesystem];

/** The moments that have their own answers: cut off while writing, before the kernel knows, half made, and made. */
const telling: readonly Cut[] = [
  ['sfdisk', 'during', 'ext4'],
  ['partx', 'before', 'ext4'],
  ['mkfs.ext4', 'during', 'ext4'],
  ['mkfs.exfat', 'after', 'exfat'],
];
/** The others, from the first byte that is wiped to the mount: by `./test --soak storage-lab`. */
const others: readonly Cut[] = [
  ['dd', 'before', 'ext4'],
  ['sfdisk', 'before', 'exfat'],
  ['mkfs.ext4', 'before', 'ext4'],
  ['mount', 'after', 'ext4'],
];
const moments = process.env['BEOSD_SOAK'] === '1' ? [...telling, ...others] : telling;

describe('a provisioning whose daemon is killed', { skip: reason ?? false, timeout: 30 * 60_000 }, () => {
  let folder: string;
  let node: BeosNode;
  const ends = new Map<string, number>();
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-kills-'));
    const vm = await bootStorageGuest();
    await armable(vm);
    node = await startNode(vm);
  });
  after(async () => {
    await node.vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const plugBlank = async (serial: string) => {
    const image = join(folder, serial);
    await makeStick({ image, sizeMiB: 96 });
    await node.vm.plugUsb({ image, serial });
    assert.equal((await diskOf(node, serial)).blank, true);
  };

  for (const [at, [program, moment, filesystem]] of moments.entries()) {
    it(`${moment} ${program}, for ${filesystem}: done, or blank again possible, and it says which`, async (t) => {
      const wanted = { serial: `K${at}`, filesystem, label: `KILL${at}` };
      await plugBlank(wanted.serial);
      const pid = () => node.vm.run(['systemctl', 'show', '--property=MainPID', '--value', 'beosd']);
      const before = (await pid()).stdout;
      await killAt(node.vm, program, moment);
      const id = await provision(node, wanted);
      const end = await outcome(node, id, wanted);
      assert.notEqual((await pid()).stdout, before, 'the daemon was killed');
      ends.set(end.split(':')[0] ?? '', (ends.get(end.split(':')[0] ?? '') ?? 0) + 1);
      t.diagnostic(end);
    });
  }

  it('a person formats the disk while the daemon is down: it is left alone, and blank only by wipe', async (t) => {
    const wanted = { serial: 'THEIRS', filesystem: 'ext4', label: 'THEIRS' } as const;
    await plugBlank(wanted.serial);
    await formattedInstead(node.vm, 'sfdisk');
    const end = await outcome(node, await provision(node, wanted), wanted);
    assert.match(end, /^blank again possible: .*found: .*vfat/);
    t.diagnostic(end);
  });

  it('no disk was touched but the one that was meant', async (t) => {
    t.diagnostic([...ends].map(([end, count]) => `${count} × ${end}`).join(', '));
    for (const at of moments.keys()) {
      const { stdout } = await node.vm.run(['cat', `/beos/share/KILL${at}/kept`]);
      assert.equal(stdout, `KILL${at}\n`);
    }
  });
});
