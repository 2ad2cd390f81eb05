import assert from 'node:assert/strict';
import { basename } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { checkLogin, parseSmbPath } from '#storage/smb.ts';
import { quickStore, type Rig, rig, shareRoot } from '../../tests/support/fake-storage.ts';
import { Dead, Life } from '../../tests/support/mortal.ts';

/**
 * Random plugs, unplugs, mounts, umounts, crashes and restarts, with somebody else mounting and making folders in
 * between. Whatever happens: no file of a user changes, no mount of others goes, no folder of others goes, and a
 * file system always comes back at the path where it was first seen.
 */
const soak = process.env['BEOSD_SOAK'] === '1';
const seed = Number(process.env['BEOSD_SEED'] ?? 20_261_123);
const runs = soak ? 500 : 12;
const steps = 200;

type Meddling =
  | {
      readonly op: 'foreignMount' | 'foreignUmount' | 'foreignFolder' | 'foreignFile' | 'replaceFolder';
      readonly name: number;
    }
  | { readonly op: 'busy'; readonly name: number; readonly on: boolean };
type Op =
  | { readonly op: 'plug' | 'unplug'; readonly disk: number }
  | { readonly op: 'eject'; readonly disk: number; readonly force: boolean }
  | { readonly op: 'policy'; readonly disk: number; readonly policy: 'auto' | 'read-only' | 'ignore' }
  | { readonly op: 'mountShare' | 'umountShare'; readonly share: number }
  | { readonly op: 'server'; readonly server: number; readonly up: boolean }
  | Meddling
  | { readonly op: 'crash'; readonly after: number }
  | { readonly op: 'crashWhilePulled'; readonly disk: number; readonly call: string }
  | { readonly op: 'race'; readonly disk: number; readonly call: string; readonly what: Meddling }
  | { readonly op: 'reboot'; readonly crowded: boolean }
  | { readonly op: 'look' | 'tend' | 'restart' };

const names = ['STICK', 'STICK-2', 'Photos', 'public', 'backup', 'Acme_Disk'];
const sources = ['//nas/public', '//nas/backup', '//attic/public'];

const disk = fc.nat(6);
/** Calls of a daemon before which others may get in; rmdir itself is by name, and nothing lies between it and its look. */
const replaced = ['look', 'make', 'rename', 'mount', 'commit done'];
const race = (op: 'replaceFolder' | 'foreignFolder' | 'foreignFile', calls = [...replaced, 'remove']) =>
  fc.record({
    op: fc.constant('race'),
    disk: fc.nat(2),
    call: fc.constantFrom(...calls),
    what: fc.record({ op: fc.constant(op), name: fc.nat(names.length - 1) }),
  });
const opArb: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ op: fc.constantFrom('plug', 'unplug'), disk }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('eject'), disk, force: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('policy'),
      disk,
      policy: fc.constantFrom('auto', 'read-only', 'ignore'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constantFrom('mountShare', 'umountShare'), share: fc.nat(2) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('server'), server: fc.nat(1), up: fc.boolean() }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constantFrom('foreignMount', 'foreignUmount', 'foreignFolder', 'foreignFile', 'replaceFolder'),
      name: fc.nat(names.length - 1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('busy'), name: fc.nat(names.length - 1), on: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('crash'), after: fc.nat(60) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('crashWhilePulled'),
      disk: fc.nat(2),
      call: fc.constantFrom('umount', 'umount done', 'look', 'remove', 'commit', 'commit done'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.oneof(race('replaceFolder', replaced), race('foreignFolder'), race('foreignFile')),
  },
  { weight: 5, arbitrary: fc.record({ op: fc.constantFrom('look', 'tend', 'restart') }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('reboot'), crowded: fc.boolean() }) },
) as fc.Arbitrary<Op>;

class World {
  readonly machine = new FakeMachine(['/', '/olares', shareRoot]);
  readonly store = quickStore();
  readonly disks: FakeDisk[];
  readonly volumes: FakeVolume[];
  readonly contents: string[];
  readonly foreignMounts = new Set<number>();
  readonly foreignPaths = new Set<string>();
  readonly seenAt = new Map<string, string>();
  #boot = 1;
  /** Each daemon has a life of its own: one that was killed never touches anything again. */
  life = new Life();
  daemon: Rig;

