import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FakeDisk } from '#host/fake/machine.ts';
import type { BlockDevice } from '#host/udev.ts';
import { shareRoot } from '../../tests/support/fake-storage.ts';
import {
  disk,
  mapped,
  member,
  reasons,
  targetsOf,
  turns,
  volume,
  world,
} from '../../tests/support/fstab-world.ts';

/** What a line of fstab must never lead to: a mount that works is taken away, another one hidden, work without end. */

test('a volume of LVM stays mounted when its disk turns out to carry the system too', async () => {
  const built = () => [mapped(0, 'vg-data'), mapped(1, 'vg-share')];
  const bench = world(() => '/dev/mapper/vg-data /srv/data ext4 defaults', {
    disks: [disk('S1', member)],
    built,
  });
  await bench.storage.start();
  bench.add({ source: '/dev/mapper/vg-share', target: shareRoot, dev: '253:1', fstype: 'ext4' });
  await bench.storage.local.settled();
  assert.deepEqual(bench.did, ['mount /dev/mapper/vg-data /srv/data']);
  await bench.storage.close();
});

test('a volume of LVM stays mounted while udev has no record of it, and while another one has its UUID', async () => {
  let built = [mapped(0, 'vg-data')];
  const bench = world(() => 'UUID=u-vg-data /srv/data ext4 defaults', {
    disks: [disk('S1', member)],
    built: () => built,
  });
  await bench.storage.start();
  const snapshot = {
    ...mapped(1, 'snap'),
    properties: { ...mapped(0, 'vg-data').properties, DM_NAME: 'snap' },
  };
  for (const now of [
    [{ ...mapped(0, 'vg-data'), properties: undefined }],
    [snapshot, mapped(0, 'vg-data')],
    [mapped(0, 'vg-data')],
  ]) {
    built = now;
    await bench.storage.local.settled();
  }
  assert.deepEqual(bench.did, ['mount /dev/mapper/vg-data /srv/data']);
  await bench.storage.close();
});

test('the share root on LVM is mounted once', async () => {
  const bench = world(() => `/dev/mapper/vg-share ${shareRoot} ext4 defaults`, {
    ...{ disks: [disk('S1', member)], built: () => [mapped(0, 'vg-share')] },
  });
  await bench.storage.start();
  await turns(50);
  assert.deepEqual(bench.did, [`mount /dev/mapper/vg-share ${shareRoot}`]);
  await bench.storage.close();
});

test('lines that fail are tried once each until the clock has moved, also two of one place', async () => {
  const lines = () =>
    'UUID=u-A /srv/x ext4 defaults\nUUID=u-B /srv/x ext4 defaults\n/dev/sda1 /srv/x ext4 ro';
  const bench = world(lines, { disks: [disk('S1', volume('A')), disk('S2', volume('B'))], refuses: true });
  await bench.storage.start();
  await turns(50);
  assert.deepEqual(bench.did, ['mount /dev/sda1 /srv/x', 'mount /dev/sdb1 /srv/x', 'mount /dev/sda1 /srv/x']);
  await bench.storage.close();
});

test('of two that are named alike the one that may be mounted is, and it alone', async () => {
  const [ignored, other] = [disk('S1', volume('A')), disk('S2', volume('A'))];
  const bench = world(() => 'UUID=u-A /srv/x ext4 defaults');
  await bench.storage.start();
  bench.machine.plug(ignored);
  const seen = bench.storage.seen().disks.find((each) => each.serial === 'S1');
  assert.ok(seen);
  bench.storage.setPolicy(seen, 'ignore');
  bench.machine.plug(other);
  await bench.storage.local.settled();
  assert.deepEqual(targetsOf(bench.machine), ['/dev/sdc1 /srv/x']);
  bench.machine.unplug(ignored);
  await bench.storage.local.settled();
  assert.deepEqual(targetsOf(bench.machine), ['/dev/sdc1 /srv/x']);
  await bench.storage.close();
});

