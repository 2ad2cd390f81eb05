import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import type { FakeClock } from '#host/fake/clock.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { parseNfs } from '#storage/nfs.ts';
import { shares } from '../../tests/support/fake-shares.ts';
import { shareRoot } from '../../tests/support/fake-storage.ts';

const late = { file: 'stat', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' } as const;

/** Time passes in small steps, so that what clients do meanwhile finds its place. */
async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    await clock.advance(100);
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
}

/** File servers whose dead mounts hang for as long as a child is given, and are well once they are made anew. */
async function hanging() {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  let clock: FakeClock | undefined;
  let made = 0;
  const gate = { promise: Promise.resolve() };
  const real: typeof mounts = {
    ...mounts,
    usage: async (path, timeoutMs) => {
      if (!machine.dead.has(path)) return await mounts.usage(path, timeoutMs);
      await clock?.sleep(timeoutMs);
      throw new ExecError(late);
    },
    mount: async (request) => {
      made++;
      await gate.promise;
      machine.dead.delete(request.target);
      await mounts.mount(request);
    },
  };
  const parts = await shares({ machine, real: { mounts: real } });
  clock = parts.clock;
  return { ...parts, clock: parts.clock, gate, made: () => made };
}

/** How long after its server's return a share is made anew for which clients ask again a second after each refusal. */
async function remadeAfter(clients: number, phase: number): Promise<number> {
  const { storage, machine, clock, mount, made } = await hanging();
  const path = await mount('nas', { user: 'ann', password: 'pw' });
  const before = made();
  machine.dead.add(path);
  machine.servers.delete('nas');
  await pass(clock, 20_000);
  const ended = new AbortController();
  const codes = new Set<string>();
  const ask = async (client: number) => {
    await clock.sleep(300 * client + 1);
    while (!ended.signal.aborted) {
      const login = { user: 'ann', password: `pw${client}` };
      await mount('nas', login).catch((error: unknown) => codes.add(isFault(error) ? error.code : 'unknown'));
      await clock.sleep(1000, ended.signal).catch(() => undefined);
    }
  };
  const asking = Array.from({ length: clients }, (_, client) => ask(client));
  await pass(clock, 10_000 + phase);
  machine.servers.add('nas');
  const returned = clock.monotonic();
  while (made() === before && clock.monotonic() - returned < 60_000) await pass(clock, 100);
  const took = clock.monotonic() - returned;
  ended.abort();
  await pass(clock, 10_000);
  await Promise.all(asking);
  assert.deepEqual([...codes], clients === 0 ? [] : ['server_unreachable']);
  await storage.close();
  return took;
}

test('a dead share is made anew in time however many clients ask for it again and again', async () => {
  for (const clients of [0, 1, 2, 3])
    for (const phase of [0, 700, 1500, 2200, 2900]) {
      const took = await remadeAfter(clients, phase);
      assert.ok(took <= 16_000, `${clients} clients, phase ${phase}: ${took} ms after the return`);
    }
});

test('who unmounts a dead share by force does not wait for whom it is being asked for, who has it mounted no more', async () => {
  const { storage, machine, clock, made } = await hanging();
  const names = Array.from({ length: 10 }, (_, n) => `s${n}`);
  const mount = (name: string) => storage.shares.mountNfs(parseNfs('nas', `/${name}`), undefined);
  for (const name of names) {
    machine.shares.set(`nas:/${name}`, { fstype: 'nfs', uuid: name, label: '', files: new Map() });
    machine.dead.add(await mount(name));
  }
  machine.servers.delete('nas');
  await pass(clock, 40_000);
  // All of them are asked in the background, one after the other.
  await storage.mounted(() => true);
  const before = made();
  const row = storage.registry.byName('s9');
  assert.ok(row);
  const asked = mount('s9').then(
    () => 'mounted',
    (error: unknown) => (isFault(error) ? error.code : String(error)),
  );
  await pass(clock, 500);
  await storage.shares.umount(row, true);
  assert.equal(await asked, 'conflict');
  await pass(clock, 10_000);
  assert.deepEqual([made(), storage.registry.byName('s9')], [before, undefined]);
  const began = clock.monotonic();
  let answeredAfter: number | undefined;
  const other = mount('s8').catch(() => {
    answeredAfter = clock.monotonic() - began;
  });
  await pass(clock, 10_000);
  await other;
  assert.ok((answeredAfter ?? Number.NaN) <= 8000, `refused after ${answeredAfter} ms`);
  await storage.close();
});

test('who asks for a dead share while it is made anew has it then', async () => {
  const { storage, machine, clock, mount } = await hanging();
  const path = await mount('nas', { user: 'ann', password: 'pw' });
  machine.dead.add(path);
  machine.servers.delete('nas');
  await pass(clock, 10_000);
  const asked = mount('nas');
  await pass(clock, 200);
  const entry = machine.entries().find(({ target }) => target === path);
  machine.umountForeign(entry?.id ?? Number.NaN);
  machine.servers.add('nas');
  await pass(clock, 10_000);
  assert.equal(await asked, path);
  await storage.close();
});

test('a login that is refused when a share is made anew is not tried by who waited for that meanwhile', async () => {
  const { storage, machine, clock, mount, made, gate } = await hanging();
  const path = await mount('nas', { user: 'ann', password: 'pw' });
  const before = made();
  machine.dead.add(path);
  machine.servers.delete('nas');
  await pass(clock, 10_000);
  const { promise, reject } = Promise.withResolvers<void>();
  gate.promise = promise;
  machine.servers.add('nas');
  await pass(clock, 20_000);
  assert.equal(made(), before + 1);
  reject(
    new ExecError({ ...late, reason: 'exit', exitCode: 32, stderr: 'mount error(13): Permission denied' }),
  );
  await pass(clock, 60_000);
  assert.equal(made(), before + 1);
  await storage.close();
});
