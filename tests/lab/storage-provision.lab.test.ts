import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { DryRun } from '#api/operation.ts';
import type { MountedPath } from '#api/storage.ts';
import { labAvailable } from './available.ts';
import type { Guest } from './guest.ts';
import { type BeosNode, shareRoot, startNode } from './node.ts';
import {
  armable,
  askProvision,
  type Moment,
  outcome,
  provision,
  provisioned,
  stopAt,
  type Wanted,
} from './provisioning.ts';
import { makeStick } from './sticks.ts';
import { bootStorageGuest, diskOf, disksOf, ended, eventually, mountOf, mountTable } from './storage-node.ts';
import { flushedSoFar, loseCache, makeWriteLog } from './write-log.ts';

const reason = await labAvailable('guest');
const uuid = '5a7a0001-0000-4000-8000-00000000da7a';
const old = '/mnt/media';

type Cut = readonly [Wanted, program: string, moment: Moment];

/** Where the power goes: the table is written and the kernel not told, or the file system is half made. */
const telling: readonly Cut[] = [
  [{ serial: 'CUT1', filesystem: 'exfat', label: 'CUT1' }, 'sfdisk', 'after'],
  [{ serial: 'CUT2', filesystem: 'ext4', label: 'CUT2' }, 'mkfs.ext4', 'during'],
];
/** One more by `./test --soak storage-lab`: it is made, and nobody has seen it yet. */
const another: Cut = [{ serial: 'CUT3', filesystem: 'ext4', label: 'CUT3' }, 'mkfs.ext4', 'after'];
const cuts = process.env['BEOSD_SOAK'] === '1' ? [...telling, another] : telling;

