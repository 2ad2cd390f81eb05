import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { pass, shares, target } from '../../tests/support/fake-shares.ts';
import { quickStore, shareRoot } from '../../tests/support/fake-storage.ts';

test('while one server hangs the death of another is seen, and its return', async () => {
  const hung = Promise.withResolvers<boolean>();
  let hangs = false;
  const answers = (host: string) =>
    hangs && host === 'nas' ? hung.promise : Promise.resolve(machine.servers.has(host));
  const { storage, machine, clock, mount, isInvalid } = await shares({
    network: { answers: (host) => answers(host) },
  });
  await mount('nas');
  await mount('attic');
  hangs = true;
  await pass(clock, 4000);
  machine.servers.delete('attic');
  await pass(clock, 4000);
  assert.equal(await isInvalid('attic'), true);
  machine.servers.add('attic');
  await pass(clock, 4000);
  assert.equal(await isInvalid('attic'), false);
  hung.resolve(true);
  await storage.close();
});

test('a server that was away for long is used as soon as it is back', async () => {
  const { storage, machine, clock, mount, lose, entryOf } = await shares();
  await mount('nas');
  const mend = await lose('nas', 'mount error(2): No such file or directory');
  await pass(clock, 60_000);
  machine.servers.delete('nas');
  await pass(clock, 600_000);
  mend();
  machine.servers.add('nas');
  await pass(clock, 4000);
  assert.ok(entryOf('nas'));
  await storage.close();
});

test('a share that a starting server does not know yet is asked for again within seconds, a login that it refuses is not', async () => {
  const { storage, clock, mount, lose, entryOf } = await shares();
  const mounted = () => entryOf('nas') !== undefined;
  await mount('nas', { user: 'ann', password: 'pw' });
  for (const [words, soon] of [
    ['mount error(2): No such file or directory', true],
    ['mount error(13): Permission denied', false],
  ] as const) {
    const mend = await lose('nas', words);
    await pass(clock, 30_000);
    mend();
    await pass(clock, 14_000);
    assert.equal(mounted(), soon, words);
  }
  await pass(clock, 6 * 60_000);
  assert.equal(mounted(), true);
  await storage.close();
});

