import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Holder } from '#api/storage.ts';
import { labAvailable } from './available.ts';
import { type BeosNode, shareRoot, startNode, untilRemoved } from './node.ts';
import { inTree, makeStick, type StickFilesystem } from './sticks.ts';
import { bootStorageGuest, disksOf, mountOf } from './storage-node.ts';
import { bringInstaller, StorageOwner } from './storage-owner.ts';

const reason = await labAvailable('guest');
const podUid = '0f1e2d3c-4b5a-4697-8897-a6b5c4d3e2f1';
const kubepods = '/sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice';
const cgroup = `${kubepods}/kubepods-besteffort-pod${podUid.replaceAll('-', '_')}.slice/cri-containerd-1.scope`;

interface Ejected {
  readonly path: string;
  readonly safe: boolean;
  readonly poweredDown: boolean;
  readonly holders: readonly Holder[];
}

/** How the volume is read outside: it is clean, and the file is there. */
const outside: Readonly<Partial<Record<StickFilesystem, readonly (readonly string[])[]>>> = {
  ext4: [
    ['e2fsck', '-fn', '/mnt/volume'],
    ['debugfs', '-R', 'cat /file', '/mnt/volume'],
  ],
  vfat: [
    ['fsck.vfat', '-n', '/mnt/volume'],
    ['grep', '-ao', 'written [A-Z-]*', '/mnt/volume'],
  ],
  ntfs: [
    ['ntfsfix', '--no-action', '/mnt/volume'],
    ['ntfscat', '/mnt/volume', 'file'],
  ],
};

