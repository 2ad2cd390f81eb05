/** Runs in a mount namespace of its own, as root: which mounts an unmount by path reaches on the real kernel. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Caller } from '#api/caller.ts';
import type { Call } from '#api/operation.ts';
import { SystemExec } from '#host/exec.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';
import { type MountRequest, parseMountInfo, SystemMounts } from '#host/mounts.ts';
import { isFault } from '#lib/fault.ts';
import { noOtherNodes, storageHandlers } from '#storage/handlers.ts';
import { ShareLists } from '#storage/share-lists.ts';
import { quickStore, rig } from './fake-storage.ts';
import { LoopDevices, LoopDisk } from './loop-disk.ts';

const scratch = mkdtempSync(join(tmpdir(), 'beosd-umount-'));
execFileSync('mount', ['-t', 'tmpfs', 'scratch', scratch]);
process.env['TMPDIR'] = scratch;
const stick = new LoopDisk(8).run('mkfs.ext4', '-q', '-F', '-L', 'STICK').attach();
after(() => stick.detach());

/** No file server is needed to see what is unmounted: the share is a tmpfs of the same source. */
class SharesInMemory extends SystemMounts {
  /** Acts right before the next mount. */
  first: (target: string) => void = () => undefined;

  override mount(request: MountRequest): Promise<void> {
    this.first(request.target);
    if (request.fstype !== 'cifs') return super.mount(request);
    return super.mount({ ...request, fstype: 'tmpfs', options: ['nosuid', 'nodev'] });
  }
}

const caller: Caller = { class: 'root', proof: 'socket' };
const call: Call = { caller, signal: new AbortController().signal, requestId: '1', dryRun: false };

/** A node with a stick and a share below the share root, and mounts of others within and without. */
async function node() {
  const base = mkdtempSync(join(scratch, 'node-'));
  const share = join(base, 'share');
  for (const name of ['share', 'share/theirs', 'outside']) mkdirSync(join(base, name));
  for (const place of [join(share, 'theirs'), join(base, 'outside')]) {
    execFileSync('mount', ['-t', 'tmpfs', 'theirs', place]);
    writeFileSync(join(place, 'canary'), 'theirs');
  }
  const files = new Files();
  const devices = new LoopDevices();
  devices.plug(stick, 'S1', base);
  const mounts = new SharesInMemory(new SystemExec(), files);
  const machine = new FakeMachine();
  machine.servers.add('nas');
  const real = { mounts, devices, folders: new SystemFolders() };
  const { storage, ports } = rig({ machine, store: quickStore(), shareRoot: share, real });
  const jobs = {
    start: async () => 'job-1',
    plan: async () => ({ allowed: true, preconditions: [], steps: [] }),
  };
  const lists = new ShareLists(ports, storage.registry);
  const handlers = storageHandlers({ storage, lists, nodeName: () => 'node-1', others: noOtherNodes, jobs });
  await storage.start();
  const empty = { params: {}, query: {} };
  await handlers['command.mountSamba']({ ...empty, body: { smbPath: '//nas/public' } }, call);
  const end = async () => {
    await storage.close();
    const inside = entries().filter((entry) => entry.target.startsWith(`${base}/`));
    for (const entry of inside.reverse()) execFileSync('umount', ['-c', entry.target]);
  };
  return {
    base,
    share,
    mounts,
    registry: storage.registry,
    mount: (smbPath: string) => handlers['command.mountSamba']({ ...empty, body: { smbPath } }, call),
    samba: (path: string) => handlers['command.umountSamba']({ ...empty, body: { path } }, call),
    usb: (path: string) => handlers['command.umountUsb']({ ...empty, body: { path } }, call),
    [Symbol.asyncDispose]: end,
  };
}

const entries = () => parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
const targets = () => entries().map((entry) => entry.target);

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return 'done';
  } catch (error) {
    if (isFault(error)) return error.code;
    throw error;
  }
}

