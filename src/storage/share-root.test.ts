import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FakeDisk } from '#host/fake/machine.ts';
import { checkLogin, parseSmbPath } from '#storage/smb.ts';
import { rig, shareRoot } from '../../tests/support/fake-storage.ts';
import { disk, reasons, targetsOf, volume, world } from '../../tests/support/fstab-world.ts';

test('a stick waits for the disk of the share root, which would hide it', async () => {
  const root = disk('S2', volume('ROOT'));
  const stick: FakeDisk = { ...disk('S1', volume('STICK')), transport: 'usb' };
  const bench = world(() => `UUID=u-ROOT ${shareRoot} ext4 nofail`, { disks: [stick] });
  await bench.storage.start();
  assert.deepEqual(targetsOf(bench.machine), []);
  assert.match((await reasons(bench)).join(), /fstab mounts \/olares\/share first/);
  assert.match(bench.storage.problems()[0]?.message ?? '', /\/olares\/share is not mounted.*wait for it/);
  bench.machine.shares.set('//nas/public', volume('public', 'cifs'));
  bench.machine.servers.add('nas');
  const share = () => bench.storage.shares.mountSmb(parseSmbPath('//nas/public'), undefined);
  await assert.rejects(share, /waits for \/olares\/share/);
  assert.deepEqual(bench.storage.shares.rows(), []);
  bench.machine.plug(root);
  await bench.storage.local.settled();
  assert.deepEqual(bench.storage.problems(), []);
  await share();
  const [first, ...more] = targetsOf(bench.machine);
  assert.equal(first, `/dev/sdc1 ${shareRoot}`);
  assert.deepEqual(more, [`/dev/sda1 ${shareRoot}/STICK`, `//nas/public ${shareRoot}/public`]);
  await bench.storage.close();
});

test('a line of the share root that comes later keeps nothing from working, for it would hide that', async () => {
  let lines = '';
  const stick = (label: string): FakeDisk => ({ ...disk(label, volume(label)), transport: 'usb' });
  const bench = world(() => lines, { disks: [stick('ONE'), disk('S2', volume('ROOT'))] });
  await bench.storage.start();
  lines = `UUID=u-ROOT ${shareRoot} ext4 defaults`;
  bench.machine.plug(stick('TWO'));
  await bench.storage.local.settled();
  assert.deepEqual(targetsOf(bench.machine), [`/dev/sda1 ${shareRoot}/ONE`, `/dev/sdd1 ${shareRoot}/TWO`]);
  assert.deepEqual(bench.storage.problems(), []);
  assert.match((await reasons(bench)).join(), /is mounted at \/olares\/share\/TWO/);
  await bench.storage.close();
});

test('while the share root is awaited no login is opened for a share', async () => {
  const bench = world(() => '');
  bench.machine.shares.set('//nas/public', volume('public', 'cifs'));
  bench.machine.servers.add('nas');
  await bench.storage.start();
  await bench.storage.shares.mountSmb(parseSmbPath('//nas/public'), checkLogin('ann', 'secret'));
  await bench.storage.close();
  const before = bench.machine.entries().at(-1);
  assert.ok(before);
  bench.machine.umountForeign(before.id);
  const secrets: string[] = [];
  const { storage, clock } = rig({
    machine: bench.machine,
    store: bench.store,
    real: {
      fstab: () => `UUID=u-away ${shareRoot} ext4 nofail`,
      secrets: {
        seal: async () => '',
        open: async (name) => {
          secrets.push(name);
          return '';
        },
        withFile: (_, use) => use('/file'),
      },
    },
  });
  await storage.start();
  for (let n = 0; n < 20; n++) {
    await clock.advance(3000);
    await storage.shares.tend();
  }
  assert.deepEqual(secrets, []);
  assert.match(storage.shares.failureOf(storage.shares.rows()[0]?.identity ?? '')?.words ?? '', /waits for/);
  await storage.close();
});

test('a share whose mount alone keeps a line of the share root away is not detached, for it could not come back', async () => {
  let lines = '';
  const bench = world(() => lines);
  bench.machine.shares.set('//nas/public', volume('public', 'cifs'));
  bench.machine.servers.add('nas');
  await bench.storage.start();
  await bench.storage.shares.mountSmb(parseSmbPath('//nas/public'), undefined);
  const [row] = bench.storage.shares.rows();
  assert.ok(row);
  assert.equal(bench.storage.mounter.awaited(row), undefined);
  lines = `UUID=u-away ${shareRoot} ext4 nofail`;
  assert.equal(bench.storage.mounter.awaited(row), shareRoot);
  assert.equal(bench.storage.mounter.awaited({ name: 'another' }), undefined, 'it would be hidden already');
  await bench.storage.close();
});
