import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import type { Call } from '#api/operation.ts';
import { ExecError } from '#host/exec.ts';
import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import { isFault } from '#lib/fault.ts';
import { noOtherNodes, storageHandlers } from '#storage/handlers.ts';
import { ShareLists } from '#storage/share-lists.ts';
import { quickStore, type RigOptions, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const workload: Caller = { class: 'workload', proof: 'address' };
const call = (more: Partial<Call> = {}): Call => ({
  ...{ caller: workload, signal: new AbortController().signal, requestId: '1', dryRun: false },
  ...more,
});
const stick: FakeDisk = {
  ...{ serial: 'S1', model: 'Acme', transport: 'usb' },
  volumes: [{ fstype: 'vfat', uuid: 'u1', label: 'STICK', files: new Map() }],
};

async function edge(options: Partial<RigOptions> = {}) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  for (const share of ['public', 'Public', 'ai', 'a b', 'backup'])
    machine.shares.set(`//nas/${share}`, { fstype: 'cifs', uuid: share, label: '', files: new Map() });
  machine.servers.add('nas');
  const store = quickStore();
  const parts = rig({ machine, store, ...options });
  const lists = new ShareLists(parts.ports, parts.storage.registry);
  const handlers = storageHandlers({
    storage: parts.storage,
    lists,
    nodeName: () => 'node-1',
    others: noOtherNodes,
    jobs: { start: async () => 'job-1', plan: async () => ({ allowed: true, preconditions: [], steps: [] }) },
  });
  await parts.storage.start();
  return { ...parts, machine, fake: machine, store, handlers };
}

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return 'done';
  } catch (error) {
    if (isFault(error)) return error.code;
    throw error;
  }
}

test('umount touches nothing but a mount of ours of the right kind, whatever path is named', async () => {
  const { machine, storage, handlers } = await edge();
  machine.plug(stick);
  await storage.local.settled();
  await handlers['command.mountSamba']({ params: {}, query: {}, body: { smbPath: '//nas/public' } }, call());
  machine.makeForeign(`${shareRoot}/theirs`, 'folder');
  machine.mountForeign('tmpfs', `${shareRoot}/theirs`);
  const before = machine.entries();
  const refused: Record<string, string> = {
    '/': 'invalid_input',
    '/olares': 'invalid_input',
    [shareRoot]: 'invalid_input',
    [`${shareRoot}/`]: 'invalid_input',
    [`${shareRoot}d/public`]: 'invalid_input',
    '/var/lib/kubelet/pods': 'invalid_input',
    [`${shareRoot}/../share/public`]: 'invalid_input',
    [`${shareRoot}/public/../public`]: 'invalid_input',
    [`${shareRoot}/public/sub`]: 'invalid_input',
    public: 'invalid_input',
    '../public': 'invalid_input',
    [`${shareRoot}/theirs`]: 'not_found',
    [`${shareRoot}/a-link-to-public`]: 'not_found',
    [`${shareRoot}/STICK`]: 'not_our_mount',
  };
  for (const [path, code] of Object.entries(refused)) {
    const umount = handlers['command.umountSamba'];
    assert.equal(await codeOf(() => umount({ params: {}, query: {}, body: { path } }, call())), code, path);
  }
  for (const path of ['/', '..', '../STICK', 'STICK/..', 'public', 'theirs', `${shareRoot}/theirs`]) {
    const umount = handlers['command.umountUsb'];
    const code = await codeOf(() => umount({ params: {}, query: {}, body: { path } }, call()));
    assert.ok(['invalid_input', 'not_found', 'not_our_mount'].includes(code), `${path}: ${code}`);
  }
  assert.deepEqual(machine.entries(), before);
  await storage.close();
});