test('a btrfs on several disks stays mounted when the one by which the kernel shows it is pulled', async () => {
  const [one, two] = [disk('S1', volume('P', 'btrfs')), disk('S2', volume('P', 'btrfs'))];
  const bench = world(() => 'UUID=u-P /srv/x btrfs defaults', { disks: [one, two], isPool: true });
  await bench.storage.start();
  bench.machine.unplug(one);
  await bench.storage.local.settled();
  assert.deepEqual(bench.did, ['mount /dev/sda1 /srv/x']);
  assert.deepEqual(bench.storage.problems(), []);
  await bench.storage.close();
});

test('nothing is mounted over what is mounted, or over what the system lies on', async () => {
  const bench = world(() => 'UUID=u-A /olares ext4 defaults\nUUID=u-B /var/lib ext4 defaults', {
    disks: [disk('S1', volume('A')), disk('S2', volume('B'))],
  });
  bench.machine.makeForeign(`${shareRoot}/theirs`, 'folder');
  bench.machine.mountForeign('tmpfs', `${shareRoot}/theirs`);
  await bench.storage.start();
  assert.deepEqual(bench.did, ['mount /dev/sdb1 /var/lib']);
  assert.match((await reasons(bench)).join(), /tmpfs is mounted at \/olares\/share\/theirs/);
  const on = { ...bench.storage.seen(), systemPaths: ['/', '/olares/data', shareRoot], entries: [] };
  const { whyNotByFstab } = await import('#storage/fstab-mounts.ts');
  const [place] = on.disks.flatMap((each) => each.volumes.map((one) => ({ volume: one, disks: [each] })));
  const [line] = on.fstab;
  assert.ok(place && line);
  assert.match(whyNotByFstab(line, place, on) ?? '', /\/olares\/data lies in \/olares/);
  await bench.storage.close();
});

test('a disk waits for the mount that its place lies in, whatever that is of', async () => {
  for (const outer of [
    'nas:/export /srv nfs',
    '/data/srv /srv none bind',
    'tank/srv /srv zfs',
    'UUID=u-away /srv ext4',
  ]) {
    const bench = world(() => `UUID=u-A /srv/media ext4 defaults\n${outer} defaults`, {
      disks: [disk('S1', volume('A'))],
    });
    await bench.storage.start();
    assert.deepEqual(bench.did, [], outer);
    bench.add({ source: 'somewhere', target: '/srv', dev: '0:50', fstype: 'x' });
    await bench.storage.local.settled();
    assert.deepEqual(bench.did, ['mount /dev/sda1 /srv/media'], outer);
    await bench.storage.close();
  }
});

test('a btrfs in an opened LUKS is listed where it is mounted, and left alone once a person has unmounted it', async () => {
  const bench = world(() => '/dev/mapper/safe /srv/x btrfs defaults', {
    ...{ disks: [disk('S1', member)], built: () => [mapped(0, 'safe', 'btrfs')] },
  });
  await bench.storage.start();
  const rows = await bench.storage.mounted((row) => row.type === 'hdd');
  assert.deepEqual(
    rows.map((row) => row.path),
    ['/srv/x'],
  );
  bench.drop('/srv/x');
  await bench.storage.local.settled();
  assert.deepEqual(bench.did, ['mount /dev/mapper/safe /srv/x']);
  await bench.storage.close();
});

test('a bind of a mount keeps no other line of its file system from being carried out', async () => {
  let lines = 'UUID=u-A /srv/x ext4 defaults';
  const bench = world(() => `${lines}\nUUID=u-no /srv/y ext4 noauto`, { disks: [disk('S1', volume('A'))] });
  await bench.storage.start();
  bench.machine.makeForeign('/home', 'folder');
  bench.machine.mountForeign('/dev/sda1', '/home');
  lines += '\nUUID=u-A /srv/y ext4 defaults';
  await bench.storage.local.settled();
  assert.deepEqual(targetsOf(bench.machine), ['/dev/sda1 /srv/x', '/dev/sda1 /home', '/dev/sda1 /srv/y']);
  await bench.storage.close();
});