test('a share that hangs is not taken from who uses it: only after a minute it is made anew', async () => {
  const late = { file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  let hangs = true;
  const usage: typeof mounts.usage = (path, timeoutMs) =>
    hangs && path !== '/proc'
      ? Promise.reject(new ExecError({ ...late, lingering: undefined }))
      : mounts.usage(path, timeoutMs);
  const { clock, mount, isInvalid, entryOf, storage } = await shares({
    machine,
    real: { mounts: { ...mounts, usage } },
  });
  await mount('nas');
  const before = entryOf('nas')?.id;
  await isInvalid('nas');
  await pass(clock, 50_000);
  assert.equal(await isInvalid('nas'), true);
  assert.equal(entryOf('nas')?.id, before);
  hangs = false;
  await pass(clock, 4000);
  assert.equal(await isInvalid('nas'), false);
  assert.equal(entryOf('nas')?.id, before);
  hangs = true;
  await pass(clock, 1000);
  await isInvalid('nas');
  await pass(clock, 70_000);
  assert.notEqual(entryOf('nas')?.id, before);
  await storage.close();
});

test('two shares of one name that are asked for at the same time both come, each at a path of its own', async () => {
  const { storage, machine } = await shares();
  const login = { user: 'ann', password: 'pw' };
  const servers = ['nas', 'attic'];
  for (const server of servers)
    machine.shares.set(`//${server}/public`, { fstype: 'cifs', uuid: server, label: '', files: new Map() });
  const asked = servers.map((server) => storage.shares.mountSmb(target(server, 'public'), login));
  const paths = await Promise.all(asked);
  assert.deepEqual(paths.toSorted(), [`${shareRoot}/public`, `${shareRoot}/public-2`]);
  await storage.close();
});

test('a dead share that something is mounted in is shown as dead, and nothing of it is unmounted', async () => {
  const { storage, machine, clock, mount, isInvalid } = await shares();
  await mount('nas');
  const inside = `${shareRoot}/nas-files/inside`;
  machine.mountForeign('tmpfs', inside);
  machine.dead.add(`${shareRoot}/nas-files`);
  machine.servers.delete('nas');
  await pass(clock, 4000);
  assert.equal(await isInvalid('nas'), true);
  machine.servers.add('nas');
  await pass(clock, 120_000);
  assert.ok(machine.entries().some((entry) => entry.target === inside));
  assert.ok(machine.entries().some((entry) => entry.target === `${shareRoot}/nas-files`));
  await storage.close();
});

test('after a reboot shares whose folders cannot be touched at first come back all the same', async () => {
  const store = quickStore();
  const before = await shares({ store });
  await before.mount('nas');
  await before.mount('attic');
  await before.storage.close();
  before.machine.forgetWatchers();
  before.machine.reboot();
  let broken = true;
  const guard = (call: string) => {
    if (broken && call === 'look') throw new Error('EIO');
  };
  const { storage, clock, entryOf } = await shares({
    store,
    machine: before.machine,
    bootId: 'boot-2',
    guard,
  });
  broken = false;
  await pass(clock, 12_000);
  assert.ok(entryOf('nas'));
  assert.ok(entryOf('attic'));
  await storage.close();
});

test('a share that does not find back to a server that was away is made anew within seconds', async () => {
  const late = { file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  let hangs = false;
  const usage: typeof mounts.usage = (path, timeoutMs) =>
    hangs && path !== '/proc'
      ? Promise.reject(new ExecError({ ...late, lingering: undefined }))
      : mounts.usage(path, timeoutMs);
  const { clock, mount, entryOf, storage } = await shares({
    machine,
    real: { mounts: { ...mounts, usage } },
  });
  await mount('nas');
  const before = entryOf('nas')?.id;
  hangs = true;
  machine.servers.delete('nas');
  await pass(clock, 30_000);
  assert.equal(entryOf('nas')?.id, before);
  machine.servers.add('nas');
  await pass(clock, 12_000);
  assert.notEqual(entryOf('nas')?.id, before);
  await storage.close();
});

test('a share that was made anew and hangs again is given its minute again', async () => {
  const late = { file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  const usage: typeof mounts.usage = (path, timeoutMs) =>
    path === '/proc'
      ? mounts.usage(path, timeoutMs)
      : Promise.reject(new ExecError({ ...late, lingering: undefined }));
  const { clock, mount, isInvalid, entryOf, storage } = await shares({
    machine,
    real: { mounts: { ...mounts, usage } },
  });
  await mount('nas');
  const before = entryOf('nas')?.id;
  await isInvalid('nas');
  for (let waited = 0; waited < 90 && entryOf('nas')?.id === before; waited++) await pass(clock, 1000);
  const anew = entryOf('nas')?.id;
  assert.notEqual(anew, before);
  await pass(clock, 50_000);
  assert.equal(entryOf('nas')?.id, anew);
  await pass(clock, 20_000);
  assert.notEqual(entryOf('nas')?.id, anew);
  await storage.close();
});

test('a share that a person unmounts and mounts while it is asked keeps its new mount', async () => {
  const late = { file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  let answer: PromiseWithResolvers<never> | undefined;
  let holds = false;
  const hung = () => new ExecError({ ...late, lingering: undefined });
  const usage: typeof mounts.usage = (path, timeoutMs) => {
    if (path === '/proc') return mounts.usage(path, timeoutMs);
    if (!holds) return Promise.reject(hung());
    answer = Promise.withResolvers<never>();
    return answer.promise;
  };
  const { clock, mount, isInvalid, entryOf, row, storage } = await shares({
    machine,
    real: { mounts: { ...mounts, usage } },
  });
  await mount('nas');
  await isInvalid('nas');
  await pass(clock, 50_000);
  holds = true;
  await pass(clock, 20_000);
  const asked = answer;
  assert.ok(asked, 'it is being asked');
  await storage.shares.umount(row('nas'), true);
  await mount('nas');
  const fresh = entryOf('nas')?.id;
  asked.reject(hung());
  await pass(clock, 1000);
  assert.equal(entryOf('nas')?.id, fresh);
  asked.promise.catch(() => undefined);
  answer?.reject(hung());
  await storage.close();
});

test('a store that cannot be read for a moment ends neither the daemon nor the care for shares', async () => {
  let broken = false;
  const guard = (call: string) => {
    if (broken && call === 'read') throw new Error('SQLITE_IOERR');
  };
  const { storage, machine, clock, mount, isInvalid } = await shares({ guard });
  await mount('nas');
  machine.servers.delete('nas');
  broken = true;
  await pass(clock, 10_000);
  broken = false;
  await pass(clock, 4000);
  assert.equal(await isInvalid('nas'), true);
  await storage.close();
});

test('what a crash left of an umount is not promised to who mounts the share anew: it is made anew', async () => {
  const store = quickStore();
  const before = await shares({ store });
  await before.mount('nas');
  await before.storage.close();
  before.storage.registry.put({ ...before.row('nas'), wanted: false });
  before.machine.forgetWatchers();
  before.machine.busy.add(`${shareRoot}/nas-files`);
  const { storage, machine, clock, mount, row, entryOf } = await shares({ store, machine: before.machine });
  const left = entryOf('nas')?.id;
  assert.ok(left, 'it is in use, and still there');
  await assert.rejects(mount('nas'), (error) => isFault(error) && error.code === 'mount_busy');
  machine.busy.clear();
  await mount('nas');
  await pass(clock, 30_000);
  assert.notEqual(entryOf('nas')?.id, left);
  assert.ok(entryOf('nas'));
  assert.equal(row('nas').wanted, true);
  await storage.close();
});

test('a share whose server cannot be found by name for a while is not dead while its address answers', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  const list = () => mounts.list().map((entry) => ({ ...entry, superOptions: ['rw', 'addr=10.0.0.9'] }));
  const { storage, clock, mount, isInvalid, entryOf } = await shares({
    machine,
    real: { mounts: { ...mounts, list } },
  });
  machine.servers.add('10.0.0.9');
  await mount('nas');
  const before = entryOf('nas')?.id;
  machine.servers.delete('nas');
  await pass(clock, 70_000);
  assert.equal(await isInvalid('nas'), false);
  assert.equal(entryOf('nas')?.id, before);
  machine.servers.delete('10.0.0.9');
  await pass(clock, 4000);
  assert.equal(await isInvalid('nas'), true);
  await storage.close();
});

test('a share whose mount somebody else has taken away, or the kernel with its folder, comes back', async () => {
  const { storage, machine, clock, mount, isInvalid, row, entryOf } = await shares();
  await mount('nas');
  machine.umountForeign(entryOf('nas')?.id ?? Number.NaN);
  assert.equal(await isInvalid('nas'), true);
  await pass(clock, 12_000);
  assert.ok(entryOf('nas'));
  assert.equal(row('nas').mountId, entryOf('nas')?.id);
  assert.equal(await isInvalid('nas'), false);
  await storage.close();
});

test('a share that was dead when it was unmounted is not called dead when it is mounted anew', async () => {
  const { storage, machine, clock, mount, isInvalid, row } = await shares();
  await mount('nas');
  machine.servers.delete('nas');
  machine.dead.add(`${shareRoot}/nas-files`);
  await pass(clock, 10_000);
  assert.equal(await isInvalid('nas'), true);
  await storage.shares.umount(row('nas'), false);
  machine.servers.add('nas');
  machine.dead.clear();
  await mount('nas');
  assert.equal(await isInvalid('nas'), false);
  machine.busy.add(`${shareRoot}/nas-files`);
  await assert.rejects(
    storage.shares.umount(row('nas'), false),
    /busy/,
    'it is not detached from who uses it',
  );
  await storage.close();
});

test('a dead share is unmounted for good although the kernel is still busy with its server', async () => {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  const late = {
    file: 'umount',
    args: [],
    reason: 'timeout',
    exitCode: null,
    stdout: '',
    stderr: '',
  } as const;
  const umount: typeof mounts.umount = async (target, how) => {
    await mounts.umount(target, how);
    throw new ExecError({ ...late, lingering: new Promise(() => undefined) });
  };
  const { storage, clock, mount, row, entryOf } = await shares({
    machine,
    real: { mounts: { ...mounts, umount } },
  });
  await mount('nas');
  machine.servers.delete('nas');
  await pass(clock, 4000);
  await storage.shares.umount(row('nas'), false);
  assert.deepEqual([entryOf('nas'), storage.registry.all()], [undefined, []]);
  assert.equal(machine.hasFolder(`${shareRoot}/nas-files`), false);
  await storage.close();
});