describe('eject with real holders', { skip: reason ?? false, timeout: 30 * 60_000 }, () => {
  let folder: string;
  let node: BeosNode;
  let owner: StorageOwner;
  const held = `${shareRoot}/HELD`;
  let stick = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-eject-'));
    const vm = await bootStorageGuest();
    await bringInstaller(vm);
    node = await startNode(vm);
    owner = await StorageOwner.claim(node);
    await makeStick({ image: join(folder, 'HELD'), filesystem: 'ext4', label: 'HELD' });
    stick = await plug('HELD');
  });
  after(async () => {
    await node.vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const plug = async (name: string) => {
    const id = await node.vm.plugUsb({ image: join(folder, name), serial: `E-${name}` });
    await node.until(`${name} is mounted`, 60_000, (paths) => mountOf(paths, `E-${name}`) !== undefined);
    await node.vm.run(['sh', '-c', 'echo "written $2" > "$1/file"', 'sh', `${shareRoot}/${name}`, name]);
    return id;
  };
  const ejecting = (path: string) => node.call('POST', '/command/umount-usb', { path });
  /** A process of the guest that holds the stick; resolves with its pid once it does. */
  const started = (script: string): Promise<{ readonly pid: number; readonly end: () => Promise<unknown> }> =>
    new Promise((resolve, reject) => {
      const command = ['sh', '-c', `${script}; echo $$; exec sleep 3600`, 'sh', held, cgroup];
      const running = node.vm.follow(command, (line) => {
        const end = () => {
          running.stop();
          return running.ended;
        };
        resolve({ pid: Number(line), end });
      });
      running.ended.then(() => reject(new Error('the holder ended by itself')), reject);
    });
  /** It has told its pid while it was still the shell. */
  const holder = async (script: string) => {
    const holding = await started(script);
    const look = 'until [ "$(cat "/proc/$1/comm")" = sleep ]; do sleep 0.1; done';
    await node.vm.run(['sh', '-c', look, 'sh', String(holding.pid)]);
    return holding;
  };

  it('is refused with who uses it: a process by its folder, one of a pod by its open file', async () => {
    const shell = await holder('cd "$1"');
    const pod = await holder('mkdir -p "$2"; echo $$ > "$2/cgroup.procs"; exec 3< "$1/file"');
    const answer = await ejecting(held);
    assert.equal(answer.status, 409, answer.message);
    const { holders } = answer.data as { readonly holders: readonly Holder[] };
    const byPid = holders.toSorted((a, b) => a.pid - b.pid);
    assert.deepEqual(byPid, [
      { pid: shell.pid, command: 'sleep', path: held },
      { pid: pod.pid, command: 'sleep', path: `${held}/file`, pod: podUid },
    ]);
    assert.match(answer.message, new RegExp(`sleep \\(${shell.pid}\\)`));
    assert.ok(answer.message.includes(podUid), answer.message);
    assert.equal((await node.paths()).length, 1, 'it is still mounted');
    await shell.end();
    const again = await ejecting(held);
    assert.equal(again.status, 409);
    assert.deepEqual(
      (again.data as { readonly holders: readonly Holder[] }).holders.map(({ pid }) => pid),
      [pod.pid],
    );
    await pod.end();
  });

  it('by force only with a bound signature; then detached, never called safe, and not stopped', async () => {
    const pod = await holder('mkdir -p "$2"; echo $$ > "$2/cgroup.procs"; exec 3>> "$1/late"');
    const path = '/command/umount-usb?force=true';
    const loose = await owner.post(path, { path: held }, 'legacy');
    assert.deepEqual([loose.status, loose.error], [403, 'bound_form_required'], loose.message);
    assert.equal((await node.paths()).length, 1);
    const forced = await owner.post(path, { path: held }, 'bound');
    assert.equal(forced.status, 200, forced.message);
    const said = forced.data as Ejected;
    assert.deepEqual([said.safe, said.poweredDown, said.path], [false, false, held]);
    assert.deepEqual(
      said.holders.map((each) => [each.pid, each.pod]),
      [[pod.pid, podUid]],
    );
    assert.deepEqual(await node.paths(), []);
    await untilRemoved(node.vm, held);
    const { stdout } = await node.vm.run(['sh', '-c', `[ -d /proc/${pod.pid} ] && echo lives`]);
    assert.equal(stdout, 'lives\n', 'the program is not ended for it');
    const disk = (await disksOf(node)).find(({ serial }) => serial === 'E-HELD');
    assert.match(disk?.volumes[0]?.notMountedBecause ?? '', /ejected/, 'the disk was not stopped');
    await pod.end();
    await node.vm.unplugUsb(stick);
    stick = await plug('HELD');
    assert.equal(mountOf(await node.paths(), 'E-HELD')?.path, held);
  });

  for (const filesystem of ['ext4', 'vfat', 'ntfs'] as const) {
    it(`${filesystem}: what is called safe is off the bus, and whole when it is read elsewhere`, async (t) => {
      const name = `SAFE-${filesystem}`.toUpperCase();
      const image = join(folder, name);
      await makeStick({ image, filesystem, label: name, table: 'none' });
      const id = await plug(name);
      const began = performance.now();
      const answer = await ejecting(`${shareRoot}/${name}`);
      assert.equal(answer.status, 200, answer.message);
      t.diagnostic(`ejected in ${Math.round(performance.now() - began)} ms`);
      const { safe, poweredDown, holders } = answer.data as Ejected;
      assert.deepEqual({ safe, poweredDown, holders }, { safe: true, poweredDown: true, holders: [] });
      assert.ok(!(await disksOf(node)).some(({ serial }) => serial === `E-${name}`), 'it is off the bus');
      assert.deepEqual(
        (await node.paths()).map((each) => each.path),
        [held],
      );
      // As it is at this moment: pulled, QEMU would still write out what the guest had left it.
      const work = await mkdtemp(join(folder, 'read-'));
      await writeFile(join(work, 'volume'), await readFile(image));
      await node.vm.unplugUsb(id);
      const [check = [], read = []] = outside[filesystem] ?? [];
      await inTree(work, check);
      assert.match((await inTree(work, read)).stdout, new RegExp(`^written ${name}$`, 'm'));
    });
  }

  it('the stick that was forced off is ejected in good order afterwards', async () => {
    const answer = await ejecting(held);
    assert.equal(answer.status, 200, answer.message);
    const { safe, poweredDown } = answer.data as Ejected;
    assert.deepEqual([safe, poweredDown], [true, true]);
    assert.deepEqual(await node.paths(), []);
    await node.vm.unplugUsb(stick);
  });
});
