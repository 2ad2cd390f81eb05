import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { MountedPath } from '#api/storage.ts';
import { randomFrom } from '../support/random.ts';
import { labAvailable } from './available.ts';
import { type BeosNode, shareRoot, startNode } from './node.ts';
import { makeStick, type StickFilesystem } from './sticks.ts';
import { bootStorageNode, mountOf } from './storage-node.ts';

const reason = await labAvailable('guest');
const replugs = 50;

interface Stick {
  readonly serial: string;
  readonly label: string;
  readonly filesystem: StickFilesystem;
}

/** Three of one label, so that which of them comes first would decide the name if nothing were remembered. */
const sticks: readonly Stick[] = [
  { serial: 'R1', label: 'STICK', filesystem: 'vfat' },
  { serial: 'R2', label: 'STICK', filesystem: 'ext4' },
  { serial: 'R3', label: 'STICK', filesystem: 'exfat' },
  { serial: 'R4', label: 'MOVIES', filesystem: 'ntfs' },
];

describe('sticks that come back', { skip: reason ?? false, timeout: 30 * 60_000 }, () => {
  let folder: string;
  let node: BeosNode;
  /** What QEMU calls the sticks that are plugged in, by serial number. */
  const plugged = new Map<string, string>();
  const homes = new Map<string, string>();
  let made = 0;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-replug-'));
    for (const { serial, ...stick } of sticks) await makeStick({ image: join(folder, serial), ...stick });
    node = await bootStorageNode();
  });
  after(async () => {
    await node.vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  const plug = async (serial: string) => {
    plugged.set(serial, await node.vm.plugUsb({ image: join(folder, serial), serial }));
  };
  const pull = async (serial: string) => {
    await node.vm.unplugUsb(plugged.get(serial) ?? '');
    plugged.delete(serial);
  };
  /** Exactly the sticks that are plugged in are mounted, each at its own path. */
  const areHome = (paths: readonly MountedPath[]) =>
    paths.length === plugged.size &&
    [...plugged.keys()].every((serial) => {
      const at = mountOf(paths, serial);
      return at?.path === homes.get(serial) && at?.type === 'usb' && !at.invalid;
    });
  const contentIs = async (serial: string) => {
    const { stdout } = await node.vm.run(['cat', `${homes.get(serial)}/whose`]);
    assert.equal(stdout, `of ${serial}\n`);
  };
  /** Pulls two to four of the sticks and plugs them in again in another order. */
  const round = async (random: () => number, most: number) => {
    const order = shuffled(
      sticks.map((stick) => stick.serial),
      random,
    );
    const some = order.slice(0, Math.min(most, 2 + Math.floor(random() * (sticks.length - 1))));
    for (const serial of some) await pull(serial);
    await node.until(`${some.join(', ')} are gone`, 60_000, areHome);
    const back = shuffled(some, random);
    for (const serial of back) await plug(serial);
    await node.until(`${back.join(', ')} are home after replug ${made}`, 120_000, areHome);
    for (const serial of back) await contentIs(serial);
    made += back.length;
  };

  it('four sticks, three of one label: each gets a path of its own', async () => {
    for (const { serial } of sticks) await plug(serial);
    await node.until('all are mounted', 120_000, (paths) => paths.length === sticks.length);
    for (const { path, id_serial_short } of await node.paths()) {
      homes.set(id_serial_short, path);
      await node.vm.run(['sh', '-c', 'echo "of $2" > "$1/whose"', 'sh', path, id_serial_short]);
    }
    await node.vm.run(['sync']);
    assert.deepEqual(
      [...homes.values()].sort(),
      ['MOVIES', 'STICK', 'STICK-2', 'STICK-3'].map((name) => `${shareRoot}/${name}`),
    );
  });

  it(`${replugs} replugs in random order, a reboot in the middle: the same paths every time`, async (t) => {
    const random = randomFrom(t, 20261125);
    while (made < replugs / 2) await round(random, replugs);
    t.diagnostic(`${made} replugs before the reboot`);
    // All are pulled and plugged into other ports, so that the kernel finds them in another order when it boots.
    for (const { serial } of sticks) await pull(serial);
    await node.until('all are gone', 60_000, areHome);
    for (const { serial } of sticks.toReversed()) await plug(serial);
    await node.until('all are home before the reboot', 120_000, areHome);
    const next = node.vm.nextBoot();
    next.catch(() => undefined);
    assert.equal((await node.call('POST', '/command/reboot', {})).status, 200);
    await next;
    node = await startNode(node.vm);
    const took = await node.until('all are home after the reboot', 180_000, areHome);
    t.diagnostic(`all home ${Math.round(took)} ms after the daemon answered`);
    for (const { serial } of sticks) await contentIs(serial);
    while (made < replugs) await round(random, replugs - made);
    assert.equal(made, replugs);
  });

  it('two sticks of one serial number: each keeps its path in either order, and one that was ejected stays so', async () => {
    for (const { serial } of sticks) await pull(serial);
    await node.until('all are gone', 60_000, areHome);
    const twins = ['LEFT', 'RIGHT'] as const;
    const homeOf = (label: string) => `${shareRoot}/${label}`;
    const ids = new Map<string, string>();
    const plugTwin = async (label: string) => {
      ids.set(label, await node.vm.plugUsb({ image: join(folder, label), serial: 'TWIN' }));
      await node.until(`${label} is at home`, 60_000, isMounted(label, true));
    };
    const isMounted = (label: string, wanted: boolean) => (paths: readonly MountedPath[]) =>
      paths.some(({ path }) => path === homeOf(label)) === wanted;
    for (const label of twins) await makeStick({ image: join(folder, label), filesystem: 'ext4', label });
    for (const label of twins) await plugTwin(label);
    const ejected = await node.call('POST', '/command/umount-usb', { path: homeOf('LEFT') });
    assert.equal(ejected.status, 200, ejected.message);
    const { safe, poweredDown } = ejected.data as { safe: boolean; poweredDown: boolean };
    assert.deepEqual([safe, poweredDown], [true, true]);
    assert.deepEqual(
      (await node.paths()).map(({ path }) => path),
      [homeOf('RIGHT')],
    );
    for (const label of twins) await node.vm.unplugUsb(ids.get(label) ?? '');
    await node.until('both are gone', 60_000, (paths) => paths.length === 0);
    for (const label of twins.toReversed()) await plugTwin(label);
    assert.deepEqual((await node.paths()).map(({ path }) => path).sort(), twins.map(homeOf));
    for (const label of twins) await node.vm.unplugUsb(ids.get(label) ?? '');
    await node.until('both are gone again', 60_000, (paths) => paths.length === 0);
  });
});

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const keyed = items.map((item) => ({ item, key: random() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item);
}
