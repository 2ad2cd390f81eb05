import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Exec, SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { decodeUdev, parseUdevData, UdevDevices } from '#host/udev.ts';

/** A sysfs and a udev database as the kernel and udev lay them out. */
function tree() {
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'beosd-sys-')));
  const disk = join(root, 'sys/devices/pci0000:00/usb2/2-1/2-1:1.0/host0/block/sdb');
  const put = (folder: string, attributes: Record<string, string>) => {
    mkdirSync(join(folder, 'holders'), { recursive: true });
    mkdirSync(join(folder, 'slaves'), { recursive: true });
    for (const [name, value] of Object.entries(attributes)) writeFileSync(join(folder, name), `${value}\n`);
  };
  put(disk, { dev: '8:16', size: '2048', ro: '0', removable: '1', diskseq: '7' });
  put(join(disk, 'sdb1'), { dev: '8:17', size: '1024', ro: '0', partition: '1' });
  mkdirSync(join(root, 'sys/class/block'), { recursive: true });
  symlinkSync(disk, join(root, 'sys/class/block/sdb'));
  symlinkSync(join(disk, 'sdb1'), join(root, 'sys/class/block/sdb1'));
  symlinkSync(join(root, 'gone'), join(root, 'sys/class/block/sdc'));
  mkdirSync(join(root, 'run/data'), { recursive: true });
  writeFileSync(
    join(root, 'run/data/b8:17'),
    'S:disk/by-uuid/AB-CD\nI:123\nE:ID_FS_TYPE=vfat\nE:ID_FS_LABEL_ENC=My\\x20Stick\nE:A=b=c\n',
  );
  return { root, places: { sys: join(root, 'sys'), run: join(root, 'run') } };
}

test('a disk and its partition are read with their database; one that has just gone is left out', () => {
  const { places } = tree();
  const devices = new UdevDevices(new SystemExec(), new Files(), places).list();
  assert.deepEqual(
    devices.map(({ name, node, dev, kind, parent, size, removable, sequence }) => ({
      ...{ name, node, dev, kind, parent, size, removable, sequence },
    })),
    [
      {
        ...{ name: 'sdb', node: '/dev/sdb', dev: '8:16', kind: 'disk', parent: undefined },
        ...{ size: 1_048_576, removable: true, sequence: '7' },
      },
      {
        ...{ name: 'sdb1', node: '/dev/sdb1', dev: '8:17', kind: 'partition', parent: 'sdb' },
        ...{ size: 524_288, removable: true, sequence: '7' },
      },
    ],
  );
  assert.equal(devices[0]?.properties, undefined, 'udev has not finished with it');
  assert.deepEqual(devices[1]?.properties, { ID_FS_TYPE: 'vfat', ID_FS_LABEL_ENC: 'My\\x20Stick', A: 'b=c' });
  assert.deepEqual(
    devices.map(({ links }) => links),
    [[], ['/dev/disk/by-uuid/AB-CD']],
  );
});

test('without sysfs it is not known which disks there are', () => {
  const { root, places } = tree();
  const devices = new UdevDevices(new SystemExec(), new Files(), { ...places, sys: join(root, 'no-sys') });
  assert.throws(() => devices.list(), /class\/block is not there/);
});

test('a disk that is pulled while its attributes are read takes no other disk with it', () => {
  const { root, places } = tree();
  symlinkSync(join(root, 'sys/class/block/sdb'), join(root, 'sys/class/block/sda'));
  const pulled = new (class extends Files {
    #read = 0;
    override readText(path: string): string | undefined {
      // The kernel's answer to a read of an attribute whose device has gone since it was opened.
      const isGone = path.endsWith('/sdb/size') && this.#read++ === 0;
      if (isGone) throw Object.assign(new Error('ENODEV: no such device, read'), { code: 'ENODEV' });
      return super.readText(path);
    }
  })();
  const devices = new UdevDevices(new SystemExec(), pulled, places).list();
  assert.deepEqual(
    devices.map(({ name }) => name),
    ['sdb', 'sdb1'],
  );
});

test('names come out of their encoding, also those that are not ASCII', () => {
  assert.equal(decodeUdev('My\\x20Stick'), 'My Stick');
  assert.equal(decodeUdev('\\xc3\\x9cbung'), 'Übung');
  assert.equal(parseUdevData(undefined), undefined);
});

test('only events that udev has finished with make it look; the end of the listener is told once', async () => {
  let tell: (line: string) => void = () => undefined;
  let end: () => void = () => undefined;
  const exec: Exec = {
    started: 0,
    run: () => Promise.reject(new Error('nothing runs here')),
    lines: (_file, _args, onLine) => {
      tell = onLine;
      const ended = new Promise<void>((resolve) => {
        end = resolve;
      });
      return { pid: 1, ended, stop: () => end() };
    },
  };
  const changes: (string | undefined)[] = [];
  const lost: string[] = [];
  new UdevDevices(exec, new Files()).watch(
    (place) => changes.push(place),
    (reason) => lost.push(reason),
  );
  for (const line of [
    'monitor will print the received events for:',
    'UDEV  [1.5] add      /devices/x/block/sda (block)',
    'UDEV  of a kind that is not known',
    'ACTION=add',
    '',
  ])
    tell(line);
  assert.deepEqual(changes, ['/sys/devices/x/block/sda', undefined]);
  end();
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(lost, ['udevadm monitor ended']);
});

test('a machine without udev is told so', async () => {
  const exec: Exec = {
    started: 0,
    run: () => Promise.reject(new Error('nothing runs here')),
    lines: () => ({ pid: undefined, ended: Promise.resolve(), stop: () => undefined }),
  };
  const reason = await new Promise<string>((resolve) => {
    new UdevDevices(exec, new Files()).watch(() => undefined, resolve);
  });
  assert.match(reason, /no udevadm/);
});