test('the root, mounts of others, paths outside and ways around are refused, and nothing is unmounted', async () => {
  await using at = await node();
  const { share, base } = at;
  symlinkSync(join(share, 'public'), join(share, 'link-to-public'));
  symlinkSync('/', join(share, 'link-to-root'));
  symlinkSync(join(base, 'outside'), join(share, 'link-to-outside'));
  symlinkSync(share, join(base, 'link-to-share'));
  const before = entries();
  for (const name of ['public', 'STICK', 'theirs']) assert.ok(targets().includes(join(share, name)), name);
  const refused: Readonly<Record<string, string>> = {
    '/': 'invalid_input',
    '/proc': 'invalid_input',
    [share]: 'invalid_input',
    [join(base, 'outside')]: 'invalid_input',
    [`${share}/../outside`]: 'invalid_input',
    [`${share}/../share/public`]: 'invalid_input',
    [`${share}/public/../theirs`]: 'invalid_input',
    [`${share}/./public`]: 'invalid_input',
    '../outside': 'invalid_input',
    [`${base}/link-to-share/public`]: 'invalid_input',
    [`${share}/link-to-public`]: 'not_found',
    [`${share}/link-to-public/`]: 'not_found',
    [`${share}/link-to-root`]: 'not_found',
    [`${share}/link-to-root/proc`]: 'invalid_input',
    [`${share}/link-to-outside`]: 'not_found',
    [`${share}/theirs`]: 'not_found',
  };
  for (const [path, code] of Object.entries(refused)) {
    assert.equal(await codeOf(() => at.samba(path)), code, `samba ${path}`);
    const byUsb = await codeOf(() => at.usb(path));
    assert.ok(['invalid_input', 'not_found'].includes(byUsb), `usb ${path}: ${byUsb}`);
    assert.deepEqual(entries(), before, path);
  }
  assert.equal(await codeOf(() => at.samba(`${share}/STICK`)), 'not_our_mount');
  assert.equal(await codeOf(() => at.usb(`${share}/public`)), 'not_our_mount');
  assert.deepEqual(entries(), before);
  assert.equal(readlinkSync(join(share, 'link-to-public')), join(share, 'public'));
});

test('exactly the one mount that is ours goes, although its file system is mounted twice', async () => {
  await using at = await node();
  const { share, base } = at;
  for (const [name, umount] of [
    ['public', at.samba],
    ['STICK', at.usb],
  ] as const) {
    const twin = join(base, `twin-of-${name}`);
    mkdirSync(twin);
    execFileSync('mount', ['--bind', join(share, name), twin]);
    const before = entries();
    const [own] = before.filter((entry) => entry.target === join(share, name));
    assert.equal(await codeOf(() => umount(`${share}/${name}`)), 'done');
    assert.deepEqual(
      entries(),
      before.filter((entry) => entry !== own),
    );
  }
});

test('a path on which two mounts lie is refused while somebody else’s is on top, and then ours alone goes', async () => {
  await using at = await node();
  const { share } = at;
  for (const [name, umount] of [
    ['public', at.samba],
    ['STICK', at.usb],
  ] as const) {
    const path = join(share, name);
    const before = entries();
    execFileSync('mount', ['-t', 'tmpfs', 'over', path]);
    const both = entries();
    assert.equal(await codeOf(() => umount(path)), 'not_our_mount', name);
    assert.deepEqual(entries(), both);
    execFileSync('umount', [path]);
    // The same file system once more on the same path: which of the two is ours is known by its number alone.
    execFileSync('mount', ['--bind', path, path]);
    const twice = entries();
    assert.equal(await codeOf(() => umount(path)), 'not_our_mount', name);
    assert.deepEqual(entries(), twice);
    execFileSync('umount', [path]);
    assert.deepEqual(entries(), before);
    assert.equal(await codeOf(() => umount(path)), 'done', name);
    assert.deepEqual(
      entries(),
      before.filter((entry) => entry.target !== path),
    );
  }
});

test('a mount of others within ours keeps ours, by whatever path it is asked for', async () => {
  await using at = await node();
  const within = join(at.share, 'STICK', 'lost+found');
  execFileSync('mount', ['-t', 'tmpfs', 'theirs', within]);
  const before = entries();
  assert.equal(await codeOf(() => at.usb('STICK')), 'not_our_mount');
  assert.equal(await codeOf(() => at.usb(`${at.share}/STICK`)), 'not_our_mount');
  assert.deepEqual(entries(), before);
});

test('a mount that a link has sent elsewhere is taken back, and what was mounted there stays', async () => {
  await using at = await node();
  const { base, share, mounts } = at;
  const before = entries();
  for (const elsewhere of [join(base, 'outside'), join(share, 'public')]) {
    mounts.first = (target) => {
      rmdirSync(target);
      symlinkSync(elsewhere, target);
    };
    const name = elsewhere.endsWith('public') ? 'second' : 'first';
    assert.equal(await codeOf(() => at.mount(`//nas/${name}`)), 'mount_failed');
    assert.deepEqual(entries(), before, elsewhere);
    assert.equal(readlinkSync(join(share, name)), elsewhere);
    assert.ok(at.registry.all().every((row) => row.name !== name));
  }
});