  constructor() {
    const volume = (n: number, label: string, fstype: string): FakeVolume => ({
      ...{ fstype, uuid: `uuid-${n}`, label },
      files: new Map([['letter.txt', `precious ${n}`]]),
    });
    const stick = (serial: string, volumes: FakeVolume[]): FakeDisk => ({
      ...{ serial, model: 'Acme Disk', transport: 'usb', volumes },
    });
    this.disks = [
      stick('S1', [volume(1, 'STICK', 'vfat')]),
      stick('S2', [volume(2, 'STICK', 'ext4')]),
      stick('S3', [volume(3, 'Photos', 'exfat'), volume(4, '', 'xfs')]),
      stick('S4', [{ ...volume(5, 'Old', 'ntfs'), dirty: true }]),
      stick('S5', [{ ...volume(6, 'Broken', 'ext4'), broken: 'mount: wrong fs type, bad superblock' }]),
      // Two that call themselves as others do, as cheap ones do.
      stick('S1', [volume(7, 'STICK', 'vfat')]),
      stick('S3', [volume(8, 'Photos', 'ext4'), volume(9, 'Twin', 'ext4')]),
    ];
    for (const [n, source] of sources.entries()) this.machine.shares.set(source, volume(10 + n, '', 'cifs'));
    this.machine.servers.add('nas');
    this.volumes = [...this.disks.flatMap((each) => each.volumes), ...this.machine.shares.values()];
    this.contents = this.volumes.map(contentOf);
    this.daemon = this.#start();
  }

  restart(): void {
    this.life.end();
    this.machine.forgetWatchers();
    this.daemon = this.#start();
  }

  /** `crowded`: others mount at our places before the daemon is there, and get the numbers that ours had. */
  reboot(crowded: boolean): void {
    this.life.end();
    this.machine.forgetWatchers();
    this.machine.reboot();
    this.foreignMounts.clear();
    this.machine.busy.clear();
    this.#boot++;
    for (const name of crowded ? names.keys() : []) meddle(this, { op: 'foreignMount', name });
    this.restart();
  }

  #start(): Rig {
    this.life = new Life();
    const { guard } = this.life;
    return rig({ machine: this.machine, store: this.store, bootId: `boot-${this.#boot}`, guard });
  }
}

function contentOf(volume: FakeVolume): string {
  return JSON.stringify([...volume.files]);
}

/** What the daemon refuses, and a daemon that dies, are part of life. */
async function tolerated(work: () => Promise<unknown> | unknown): Promise<void> {
  try {
    await work();
  } catch (error) {
    const isExpected =
      error instanceof Dead || isFault(error) || (error instanceof Error && error.name === 'ExecError');
    if (!isExpected) throw error;
  }
}

async function apply(world: World, step: Op): Promise<void> {
  const { machine } = world;
  const { storage } = world.daemon;
  switch (step.op) {
    case 'plug':
    case 'unplug':
      return handle(world, step.op, world.disks[step.disk]);
    case 'eject': {
      const rows = storage.registry.all().filter((row) => row.kind === 'usb');
      const row = rows[step.disk % Math.max(rows.length, 1)];
      if (row !== undefined) await storage.ejector.eject(row, step.force);
      return;
    }
    case 'policy': {
      const disk = storage.seen().disks[step.disk];
      if (disk !== undefined) storage.setPolicy(disk, step.policy);
      return;
    }
    case 'mountShare': {
      const target = parseSmbPath(sources[step.share] ?? '');
      await storage.shares.mountSmb(target, checkLogin('ann', 'secret'));
      return;
    }
    case 'umountShare': {
      const row = storage.shares.rows()[step.share];
      if (row !== undefined) await storage.shares.umount(row, false);
      return;
    }
    case 'server':
      if (step.up) machine.servers.add(step.server === 0 ? 'nas' : 'attic');
      else machine.servers.delete(step.server === 0 ? 'nas' : 'attic');
      return;
    case 'look':
      return storage.local.settled();
    case 'tend':
      return storage.shares.tend();
    case 'crash':
      return world.life.endAfter(step.after);
    case 'crashWhilePulled':
      return crashWhilePulled(world, step.disk, step.call);
    case 'race':
      return meddleBefore(world, step.disk, step.call, step.what);
    case 'restart':
      world.restart();
      return world.daemon.storage.start();
    case 'reboot':
      world.reboot(step.crowded);
      return world.daemon.storage.start();
    default:
      return meddle(world, step);
  }
}

function handle({ machine }: World, op: 'plug' | 'unplug', disk: FakeDisk | undefined): void {
  if (disk === undefined) return;
  if (op === 'unplug') machine.unplug(disk);
  else if (!machine.isPlugged(disk)) machine.plug(disk);
}

/** The daemon dies while it clears up after a disk, and others make folders of the same names before it is back. */
async function crashWhilePulled(world: World, at: number, call: string): Promise<void> {
  const { storage } = world.daemon;
  handle(world, 'plug', world.disks[at]);
  await storage.local.settled();
  world.life.endAt(call);
  handle(world, 'unplug', world.disks[at]);
  await storage.local.settled();
  for (const name of names.keys()) meddle(world, { op: 'foreignFolder', name });
}

/** Somebody gets in between two calls of the daemon while a disk comes or goes. */
async function meddleBefore(world: World, at: number, call: string, what: Meddling): Promise<void> {
  const disk = world.disks[at];
  if (disk === undefined) return;
  // Mostly where it matters: at the very place of this disk.
  const own = names.indexOf(basename(world.seenAt.get(disk.volumes[0]?.uuid ?? '') ?? ''));
  const name = own >= 0 && what.name > 0 ? own : what.name;
  world.life.before(call, () => meddle(world, { ...what, name }));
  handle(world, world.machine.isPlugged(disk) ? 'unplug' : 'plug', disk);
  await world.daemon.storage.local.settled();
}

