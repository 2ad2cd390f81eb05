import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExecError } from '#host/exec.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { noOtherNodes, storageHandlers } from '#storage/handlers.ts';
import { ShareLists } from '#storage/share-lists.ts';
import { shares, target } from '../../tests/support/fake-shares.ts';
import { shareRoot } from '../../tests/support/fake-storage.ts';

const path = `${shareRoot}/nas-files`;
const ann = { user: 'ann', password: 'pw' };

/** A file server that is silent until the test lets it speak, and how often it was tried. */
async function silent() {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  const { mounts } = machine.ports();
  let tries = 0;
  const { promise: spoken, resolve: speak, reject: fail } = Promise.withResolvers<void>();
  const began = Promise.withResolvers<void>();
  const mount: typeof mounts.mount = async (request) => {
    tries++;
    began.resolve();
    await spoken;
    await mounts.mount(request);
  };
  const { storage, ...parts } = await shares({ machine, real: { mounts: { ...mounts, mount } } });
  const ask = (password: string, signal?: AbortSignal) =>
    storage.shares.mountSmb(target('nas', 'nas-files'), { ...ann, password }, signal);
  /** One who asks, and has been given up on by the time that his turn comes. */
  const asking = (password: string) => {
    const gone = new AbortController();
    return { gone, answer: ask(password, gone.signal) };
  };
  return { ...parts, storage, ask, asking, began: began.promise, speak, fail, tries: () => tries };
}

const isConflict = (error: unknown) => isFault(error) && error.code === 'conflict';

test('those who ask for the same share with the same login wait for one try', async () => {
  const { storage, ask, speak, tries } = await silent();
  const all = [ask('pw'), ask('pw'), ask('pw'), ask('pw')];
  speak();
  assert.deepEqual(await Promise.all(all), [path, path, path, path]);
  assert.equal(tries(), 1);
  await storage.close();
});

test('a login that is refused is tried once for all who sent it at a time, and anew for who sends it then', async () => {
  const { storage, ask, asking, began, fail, tries } = await silent();
  const { gone, answer } = asking('wrong');
  await began;
  gone.abort();
  const all = [answer, ask('wrong'), ask('wrong')];
  const words = 'mount error(13): Permission denied';
  const how = { file: 'mount', args: [], reason: 'exit', exitCode: 32, stdout: '', stderr: words } as const;
  fail(new ExecError(how));
  for (const each of all)
    await assert.rejects(each, (error) => isFault(error) && error.code === 'mount_refused');
  assert.equal(tries(), 1);
  await assert.rejects(ask('wrong'));
  assert.equal(tries(), 2);
  assert.deepEqual(storage.registry.all(), []);
  await storage.close();
});

test('what all who asked for it have left before its turn is not begun', async () => {
  const { storage, machine, ask, asking, began, speak, tries } = await silent();
  const first = ask('pw');
  await began;
  const [one, two] = [asking('other'), asking('other')];
  one.gone.abort();
  two.gone.abort();
  for (const { answer } of [one, two]) await assert.rejects(answer, isConflict);
  const gone = AbortSignal.abort();
  await assert.rejects(ask('third', gone), isConflict, 'nor of one who has left before');
  speak();
  await first;
  assert.equal(tries(), 1);
  assert.equal(machine.entries().length, 2);
  await storage.close();
});

test('who leaves takes nothing from who asked for the same', async () => {
  const { storage, asking, ask, began, speak, row } = await silent();
  const first = ask('pw');
  await began;
  const [leaves, stays] = [asking('new'), asking('new')];
  leaves.gone.abort();
  speak();
  assert.equal(await first, path);
  const before = row('nas').sealed;
  assert.equal(await stays.answer, path);
  assert.notEqual(row('nas').sealed, before, 'its login has been taken');
  await storage.close();
});