test('a share root that is reached by a link goes by either name', async () => {
  const { fake, storage, handlers } = await edge({ shareRootAs: '/beos/share' });
  const umount = (path: string) =>
    codeOf(() => handlers['command.umountSamba']({ params: {}, query: {}, body: { path } }, call()));
  for (const path of ['/beos/share/public', `${shareRoot}/public`]) {
    await handlers['command.mountSamba'](
      { params: {}, query: {}, body: { smbPath: '//nas/public' } },
      call(),
    );
    assert.ok(fake.entries().some((entry) => entry.target === `${shareRoot}/public`));
    for (const other of ['/beos/share', '/beos/share/', '/beos/share/../share/public', '/beos/public'])
      assert.equal(await umount(other), 'invalid_input', other);
    assert.equal(await umount(path), 'done');
  }
  await storage.close();
});

test('of two mounts on one path only ours goes: covered by another one it is refused', async () => {
  const { machine, storage, handlers } = await edge();
  await handlers['command.mountSamba']({ params: {}, query: {}, body: { smbPath: '//nas/public' } }, call());
  const path = `${shareRoot}/public`;
  const umount = () => handlers['command.umountSamba']({ params: {}, query: {}, body: { path } }, call());
  const over = machine.mountForeign('tmpfs', path);
  assert.equal(await codeOf(umount), 'not_our_mount');
  assert.equal(machine.entries().filter((entry) => entry.target === path).length, 2);
  machine.umountForeign(over);
  assert.equal(await codeOf(umount), 'done');
  assert.deepEqual(
    machine.entries().map((entry) => entry.target),
    ['/'],
  );
  assert.equal(machine.hasFolder(path), false);
  assert.deepEqual(storage.registry.all(), []);
  await storage.close();
});

test('names, users and passwords that could mean more are refused by field, and nothing is left', async () => {
  const { machine, storage, handlers } = await edge();
  const mount = handlers['command.mountSamba'];
  const bodies: [Record<string, string>, string][] = [
    [{ smbPath: '//nas/..' }, 'invalid_input'],
    [{ smbPath: '//nas/.' }, 'invalid_input'],
    [{ smbPath: '//nas/ai' }, 'invalid_input'],
    [{ smbPath: '//nas/a,uid=0' }, 'invalid_input'],
    [{ smbPath: '//nas/a"b' }, 'invalid_input'],
    [{ smbPath: '//nas/x/../../etc' }, 'invalid_input'],
    [{ smbPath: '//nas' }, 'invalid_input'],
    [{ smbPath: '//-oops/public' }, 'invalid_input'],
    [{ smbPath: '//nas:99999/public' }, 'invalid_input'],
    [{ smbPath: 'nas/public' }, 'invalid_input'],
    [{ smbPath: '//nas/public', user: 'ann', password: 'new\nline' }, 'invalid_input'],
    [{ smbPath: '//nas/public', user: 'ann,uid=0', password: 'x' }, 'invalid_input'],
    [{ smbPath: '//nas/public', user: 'a\nusername=root', password: 'x' }, 'invalid_input'],
    [{ smbPath: '//nas/public', password: 'x' }, 'invalid_input'],
    [{ smbPath: '//nas/public', user: '\\ann', password: 'x' }, 'invalid_input'],
    [{ smbPath: '//nas/public', user: 'HOME\\', password: 'x' }, 'invalid_input'],
    [{ smbPath: '//nas/public', user: 'HOME\\ann\\x', password: 'x' }, 'invalid_input'],
    [{ smbPath: '//gone/public' }, 'server_unreachable'],
    [{ smbPath: '//nas/unknown' }, 'server_unreachable'],
  ];
  for (const [body, code] of bodies) {
    const got = await codeOf(() =>
      mount({ params: {}, query: {}, body: body as { smbPath: string } }, call()),
    );
    assert.equal(got, code, JSON.stringify(body));
    if (code !== 'invalid_input') continue;
    const tried = { params: {}, query: {}, body: body as { smbPath: string } };
    assert.equal(
      await codeOf(() => mount(tried, call({ dryRun: true }))),
      code,
      `dry: ${JSON.stringify(body)}`,
    );
  }
  assert.deepEqual(
    machine.entries().map((entry) => entry.target),
    ['/'],
  );
  assert.deepEqual(machine.ports().folders.list(shareRoot), []);
  assert.deepEqual(storage.registry.all(), []);
  await storage.close();
});