/** What others do below the share root. */
function meddle(world: World, step: Meddling): void {
  const { machine } = world;
  const path = `${shareRoot}/${names[step.name]}`;
  const isMounted = machine.entries().some((entry) => entry.target === path);
  switch (step.op) {
    case 'foreignMount':
      if (machine.hasFolder(path)) world.foreignMounts.add(machine.mountForeign('tmpfs', path));
      return;
    case 'foreignUmount': {
      const [id] = world.foreignMounts;
      if (id === undefined) return;
      machine.umountForeign(id);
      world.foreignMounts.delete(id);
      return;
    }
    case 'foreignFolder':
      if (machine.hasFolder(path) || isMounted) return;
      machine.makeForeign(path, 'folder');
      world.foreignPaths.add(path);
      return;
    case 'foreignFile':
      if (isMounted || !machine.hasFolder(path)) return;
      machine.makeForeign(`${path}/note`, 'file');
      world.foreignPaths.add(path);
      return;
    case 'replaceFolder':
      if (isMounted || world.foreignPaths.has(path)) return;
      if (machine.replaceFolder(path)) world.foreignPaths.add(path);
      return;
    case 'busy':
      if (step.on) machine.busy.add(path);
      else machine.busy.delete(path);
  }
}

function checkNothingLost(world: World): void {
  const { machine } = world;
  assert.deepEqual(machine.wrongs, []);
  assert.deepEqual(world.volumes.map(contentOf), world.contents, 'files of users are as they were');
  const ids = new Set(machine.entries().map((entry) => entry.id));
  for (const id of world.foreignMounts) assert.ok(ids.has(id), 'a mount of somebody else is still there');
  for (const path of world.foreignPaths)
    assert.ok(machine.hasFolder(path), `the folder ${path} of somebody else is still there`);
  for (const entry of machine.entries()) {
    if (!entry.target.startsWith(`${shareRoot}/`) || world.foreignMounts.has(entry.id)) continue;
    const volume = machine.volumeOf(entry.id);
    if (volume === undefined || volume.fstype === 'cifs') continue;
    assert.equal(world.seenAt.get(volume.uuid) ?? entry.target, entry.target, 'a path never changes');
    world.seenAt.set(volume.uuid, entry.target);
  }
}

/** With the daemon alive and nobody in its way, everything that can be mounted is, and nothing is left over. */
async function checkSettles(world: World): Promise<void> {
  const { machine } = world;
  for (const id of world.foreignMounts) machine.umountForeign(id);
  world.foreignMounts.clear();
  machine.busy.clear();
  world.restart();
  const { storage } = world.daemon;
  await storage.start();
  await storage.shares.tend();
  await storage.local.settled();
  checkNothingLost(world);
  const seen = storage.seen();
  const mounted = new Set(seen.entries.map((entry) => entry.target));
  for (const view of await storage.disks()) {
    for (const volume of view.volumes)
      assert.ok(
        volume.mountedAt.length > 0 || volume.notMountedBecause !== '',
        `${volume.device} is mounted or says why not`,
      );
  }
  for (const row of storage.registry.all()) assert.ok(['none', 'mounted'].includes(row.phase));
  for (const name of world.daemon.ports.folders.list(shareRoot)) {
    const path = `${shareRoot}/${name}`;
    const explained = mounted.has(path) || world.foreignPaths.has(path);
    assert.ok(explained, `${path} is a mount point or somebody else's folder`);
  }
  await storage.close();
}

test(`nothing of a user or of anybody else is lost in ${runs * steps} random steps`, async () => {
  const happened = new Map<string, number>();
  const count = (what: string) => happened.set(what, (happened.get(what) ?? 0) + 1);
  const property = fc.asyncProperty(fc.array(opArb, { minLength: steps, maxLength: steps }), async (ops) => {
    const world = new World();
    await tolerated(() => world.daemon.storage.start());
    for (const step of ops) {
      count(step.op);
      const wasAlive = !world.life.isOver;
      const mountsBefore = world.machine.entries().length;
      await tolerated(() => apply(world, step));
      if (wasAlive && world.life.isOver) count('died');
      if (world.machine.entries().length !== mountsBefore) count('changed the mounts');
      checkNothingLost(world);
    }
    await checkSettles(world);
    world.store.close();
  });
  await fc.assert(property, {
    seed,
    numRuns: runs,
    endOnFailure: !soak && process.env['SHRINK'] === undefined,
  });
  // A model that never gets anywhere would prove nothing.
  for (const what of ['died', 'changed the mounts', 'eject', 'mountShare', 'foreignMount'])
    assert.ok((happened.get(what) ?? 0) >= runs, `${what} happened often enough`);
});
