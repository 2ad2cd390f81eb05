/** Runs in a mount namespace of its own, as root: random steps over loop disks and the mounts of the real kernel. */
import assert from 'node:assert/strict';
import { existsSync, lstatSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { topmostAt } from '#host/mounts.ts';
import { isFault } from '#lib/fault.ts';
import { isKnown, kinds, type Stick } from './loop-sticks.ts';
import { LoopWorld } from './loop-world.ts';
import { Dead } from './mortal.ts';

const [base, seed, runs, steps] = [
  process.env['BEOSD_MODEL_BASE'] ?? '',
  Number(process.env['BEOSD_SEED']),
  Number(process.env['BEOSD_MODEL_RUNS']),
  Number(process.env['BEOSD_MODEL_STEPS']),
];

const names = ['STICK', 'STICK-2', 'Photos', 'Pool', 'Sealed', 'CARD'];
type Meddling = {
  readonly op: 'foreignFolder' | 'foreignNote' | 'replaceFolder' | 'removeFolder';
  readonly name: number;
};
type Op =
  | Meddling
  | { readonly op: 'plug' | 'unplug' | 'hold' | 'release' | 'write' | 'foreignDisk'; readonly stick: number }
  | { readonly op: 'eject'; readonly stick: number; readonly force: boolean }
  | { readonly op: 'policy'; readonly stick: number; readonly policy: 'auto' | 'read-only' | 'ignore' }
  | { readonly op: 'foreignMount'; readonly name: number; readonly how: 'tmpfs' | 'bind' | 'within' }
  | { readonly op: 'crash'; readonly after: number }
  | { readonly op: 'crashWhilePulled'; readonly stick: number; readonly call: string }
  | { readonly op: 'race'; readonly stick: number; readonly call: string; readonly what: Meddling }
  | { readonly op: 'look' | 'restart' | 'reboot' | 'foreignUmount' };

const stick = fc.nat(7);
const name = fc.nat(names.length - 1);
const of = <T extends string>(...all: T[]) => fc.constantFrom(...all);
const betweenCalls = ['look', 'make', 'rename', 'mount'];
const race = (what: Meddling['op'], calls: readonly string[] = [...betweenCalls, 'remove']) =>
  fc.record({ op: of('race'), stick, call: of(...calls), what: fc.record({ op: of(what), name }) });
const opArb: fc.Arbitrary<Op> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ op: of('plug', 'unplug'), stick }) },
  { weight: 3, arbitrary: fc.record({ op: of('write', 'hold', 'release'), stick }) },
  { weight: 3, arbitrary: fc.record({ op: of('eject'), stick, force: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ op: of('policy'), stick, policy: of('auto', 'read-only', 'ignore') }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: of('foreignMount'), name, how: of('tmpfs', 'bind', 'within') }),
  },
  { weight: 1, arbitrary: fc.record({ op: of('foreignDisk'), stick }) },
  { weight: 2, arbitrary: fc.record({ op: of('foreignUmount') }) },
  {
    weight: 3,
    arbitrary: fc.record({ op: of('foreignFolder', 'foreignNote', 'replaceFolder', 'removeFolder'), name }),
  },
  { weight: 2, arbitrary: fc.record({ op: of('crash'), after: fc.nat(40) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      op: of('crashWhilePulled'),
      stick,
      call: of('umount', 'umount done', 'look', 'remove', 'remove'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.oneof(
      race('replaceFolder', betweenCalls),
      race('foreignFolder'),
      race('foreignNote', ['look', 'remove']),
    ),
  },
  { weight: 5, arbitrary: fc.record({ op: of('look', 'restart') }) },
  { weight: 1, arbitrary: fc.record({ op: of('reboot') }) },
) as fc.Arbitrary<Op>;

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

async function apply(world: LoopWorld, step: Op): Promise<void> {
  const { storage } = world.daemon;
  const at = 'stick' in step ? world.sticks[step.stick] : undefined;
  switch (step.op) {
    case 'plug':
      return world.plug(at);
    case 'unplug':
      return at && world.unplug(at);
    case 'hold':
      return at && world.hold(at);
    case 'release':
      return at && world.release(at);
    case 'write':
      return at && world.write(at);
    case 'foreignDisk':
      return at && mountElsewhere(world, at);
    case 'eject': {
      const rows = storage.registry.all().filter((row) => row.phase !== 'none');
      const row = rows[step.stick % Math.max(rows.length, 1)];
      if (row !== undefined) await storage.ejector.eject(row, step.force);
      return;
    }
    case 'policy': {
      const disk = storage.seen().disks[step.stick];
      if (disk !== undefined) storage.setPolicy(disk, step.policy);
      return;
    }
    case 'look':
      return storage.local.settled();
    case 'crash':
      return world.life.endAfter(step.after);
    case 'crashWhilePulled':
      return at && crashWhilePulled(world, at, step.call);
    case 'race':
      return at && meddleBefore(world, at, step.call, step.what);
    case 'restart':
      await world.restart();
      return world.daemon.storage.start();
    case 'reboot':
      await world.reboot();
      return world.daemon.storage.start();
    case 'foreignMount':
      return mountByOthers(world, step.name, step.how);
    case 'foreignUmount':
      return world.umountForeign();
    default:
      return meddle(world, step);
  }
}

/** A daemon that lives: what dies or is disturbed in the middle of something has to be at work. */
async function living(world: LoopWorld): Promise<LoopWorld['daemon']['storage']> {
  if (world.life.isOver) {
    await world.restart();
    await world.daemon.storage.start();
  }
  return world.daemon.storage;
}

/** The daemon dies while it clears up after a stick, and others make folders of the same names before it is back. */
async function crashWhilePulled(world: LoopWorld, at: Stick, call: string): Promise<void> {
  const { local } = await living(world);
  world.plug(at);
  await local.settled();
  world.life.endAt(call);
  world.unplug(at);
  await local.settled();
  await world.quiet();
  meddle(world, { op: 'foreignFolder', name: placeOf(world, at) ?? 0 });
}

/** Where the stick was mounted last, as a number of {@link names}. */
function placeOf(world: LoopWorld, at: Stick): number | undefined {
  const place = names.findIndex((each) => world.seenAt.get(`${at.serial} 0`)?.endsWith(`/${each}`) === true);
  return place < 0 ? undefined : place;
}

/** Somebody gets in between two calls of the daemon while a stick comes or goes; mostly at its very place. */
async function meddleBefore(world: LoopWorld, at: Stick, call: string, what: Meddling): Promise<void> {
  const { local } = await living(world);
  await local.settled();
  const own = placeOf(world, at);
  const place = own !== undefined && what.name > 0 ? own : what.name;
  world.life.before(call, () => meddle(world, { ...what, name: place }));
  if (world.isPlugged(at)) world.unplug(at);
  else world.plug(at);
  await local.settled();
}

/** What others do with folders below the share root. */
function meddle(world: LoopWorld, step: Meddling): void {
  const path = join(world.shareRoot, names[step.name] ?? '');
  if (topmostAt(world.entries(), path) !== undefined) return;
  const known = world.folders.get(path);
  const stat = lstatSync(path, { throwIfNoEntry: false });
  switch (step.op) {
    case 'foreignFolder':
      if (stat === undefined) world.makeFolder(path);
      return;
    case 'foreignNote':
      if (stat?.isDirectory() !== true) return;
      writeFileSync(join(path, 'note'), 'theirs');
      world.folders.set(path, { inode: lstatSync(path, { bigint: true }).ino, note: true });
      return;
    case 'replaceFolder':
      if (stat === undefined || known !== undefined) return;
      rmdirSync(path);
      world.makeFolder(path);
      return;
    case 'removeFolder':
      world.removeFolder(path);
  }
}

/** Somebody mounts over, or into, what is below the share root. */
function mountByOthers(world: LoopWorld, at: number, how: 'tmpfs' | 'bind' | 'within'): void {
  const path = join(world.shareRoot, names[at] ?? '');
  const isMounted = topmostAt(world.entries(), path) !== undefined;
  if (how === 'within') {
    if (isMounted && existsSync(join(path, 'sub')))
      world.mountForeign(['-t', 'tmpfs', 'theirs'], join(path, 'sub'));
    return;
  }
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
  const what = how === 'tmpfs' ? ['-t', 'tmpfs', 'theirs'] : ['--bind', join(world.base, 'keep')];
  world.mountForeign(what, path);
}

/** Somebody has the folder of a stick elsewhere too, as a pod would. */
function mountElsewhere(world: LoopWorld, at: Stick): void {
  const place = join(world.base, 'elsewhere');
  const path = world.mountOf(at);
  if (path === undefined || topmostAt(world.entries(), place) !== undefined) return;
  if (existsSync(join(path, 'sub'))) world.mountForeign(['--bind', join(path, 'sub')], place);
}

/** With the daemon alive and nobody in its way, everything that can be mounted is, and nothing is left over. */
async function checkSettles(world: LoopWorld): Promise<void> {
  await world.quiet();
  for (const each of world.sticks) world.release(each);
  while (world.foreign.length > 2) world.umountForeign();
  await world.restart();
  const { storage } = world.daemon;
  await storage.start();
  await storage.local.settled();
  world.checkOthers();
  world.checkFiles();
  const entries = world.entries();
  for (const { volumes } of await storage.disks()) {
    for (const volume of volumes)
      assert.ok(
        volume.mountedAt.length > 0 || volume.notMountedBecause !== '',
        `${volume.device} says why not`,
      );
  }
  for (const row of storage.registry.all()) assert.ok(['none', 'mounted'].includes(row.phase), row.phase);
  for (const each of world.daemon.ports.folders.list(world.shareRoot)) {
    const path = join(world.shareRoot, each);
    const explained = topmostAt(entries, path) !== undefined || world.folders.has(path);
    assert.ok(explained, `${path} is a mount point or somebody else's folder`);
  }
  for (const each of world.sticks) world.unplug(each);
  await storage.local.settled();
  await storage.close();
  for (const path of world.folders.keys()) world.removeFolder(path);
  const left = world.entries().filter((entry) => entry.target.startsWith(`${world.shareRoot}/`));
  assert.deepEqual(left, [], 'of what was unplugged nothing is mounted');
}

const world = new LoopWorld(base);
after(() => world.close());
test(`on the real kernel nothing of a user or of anybody else is lost in ${runs * steps} random steps`, async (t) => {
  const happened = new Map<string, number>();
  const count = (what: string, n = 1) => happened.set(what, (happened.get(what) ?? 0) + n);
  const property = fc.asyncProperty(fc.array(opArb, { minLength: steps, maxLength: steps }), async (ops) => {
    await world.restart();
    await tolerated(() => world.daemon.storage.start());
    for (const [n, step] of ops.entries()) {
      count(step.op);
      const wasAlive = !world.life.isOver;
      await tolerated(() => apply(world, step));
      world.checkOthers();
      if (n % 2 === 0) await tolerated(() => world.daemon.storage.local.settled());
      else continue;
      await world.quiet();
      if (wasAlive && world.life.isOver) count('died');
      world.checkOthers();
      count('mounts looked into', world.checkFiles());
    }
    await checkSettles(world);
  });
  await fc.assert(property, { seed, numRuns: runs, endOnFailure: true });
  t.diagnostic(`${JSON.stringify(Object.fromEntries(happened))}`);
  const mounted = new Set([...world.seenAt.keys()].map((key) => key.split(' ')[0]));
  const mountable = world.sticks.filter(({ fstype }) => isKnown(fstype));
  t.diagnostic(`sticks that were mounted: ${[...mounted].sort().join(', ')} of ${world.sticks.length}`);
  for (const { serial, fstype } of world.sticks.filter((each) => !mountable.includes(each)))
    t.diagnostic(`${serial} is never mounted: this kernel has no ${fstype}, nor a module for it`);
  assert.equal(world.sticks.length, kinds.length, 'every kind of stick could be made');
  assert.deepEqual(
    mountable.filter(({ serial }) => !mounted.has(serial)).map(({ serial, fstype }) => `${serial} ${fstype}`),
    [],
    'every stick whose file system this kernel has was mounted',
  );
  // A model that never gets anywhere would prove nothing.
  for (const what of ['died', 'eject', 'foreignMount', 'mounts looked into'])
    assert.ok((happened.get(what) ?? 0) >= runs, `${what} happened often enough`);
});