test('a password with commas, quotes and blanks arrives as it is, and only in the credentials file', async () => {
  const canary = 'c4nary,"quote\' ü =x ';
  const { storage, handlers, secrets, store, events, problems, machine } = await edge();
  const body = { smbPath: '//nas/public', user: 'ann', password: canary };
  await handlers['command.mountSamba']({ params: {}, query: {}, body }, call());
  assert.deepEqual(secrets.written, [`username=ann\npassword=${canary}\n`]);
  const kept = JSON.stringify(store.read((db) => db.all('SELECT * FROM mounts')));
  const seen = JSON.stringify([kept, events, problems(), machine.entries(), storage.registry.all()]);
  assert.ok(!seen.includes('c4nary'));
  await storage.close();
});

test('what mount.cifs says goes to the client as it is, under the code that fits', async () => {
  const words: [string, string][] = [
    ['mount error(13): Permission denied\nRefer to the mount.cifs(8) manual page', 'mount_refused'],
    ['mount error(2): No such file or directory', 'mount_refused'],
    ['mount error(113): could not connect to 10.0.0.9', 'server_unreachable'],
    ['mount error(115): Operation now in progress', 'server_unreachable'],
    ['mount error(112): Host is down', 'server_unreachable'],
    ["mount: unknown filesystem type 'cifs'.", 'mount_failed'],
  ];
  for (const [said, code] of words) {
    const { machine, storage, handlers } = await edge();
    const broken = machine.shares.get('//nas/public');
    if (broken !== undefined) broken.broken = said;
    const mount = () =>
      handlers['command.mountSamba']({ params: {}, query: {}, body: { smbPath: '//nas/public' } }, call());
    await assert.rejects(
      async () => mount(),
      (error) => isFault(error) && error.code === code && error.message === said,
    );
    assert.deepEqual(storage.registry.all(), []);
    assert.deepEqual(machine.ports().folders.list(shareRoot), []);
    await storage.close();
  }
});

test('v2 offers the shares of a server when none or an unknown one is named', async () => {
  const output = 'Disk|public|all\nDisk|backup|\nDisk|IPC$|\nIPC|IPC$|ipc\nPrinter|laser|\n';
  const { storage, handlers } = await edge({ network: { smbShares: async () => output } });
  const mount = handlers['command.mountSambaV2'];
  const ask = async (smbPath: string) => mount({ params: {}, query: {}, body: { smbPath } }, call());
  const choice = await ask('//nas');
  assert.ok('data' in choice);
  assert.equal(choice.status, 300);
  assert.equal(choice.message, 'Choose a valid share path');
  assert.deepEqual(choice.data, [
    { path: '//nas/public', mounted: false },
    { path: '//nas/backup', mounted: false },
  ]);
  const mounted = await ask('//nas/Public');
  assert.ok('data' in mounted);
  assert.deepEqual(mounted.data, { path: `${shareRoot}/Public` });
  await storage.close();
});

test('what v2 offers can be sent back as it is, also for an IPv6 address and a port', async () => {
  const { fake, storage, handlers } = await edge({ network: { smbShares: async () => 'Disk|public|\n' } });
  fake.servers.add('fd77::1');
  fake.shares.set('//fd77::1/public', { fstype: 'cifs', uuid: 'v6', label: '', files: new Map() });
  const ask = async (smbPath: string) =>
    handlers['command.mountSambaV2']({ params: {}, query: {}, body: { smbPath } }, call());
  const choice = await ask('//[FD77::1]:4455');
  const offered = { path: '//[fd77::1]:4455/public', mounted: false };
  assert.deepEqual('data' in choice && choice.data, [offered]);
  const mounted = await ask(offered.path);
  assert.deepEqual('data' in mounted && mounted.data, { path: `${shareRoot}/public` });
  const again = await ask('//[fd77::1]:4455/');
  assert.deepEqual('data' in again && again.data, [{ ...offered, mounted: true }]);
  await storage.close();
});