test('who asks for what others have just left is not refused with them', async () => {
  const { storage, asking, ask, began, speak } = await silent();
  const first = ask('pw');
  await began;
  const left = asking('new');
  left.gone.abort();
  const anew = ask('new');
  await assert.rejects(left.answer, isConflict);
  speak();
  assert.deepEqual(await Promise.all([first, anew]), [path, path]);
  await storage.close();
});

test('a share that is being mounted when its client leaves is mounted and recorded', async () => {
  const { storage, asking, began, speak, row, entryOf } = await silent();
  const { gone, answer } = asking('pw');
  await began;
  gone.abort();
  speak();
  assert.equal(await answer, path);
  const { phase, wanted, mountId } = row('nas');
  assert.deepEqual([phase, wanted, mountId], ['mounted', true, entryOf('nas')?.id]);
  await storage.close();
});

test('an umount by force goes before those who wait to mount the share, and they do so no more', async () => {
  const { storage, machine, ask, began, speak, row, tries } = await silent();
  const first = ask('pw');
  await began;
  const waiting = Promise.allSettled([ask('one'), ask('two'), ask('two')]);
  const plain = storage.shares.umount(row('nas'), false);
  const forced = storage.shares.umount(row('nas'), true);
  speak();
  assert.equal(await first, path);
  await Promise.all([plain, forced]);
  for (const each of await waiting) assert.ok(each.status === 'rejected' && isConflict(each.reason));
  assert.deepEqual([machine.entries().length, storage.registry.all()], [1, []]);
  assert.equal(tries(), 1);
  assert.equal(await ask('pw'), path, 'who asks after it has it mounted');
  await storage.close();
});

/** The operations over two file servers, as a client with this signal calls them. */
async function edge(smbShares: () => Promise<string>) {
  const { machine, storage, ports } = await shares({ network: { smbShares } });
  machine.shares.set('nas:/export', { fstype: 'nfs', uuid: 'export', label: '', files: new Map() });
  const handlers = storageHandlers({
    ...{ storage, lists: new ShareLists(ports, storage.registry), nodeName: () => 'node-1' },
    others: noOtherNodes,
    jobs: { start: async () => 'job-1', plan: async () => ({ allowed: true, preconditions: [], steps: [] }) },
  });
  const sent = (signal: AbortSignal) => {
    const call = { caller: { class: 'workload', proof: 'address' }, requestId: '1', dryRun: false } as const;
    return { ...call, signal };
  };
  const samba = { params: {}, query: {}, body: { smbPath: '//nas/nas-files', ...ann } };
  const nfs = { params: {}, query: {}, body: { server: 'nas', sharedPath: '/export' } };
  const acts = {
    samba: async (signal: AbortSignal) => handlers['command.mountSamba'](samba, sent(signal)),
    sambaV2: async (signal: AbortSignal) => handlers['command.mountSambaV2'](samba, sent(signal)),
    nfs: async (signal: AbortSignal) => handlers['command.mountNfs'](nfs, sent(signal)),
  };
  return { machine, storage, acts };
}

test('a request to mount whose client has gone mounts nothing, by whatever operation it came', async () => {
  const { machine, storage, acts } = await edge(async () => 'Disk|nas-files|\n');
  for (const [name, act] of Object.entries(acts)) {
    await assert.rejects(act(AbortSignal.abort()), isConflict, name);
    assert.equal(machine.entries().length, 1, name);
  }
  for (const act of Object.values(acts)) await act(new AbortController().signal);
  assert.equal(machine.entries().length, 3);
  await storage.close();
});

test('the shares that a login may see are asked for once for all who ask at a time', async () => {
  let asked = 0;
  const listed = Promise.withResolvers<string>();
  const { storage, acts } = await edge(() => {
    asked++;
    return listed.promise;
  });
  const { signal } = new AbortController();
  const all = [acts.sambaV2(signal), acts.sambaV2(signal), acts.sambaV2(signal)];
  listed.resolve('Disk|other|\n');
  for (const answer of await Promise.all(all)) assert.equal('status' in answer && answer.status, 300);
  assert.equal(asked, 1);
  await storage.close();
});