describe('disks on a SATA controller', { skip: reason ?? false, timeout: 30 * 60_000 }, () => {
  let folder: string;
  let vm: Guest;
  let node: BeosNode;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-sata-'));
    const image = (name: string) => join(folder, name);
    await makeStick({
      image: image('OLD'),
      filesystem: 'ext4',
      label: 'MEDIA',
      uuid,
      table: 'gpt',
      sizeMiB: 128,
    });
    const blank = ['NEW', ...cuts.map(([{ serial }]) => serial)];
    for (const name of blank) await makeStick({ image: image(name), sizeMiB: 160 });
    for (const [{ serial }] of cuts) await makeWriteLog(logOf(serial));
    vm = await bootStorageGuest([
      ...['OLD', 'NEW'].map((serial) => ({ image: image(serial), serial })),
      ...cuts.map(([{ serial }]) => ({ image: image(serial), serial, log: logOf(serial) })),
    ]);
    await vm.run([
      'sh',
      '-c',
      'mkdir "$1"; echo "UUID=$2 $1 ext4 nofail 0 2" >> /etc/fstab',
      'sh',
      old,
      uuid,
    ]);
    assert.ok(!(await mountTable(vm)).includes(old), 'nobody has mounted it yet');
    node = await startNode(vm);
  });
  after(async () => {
    await vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const logOf = (serial: string) => join(folder, `${serial}.log`);
  /** The power goes, and with it what the disk had only in its cache. */
  const cutPower = async (serial: string) => {
    const flushed = await flushedSoFar(logOf(serial));
    await vm.powerCut();
    const kept = await loseCache(join(folder, serial), logOf(serial), flushed);
    for (const [each] of cuts) await makeWriteLog(logOf(each.serial));
    await vm.powerOn();
    node = await startNode(vm);
    return kept;
  };
  const reboot = async () => {
    await vm.reboot();
    node = await startNode(vm);
  };
  const oldDisk = async () => {
    const at = await eventually('the disk of fstab', 60_000, async () => mountOf(await node.paths(), 'OLD'));
    assert.deepEqual([at.path, at.type, at.invalid, at.partition_uuid], [old, 'hdd', false, uuid]);
    const hdd = (await node.call('GET', '/system/mounted-hdd')).data as readonly MountedPath[];
    assert.ok(hdd.some(({ path, fstype }) => path === old && fstype === 'ext4'));
    const usb = (await node.call('GET', '/system/mounted-usb')).data as readonly MountedPath[];
    assert.deepEqual(usb, []);
  };

  it('one that is in fstab is mounted where fstab says, and is hdd', async () => {
    await oldDisk();
    const disks = await disksOf(node);
    // Their nodes are given out in the order in which they happen to answer.
    const sata = disks.filter(({ transport }) => transport === 'sata').map(({ serial }) => serial);
    assert.deepEqual(sata.sort(), ['OLD', 'NEW', ...cuts.map(([{ serial }]) => serial)].sort());
    assert.deepEqual((await diskOf(node, 'OLD')).volumes[0]?.mountedAt, [old]);
    await vm.run(['sh', '-c', 'echo kept > "$1/file"; sync', 'sh', old]);
  });

  it('the disks say how they are: SMART of those that have it, null of the one that has none', async (t) => {
    const disks = await disksOf(node);
    const health = (transport: string) =>
      disks.filter((disk) => disk.transport === transport).map((disk) => disk.health);
    assert.ok(health('sata').length >= 2);
    for (const each of health('sata')) assert.deepEqual(each, { passed: true, message: 'SMART: passed' });
    assert.deepEqual(health('virtio'), [null]);
    const { stdout } = await vm.run(['smartctl', '--health', (await diskOf(node, 'NEW')).device]);
    assert.match(stdout, /test result: PASSED/);
    t.diagnostic(`SMART of ${health('sata').length} SATA disks: passed`);
  });

  it('the one that carries the system is refused, with wipe too, and nothing is written to it', async () => {
    const system = (await disksOf(node)).filter((disk) => disk.system);
    assert.deepEqual(
      system.map(({ device, transport }) => [device, transport]),
      [['/dev/vda', 'virtio']],
    );
    const [disk] = system;
    assert.ok(disk);
    // What every tool that makes a table or a file system writes first; nothing else ever writes there.
    const look = ['sh', '-c', 'blkid -p -o export /dev/vda; head -c 1024 /dev/vda | sha256sum'];
    const before = (await vm.run(look)).stdout;
    assert.match(before, /^TYPE=ext4$/m);
    const jobs = async () => (await node.call('GET', '/jobs')).data as readonly unknown[];
    const known = (await jobs()).length;
    const confirm = disk.serial === '' ? disk.id : disk.serial;
    for (const wipe of [false, true]) {
      const body = { filesystem: 'ext4', label: 'SYSTEM', confirm, wipe };
      const answer = await askProvision(node, disk, body);
      assert.equal(answer.status, 422, answer.message);
      assert.match(answer.message, /it carries the system/);
      const plan = await askProvision(node, disk, body, '?dryRun=true');
      assert.equal((plan.data as DryRun).allowed, false, JSON.stringify(plan.data));
    }
    assert.equal((await jobs()).length, known, 'no job was begun');
    assert.equal((await vm.run(look)).stdout, before);
  });

  it('a blank one is provisioned: what is said before, what is refused, and what is there after a reboot', async (t) => {
    const wanted = { serial: 'NEW', filesystem: 'ext4', label: 'ARCHIVE' } as const;
    const disk = await diskOf(node, 'NEW');
    assert.deepEqual([disk.blank, disk.notBlankBecause, disk.transport], [true, '', 'sata']);
    const body = { filesystem: 'ext4', label: 'ARCHIVE', confirm: 'NEW' };
    const dry = await askProvision(node, disk, body, '?dryRun=true');
    assert.equal(dry.status, 200, dry.message);
    const plan = dry.data as DryRun;
    assert.equal(plan.allowed, true, JSON.stringify(plan));
    assert.ok(plan.steps.some(({ does }) => does.includes(disk.device) && does.includes('NEW')));
    const wrong = await askProvision(node, disk, { ...body, confirm: 'CUT1' });
    assert.equal(wrong.status, 422, wrong.message);
    assert.match(wrong.message, /not the serial number of .*NEW/);
    assert.equal((await diskOf(node, 'NEW')).blank, true, 'a plan and a refusal write nothing');
    const began = performance.now();
    const job = await ended(node, await provision(node, wanted));
    assert.deepEqual([job.state, job.percent], ['succeeded', 100], JSON.stringify(job));
    t.diagnostic(`provisioned in ${Math.round(performance.now() - began)} ms`);
    const path = await provisioned(node, wanted);
    await reboot();
    await oldDisk();
    const again = await eventually('it is back', 120_000, async () => mountOf(await node.paths(), 'NEW'));
    assert.deepEqual([again.path, again.type], [path, 'hdd']);
    const { stdout } = await vm.run(['cat', `${path}/kept`, `${old}/file`]);
    assert.equal(stdout, 'ARCHIVE\nkept\n');
    const refused = await askProvision(node, disk, { ...body, wipe: true });
    assert.equal(refused.status, 422, refused.message);
    assert.match(refused.message, /mounted at/);
  });

  for (const [wanted, program, moment] of cuts) {
    it(`the power goes ${moment} ${program}, for ${wanted.filesystem}: done, or blank again possible, and it says which`, async (t) => {
      await armable(vm);
      const { reached } = await stopAt(vm, program, moment);
      const id = await provision(node, wanted);
      await reached;
      const kept = await cutPower(wanted.serial);
      t.diagnostic(`${kept} writes had reached the disk; ${await outcome(node, id, wanted)}`);
      await oldDisk();
      const { stdout } = await vm.run(['cat', `${shareRoot}/ARCHIVE/kept`, `${old}/file`]);
      assert.equal(stdout, 'ARCHIVE\nkept\n', 'the other disks have lost nothing');
    });
  }
});