test('force is for root and bound signatures; a busy stick names who holds it', async () => {
  const uid = '01234567-89ab-cdef-0123-456789abcdef';
  const holders = async () => [{ pid: 7, command: 'cp', path: '/data/x', podUid: uid }];
  const { machine, storage, handlers } = await edge({ processes: { holders } });
  machine.plug(stick);
  await storage.local.settled();
  const path = `${shareRoot}/STICK`;
  machine.busy.add(path);
  const umount = handlers['command.umountUsb'];
  await assert.rejects(
    async () => umount({ params: {}, query: {}, body: { path } }, call()),
    (error) =>
      isFault(error) &&
      error.code === 'mount_busy' &&
      JSON.stringify(error.details.data).includes(`pod of ${uid}`),
  );
  const query = { force: true };
  assert.equal(
    await codeOf(() => umount({ params: {}, query, body: { path } }, call())),
    'bound_form_required',
  );
  const dry = call({ dryRun: true });
  for (const umount of [handlers['command.umountUsb'], handlers['command.umountUsbIncluster']]) {
    const asked = { params: {}, query, body: { path: 'STICK' } };
    assert.equal(await codeOf(() => umount(asked, dry)), 'bound_form_required', 'the proof of the act');
  }
  const root: Caller = { class: 'root', proof: 'socket' };
  const forced = await umount({ params: {}, query, body: { path } }, call({ caller: root }));
  assert.ok('data' in forced);
  assert.equal(forced.data.safe, false);
  assert.equal(forced.data.poweredDown, false);
  assert.equal(forced.data.holders.length, 1);
  await storage.local.settled();
  assert.ok(!machine.entries().some((entry) => entry.target === path), 'it is not mounted again by itself');
  await storage.close();
});

test('a stick in no use is flushed, unmounted, powered down and called safe; plugged in anew it comes back', async () => {
  const { machine, storage, handlers } = await edge({ disks: { powerDown: async () => true } });
  machine.plug(stick);
  await storage.local.settled();
  const done = await handlers['command.umountUsb'](
    { params: {}, query: {}, body: { path: 'STICK' } },
    call(),
  );
  assert.ok('data' in done);
  assert.deepEqual(done.data, { path: `${shareRoot}/STICK`, safe: true, poweredDown: true, holders: [] });
  await storage.local.settled();
  assert.equal(machine.hasFolder(`${shareRoot}/STICK`), false);
  machine.unplug(stick);
  await storage.local.settled();
  machine.plug(stick);
  await storage.local.settled();
  assert.ok(machine.entries().some((entry) => entry.target === `${shareRoot}/STICK`));
  await storage.close();
});

test('a stick that a pod still has in a mount namespace of its own is not called safe and not stopped', async () => {
  const namespacesWith = async () => [{ pid: 9, command: 'app', path: '/data', podUid: undefined }];
  let stopped = false;
  const powerDown = async () => {
    stopped = true;
    return true;
  };
  const { machine, storage, handlers } = await edge({ processes: { namespacesWith }, disks: { powerDown } });
  machine.plug(stick);
  await storage.local.settled();
  const done = await handlers['command.umountUsb'](
    { params: {}, query: {}, body: { path: 'STICK' } },
    call(),
  );
  assert.ok('data' in done);
  assert.equal(done.data.safe, false);
  assert.equal(stopped, false);
  machine.unplug(stick);
  await storage.local.settled();
  machine.plug(stick);
  await storage.local.settled();
  const asked = { params: {}, query: {}, body: { path: 'STICK' } };
  const perNode = await handlers['command.umountUsbIncluster'](asked, call());
  assert.ok('data' in perNode);
  assert.deepEqual(
    perNode.data.map(({ ok, message }) => ({ ok, message })),
    [{ ok: true, message: 'unmounted, but not safe to pull yet, still used by app at /data' }],
  );
  await storage.close();
});

