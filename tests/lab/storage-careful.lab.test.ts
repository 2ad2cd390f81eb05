import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { DiskPolicy, MountedPath } from '#api/storage.ts';
import { labAvailable } from './available.ts';
import { type BeosNode, shareRoot } from './node.ts';
import { inTree, makeParts, makeStick } from './sticks.ts';
import { bootStorageNode, diskOf, mountOf, mountTable } from './storage-node.ts';

const reason = await labAvailable('guest');

describe('sticks that are not to be written to, or not to be mounted', {
  skip: reason ?? false,
  timeout: 30 * 60_000,
}, () => {
  let folder: string;
  let node: BeosNode;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-careful-'));
    node = await bootStorageNode();
  });
  after(async () => {
    await node.vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const image = (serial: string) => join(folder, serial);
  const hash = async (serial: string) =>
    createHash('sha256')
      .update(await readFile(image(serial)))
      .digest('hex');
  const plug = (serial: string, readOnly = false) =>
    node.vm.plugUsb({ image: image(serial), serial, readOnly });
  const mounted = async (serial: string): Promise<MountedPath> => {
    await node.until(`${serial} is mounted`, 60_000, (paths) => mountOf(paths, serial) !== undefined);
    const at = mountOf(await node.paths(), serial);
    assert.ok(at);
    assert.equal(at.invalid, false);
    return at;
  };
  const gone = (serial: string) =>
    node.until(`${serial} is gone`, 60_000, (paths) => mountOf(paths, serial) === undefined);
  /** Tries to write a file; the words of the refusal, or '' when it was written. */
  const write = async (path: string, text: string) => {
    const script = 'export LC_ALL=C; echo "$2" > "$1/file" && sync -f "$1/file"';
    return (await node.vm.run(['sh', '-c', script, 'sh', path, text], { okCodes: [0, 1, 2] })).stderr;
  };
  const readOnlyWords = async (path: string) => {
    const { data } = await node.call('GET', '/system/conditions');
    const all = data as readonly { readonly code: string; readonly message: string }[];
    const words = all.filter(({ code, message }) => code === 'mount_read_only' && message.includes(path));
    return words.map(({ message }) => message);
  };

  it('a boot, an encrypted and a swap partition are listed as that, not mounted, and keep every byte', async () => {
    await makeParts(image('ROLES'), [
      { filesystem: 'vfat', label: 'EFI', type: 'U' },
      { filesystem: 'luks' },
      { filesystem: 'swap', label: 'SWAP', type: 'S' },
    ]);
    const before = await hash('ROLES');
    const id = await plug('ROLES');
    await node.vm.run(['udevadm', 'wait', '--timeout=60', '/dev/disk/by-label/SWAP']);
    // One that is plugged in later and is to be mounted: when it is, the others had their turn.
    await makeStick({ image: image('LATER'), filesystem: 'ext4', label: 'LATER' });
    const later = await plug('LATER');
    await mounted('LATER');
    const { device, volumes, blank } = await diskOf(node, 'ROLES');
    assert.equal(blank, false);
    assert.deepEqual(
      volumes.map(({ role, fstype, notMountedBecause, mountedAt }) => [
        role,
        fstype,
        notMountedBecause,
        mountedAt,
      ]),
      [
        ['boot', 'vfat', 'its role is boot', []],
        ['encrypted', 'crypto_LUKS', 'it is encrypted; beosd does not open it', []],
        ['swap', 'swap', 'its role is swap', []],
      ],
    );
    assert.deepEqual(
      (await node.paths()).map(({ path }) => path),
      [`${shareRoot}/LATER`],
    );
    assert.ok(!(await mountTable(node.vm)).includes(device), 'nothing of it is mounted anywhere');
    const { stdout } = await node.vm.run([
      'sh',
      '-c',
      `cat /proc/swaps; ls /sys/class/block/${device.slice(5)}*/holders; ls ${shareRoot}`,
    ]);
    assert.doesNotMatch(stdout, new RegExp(`${device}|dm-|EFI|SWAP`), 'nor swapped to, nor opened');
    for (const each of [id, later]) await node.vm.unplugUsb(each);
    await gone('LATER');
    assert.equal(await hash('ROLES'), before);
  });

  it('the policy of a disk: read-only, ignore and auto hold from the next time that it is plugged in', async () => {
    const serial = 'POLICY';
    await makeStick({ image: image(serial), filesystem: 'ext4', label: serial });
    const path = `${shareRoot}/${serial}`;
    let id = await plug(serial);
    assert.deepEqual([(await mounted(serial)).path, await write(path, 'first')], [path, '']);
    const disk = await diskOf(node, serial);
    assert.equal(disk.policy, 'auto');
    const decide = async (policy: DiskPolicy) => {
      const answer = await node.call('PUT', `/storage/disks/${encodeURIComponent(disk.id)}/policy`, {
        policy,
      });
      assert.equal(answer.status, 200, answer.message);
      assert.deepEqual(answer.data, { id: disk.id, policy });
      await node.vm.unplugUsb(id);
      await gone(serial);
      await node.vm.run(['sh', '-c', 'while [ -e /dev/disk/by-label/POLICY ]; do sleep 0.1; done']);
      id = await plug(serial);
      assert.equal((await diskOf(node, serial)).policy, policy);
    };
    await decide('read-only');
    const reading = await mounted(serial);
    assert.deepEqual([reading.path, reading.read_only], [path, true]);
    assert.match(await write(path, 'no'), /Read-only file system/);
    assert.equal((await node.vm.run(['cat', `${path}/file`])).stdout, 'first\n');
    assert.deepEqual(await readOnlyWords(path), [], 'it is as somebody wanted it');
    await decide('ignore');
    await node.vm.run(['udevadm', 'wait', '--timeout=60', '/dev/disk/by-label/POLICY']);
    await makeStick({ image: image('WITNESS'), filesystem: 'ext4', label: 'WITNESS' });
    const witness = await plug('WITNESS');
    await mounted('WITNESS');
    const [volume] = (await diskOf(node, serial)).volumes;
    assert.deepEqual([volume?.mountedAt, volume?.notMountedBecause], [[], 'its policy is ignore']);
    assert.equal(mountOf(await node.paths(), serial), undefined);
    await decide('auto');
    const writing = await mounted(serial);
    assert.deepEqual([writing.path, writing.read_only], [path, false]);
    assert.deepEqual(
      [await write(path, 'second'), (await node.vm.run(['cat', `${path}/file`])).stdout],
      ['', 'second\n'],
    );
    for (const each of [id, witness]) await node.vm.unplugUsb(each);
    await gone(serial);
  });

  for (const filesystem of ['ext4', 'vfat'] as const) {
    it(`a write-protected stick (${filesystem}) is mounted for reading, and keeps every byte`, async () => {
      const serial = `LOCKED-${filesystem}`.toUpperCase();
      await makeStick({ image: image(serial), filesystem, label: serial });
      const before = await hash(serial);
      const id = await plug(serial, true);
      const at = await mounted(serial);
      assert.deepEqual([at.path, at.read_only], [`${shareRoot}/${serial}`, true]);
      assert.equal((await diskOf(node, serial)).readOnly, true);
      assert.match(await write(at.path, 'no'), /Read-only file system/);
      assert.match((await readOnlyWords(at.path)).join(), /write-protected/);
      await node.vm.unplugUsb(id);
      await gone(serial);
      assert.equal(await hash(serial), before);
    });
  }

  it('an NTFS on which Windows sleeps is mounted for reading, says why, and keeps every byte', async (t) => {
    const serial = 'ASLEEP';
    await makeStick({ image: image(serial), filesystem: 'ntfs', label: serial, table: 'none' });
    // What Windows leaves when it hibernates, or starts fast the next time: its memory, in a file of this name.
    const memory = Buffer.alloc(8192);
    memory.write('hibr');
    await writeFile(image('memory'), memory);
    await inTree(folder, ['ntfscp', '--quiet', `/mnt/${serial}`, '/mnt/memory', 'hiberfil.sys']);
    const before = await hash(serial);
    const id = await plug(serial);
    const at = await mounted(serial);
    assert.deepEqual([at.path, at.read_only, at.fstype], [`${shareRoot}/${serial}`, true, 'ntfs']);
    assert.match(await write(at.path, 'no'), /Read-only file system/);
    const words = await readOnlyWords(at.path);
    assert.equal(words.length, 1, 'it is told');
    assert.match(words[0] ?? '', /not closed in good order/);
    t.diagnostic(words[0] ?? '');
    await node.vm.unplugUsb(id);
    await gone(serial);
    assert.equal(await hash(serial), before);
  });
});