test('what was ejected is not mounted by a line that comes meanwhile', async () => {
  let lines = '';
  const stick: FakeDisk = { ...disk('S1', volume('STICK')), transport: 'usb' };
  const bench = world(() => lines, { disks: [stick] });
  await bench.storage.start();
  lines = 'UUID=u-STICK /olares ext4 defaults';
  const [row] = bench.storage.registry.all();
  assert.ok(row);
  await bench.storage.ejector.eject(row, false);
  await bench.storage.local.settled();
  assert.deepEqual(targetsOf(bench.machine), []);
  assert.match((await reasons(bench)).join(), /ejected; plug it in again/);
  await bench.storage.close();
});

test('what is named alike does not come in the place of what a person has unmounted', async () => {
  const [one, copy] = [disk('S1', volume('A')), disk('S2', volume('A'))];
  const bench = world(() => 'UUID=u-A /srv/x ext4 defaults', { disks: [one, copy] });
  await bench.storage.start();
  const mounted = bench.machine.entries().at(-1);
  assert.ok(mounted);
  bench.machine.umountForeign(mounted.id);
  await bench.storage.local.settled();
  assert.deepEqual(targetsOf(bench.machine), []);
  bench.machine.unplug(one);
  await bench.storage.local.settled();
  assert.deepEqual(targetsOf(bench.machine), ['/dev/sdb1 /srv/x']);
  await bench.storage.close();
});

test('a line whose path leads through a link is left to a person, who is told where it leads, and then no more', async () => {
  const bench = world(() => 'UUID=u-A /link/x ext4 defaults', { disks: [disk('S1', volume('A'))] });
  bench.machine.links.set('/link/x', '/real/x');
  await bench.storage.start();
  assert.deepEqual(bench.did, []);
  assert.match(
    bench.storage.problems()[0]?.message ?? '',
    /\/link\/x leads to \/real\/x; name that in \/etc\/fstab/,
  );
  bench.machine.mountForeign('/dev/sda1', '/real/x');
  await bench.storage.local.settled();
  assert.deepEqual(bench.storage.problems(), []);
  await bench.storage.close();
});

test('what is said of one disk of a btrfs holds for its line of fstab too', async () => {
  const member = (n: number, more = {}): BlockDevice => ({
    ...mapped(n, `m${n}`, 'btrfs'),
    ...{ name: `sd${'xyz'[n]}`, node: `/dev/sd${'xyz'[n]}`, slaves: [], dev: `8:${200 + n * 16}` },
    sysPath: `/sys/devices/pci0/usb1/1-${n + 1}/1-${n + 1}:1.0/host${n}/block/sd${'xyz'[n]}`,
    properties: {
      ...{ ID_SERIAL: `M${n}`, ID_SERIAL_SHORT: `M${n}`, ID_FS_USAGE: 'filesystem', ID_FS_TYPE: 'btrfs' },
      ...{ ID_FS_UUID: 'u-pool', ID_FS_UUID_SUB: `sub${n}` },
      ...more,
    },
  });
  const didWith = async (policy: 'auto' | 'read-only' | 'ignore', more = {}) => {
    const bench = world(() => 'UUID=u-pool /srv/x btrfs defaults', {
      ...{ built: () => [member(0, more), member(1)], isPool: true },
    });
    const { storage } = bench;
    storage.registry.setPolicy('M1', policy);
    await storage.start();
    await storage.close();
    const why = (await reasons(bench)).filter((each) => each !== 'its role is empty'); // of the disk beside them
    return bench.did.length > 0 ? bench.did : why;
  };
  assert.deepEqual(await didWith('auto'), ['mount /dev/sdx /srv/x']);
  assert.deepEqual(await didWith('read-only'), ['mount /dev/sdx /srv/x ro,rescue=nologreplay']);
  assert.deepEqual(await didWith('ignore'), ['its policy is ignore', 'its policy is ignore']);
  const missing = 'other disks of its file system are missing';
  assert.deepEqual(await didWith('auto', { ID_BTRFS_READY: '0' }), [missing, missing]);
});