test('a server that dies makes its shares invalid at once, and they come back with it', async () => {
  const { fake, storage, handlers, problems } = await edge();
  await handlers['command.mountSamba']({ params: {}, query: {}, body: { smbPath: '//nas/public' } }, call());
  const list = async () =>
    (await storage.mounted(() => true)).map(({ invalid, device }) => ({ invalid, device }));
  assert.deepEqual(await list(), [{ invalid: false, device: '//nas/public' }]);
  fake.servers.delete('nas');
  fake.dead.add(`${shareRoot}/public`);
  await storage.shares.tend();
  assert.deepEqual(await list(), [{ invalid: true, device: '//nas/public' }]);
  assert.ok(problems().some((each) => each.code === 'mount_dead'));
  fake.servers.add('nas');
  fake.dead.clear();
  await storage.shares.tend();
  assert.deepEqual(await list(), [{ invalid: false, device: '//nas/public' }]);
  assert.ok(!problems().some((each) => each.code === 'mount_dead'));
  await storage.close();
});

test('after a reboot a share is mounted again with the credentials that were sealed', async () => {
  const { fake, store, storage, handlers } = await edge();
  const body = { smbPath: '//nas/public', user: 'ann', password: 'pw' };
  await handlers['command.mountSamba']({ params: {}, query: {}, body }, call());
  await storage.close();
  fake.forgetWatchers();
  fake.reboot();
  const again = rig({ machine: fake, store, bootId: 'boot-2' });
  await again.storage.start();
  await again.storage.shares.tend();
  assert.ok(fake.entries().some((entry) => entry.target === `${shareRoot}/public`));
  assert.deepEqual(again.secrets.written, ['username=ann\npassword=pw\n']);
  await again.storage.close();
});

test('in a sandbox nothing is mounted, whichever way it is asked for', async () => {
  const network = { smbShares: async () => 'Disk|public|\nIPC|IPC$|\n' };
  const { fake, storage, handlers } = await edge({ mayAct: false, network });
  const before = fake.entries();
  const asked = { params: {}, query: {}, body: { smbPath: '//nas/public' } };
  assert.equal(await codeOf(() => handlers['command.mountSamba'](asked, call())), 'sandbox');
  assert.equal(await codeOf(() => handlers['command.mountSambaV2'](asked, call())), 'sandbox');
  const tried = await handlers['command.mountSamba'](asked, call({ dryRun: true }));
  assert.equal('plan' in tried && tried.plan.allowed, false);
  assert.deepEqual(fake.entries(), before);
  assert.deepEqual(storage.registry.all(), []);
  await storage.close();
});

test('a share list that cannot be had says why', async () => {
  const refused = new ExecError({
    ...{ file: 'smbclient', args: [], reason: 'exit', exitCode: 1, stdout: '' },
    stderr: 'session setup failed: NT_STATUS_LOGON_FAILURE',
  });
  const down = new ExecError({
    ...{ file: 'smbclient', args: [], reason: 'exit', exitCode: 1, stdout: '' },
    stderr: 'do_connect: Connection to nas failed (Error NT_STATUS_CONNECTION_REFUSED)',
  });
  for (const [error, code] of [
    [refused, 'mount_refused'],
    [down, 'server_unreachable'],
  ] as const) {
    const { storage, handlers } = await edge({ network: { smbShares: () => Promise.reject(error) } });
    const ask = () =>
      handlers['command.mountSambaV2']({ params: {}, query: {}, body: { smbPath: '//nas' } }, call());
    assert.equal(await codeOf(ask), code);
    await storage.close();
  }
});
