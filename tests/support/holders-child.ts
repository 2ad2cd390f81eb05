/** Runs in a mount namespace of its own, as root: who holds a file system, asked of real processes. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { SystemProcesses } from '#host/processes.ts';
import { hasProgram, LoopDisk } from './loop-disk.ts';

const scratch = mkdtempSync(join(tmpdir(), 'beosd-holders-'));
execFileSync('mount', ['-t', 'tmpfs', 'scratch', scratch]);
process.env['TMPDIR'] = scratch;
const at = join(scratch, 'stick');
mkdirSync(at);
const disk = new LoopDisk(32).run('mkfs.ext4', '-q', '-F').attach();
execFileSync('mount', [disk.node, at]);
mkdirSync(join(at, 'folder'));
const letter = join(at, 'folder', 'letter');
writeFileSync(letter, 'dear');
const dev = readFileSync(`/sys/class/block/${disk.name}/dev`, 'utf8').trim();
const processes = new SystemProcesses(new SystemExec(), new Files());
after(() => disk.detach());

const soon = () => AbortSignal.timeout(20_000);
const holders = () => processes.holders(dev, soon());

/** A process that lives until the test is over; with `says`, once it has written a line. */
async function running(file: string, args: readonly string[], options: SpawnOptions = {}, says = false) {
  const stdio = options.stdio ?? ['ignore', says ? 'pipe' : 'ignore', 'inherit'];
  const child: ChildProcess = spawn(file, args, { cwd: '/', ...options, stdio });
  await once(child, 'spawn');
  if (says && child.stdout !== null) await once(child.stdout, 'data');
  const { pid } = child;
  assert.ok(pid !== undefined);
  const end = async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  };
  return { pid, [Symbol.asyncDispose]: end };
}

/** spawn resolves when fork has; the program, its folder and its mappings are there when exec has. */
async function became(pid: number, command: string): Promise<void> {
  for (let look = 0; readFileSync(`/proc/${pid}/comm`, 'utf8').trim() !== command; look++) {
    assert.ok(look < 2000, `${pid} never became ${command}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test('nobody holds a stick that nobody uses, and who looks is no holder', async () => {
  assert.deepEqual(await holders(), []);
  assert.deepEqual(await processes.namespacesWith(dev, soon()), []);
});

test('an open file is a hold, with the program and the file', async () => {
  const fd = openSync(letter, 'r');
  await using child = await running('sleep', ['600'], { stdio: [fd, 'ignore', 'ignore'] });
  closeSync(fd);
  await became(child.pid, 'sleep');
  assert.deepEqual(await holders(), [{ pid: child.pid, command: 'sleep', path: letter, podUid: undefined }]);
});

test('a working folder is a hold', async () => {
  await using child = await running('sleep', ['600'], { cwd: join(at, 'folder') });
  await became(child.pid, 'sleep');
  const path = join(at, 'folder');
  assert.deepEqual(await holders(), [{ pid: child.pid, command: 'sleep', path, podUid: undefined }]);
});

test('a program that runs from the stick holds it', async () => {
  copyFileSync('/usr/bin/sleep', join(at, 'snooze'));
  await using child = await running(join(at, 'snooze'), ['600']);
  await became(child.pid, 'snooze');
  const path = join(at, 'snooze');
  assert.deepEqual(await holders(), [{ pid: child.pid, command: 'snooze', path, podUid: undefined }]);
});

test('a file that is only mapped any more is a hold', async () => {
  const library = libraryOf('/usr/bin/sleep');
  const copy = join(at, `mapped-${basename(library)}`);
  copyFileSync(library, copy);
  await using child = await running('/usr/bin/sleep', ['600'], { env: { LD_PRELOAD: copy } });
  await became(child.pid, 'sleep');
  await mapped(child.pid, copy);
  const [holder, ...more] = await holders();
  assert.deepEqual([holder?.pid, holder?.command, more], [child.pid, 'sleep', []]);
});

/** The C library that a program is linked with. */
function libraryOf(program: string): string {
  const path = /=> (\/\S*libc\.so\S*)/.exec(execFileSync('ldd', [program], { encoding: 'utf8' }))?.[1];
  assert.ok(path !== undefined);
  return path;
}

async function mapped(pid: number, file: string): Promise<void> {
  for (let look = 0; !readFileSync(`/proc/${pid}/maps`, 'utf8').includes(file); look++) {
    assert.ok(look < 2000, `${pid} never mapped ${file}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test('a root is a hold', async () => {
  const inside = join(at, 'root');
  for (const file of [...librariesOf('/usr/bin/sleep'), '/usr/bin/sleep']) {
    mkdirSync(dirname(join(inside, file)), { recursive: true });
    copyFileSync(file, join(inside, file));
  }
  await using child = await running('chroot', [inside, '/usr/bin/sleep', '600']);
  await became(child.pid, 'sleep');
  const [holder, ...more] = await holders();
  assert.deepEqual([holder?.pid, holder?.path, more], [child.pid, inside, []]);
});

/** All that a program needs to be started where there is nothing else. */
function librariesOf(program: string): string[] {
  const text = execFileSync('ldd', [program], { encoding: 'utf8' });
  return [...text.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? '');
}

test('a process in a mount namespace of its own holds what is unmounted here, and is told as such', async () => {
  const script = 'cd "$1" && echo there && exec sleep 600';
  const argv = ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', at];
  await using child = await running('unshare', argv, {}, true);
  await became(child.pid, 'sleep');
  execFileSync('umount', [at]);
  try {
    assert.deepEqual(await holders(), [{ pid: child.pid, command: 'sleep', path: at, podUid: undefined }]);
    const [elsewhere, ...more] = await processes.namespacesWith(dev, soon());
    assert.deepEqual([elsewhere?.pid, elsewhere?.path, more], [child.pid, at, []]);
  } finally {
    execFileSync('mount', [disk.node, at]);
  }
});

test('a mount namespace in which nobody uses the stick is told too: it is mounted there', async () => {
  await using child = await running('unshare', ['--mount', '--propagation', 'private', 'sleep', '600']);
  await became(child.pid, 'sleep');
  assert.deepEqual(await holders(), []);
  assert.deepEqual(
    (await processes.namespacesWith(dev, soon())).map(({ pid }) => pid),
    [child.pid],
  );
});

/** A thread with a folder and files of its own: what the first thread of its process has says nothing of it. */
const threadScript = `
import ctypes, os, signal, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
how, path = sys.argv[1:]
def hold():
    if how in ('folder', 'file'): assert libc.unshare(0x200 | 0x400) == 0
    if how == 'folder': os.chdir(path)
    else: held = os.open(path, os.O_RDONLY)
    if how == 'mapped':
        assert libc.mmap(None, 1, 1, 2, held, 0) != ctypes.c_void_p(-1).value
        os.close(held)
    print('there', flush=True)
    threading.Event().wait()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
thread = threading.Thread(target=hold)
thread.start()
if how in ('mapped', 'open'): signal.sigwait([signal.SIGUSR1])
if how in ('mapped', 'open', 'alone'): libc.pthread_exit(None)
thread.join()
`;
const noPython = hasProgram('python3') ? false : 'python3 is not installed';
for (const [what, how, path] of [
  ['a thread with a working folder of its own', 'folder', join(at, 'folder')],
  ['a thread with files of its own', 'file', letter],
  ['a thread whose process has lost its first thread', 'alone', letter],
] as const) {
  test(`${what} is found`, { skip: noPython }, async () => {
    await using child = await running('python3', ['-c', threadScript, how, path], {}, true);
    const [holder, ...more] = await holders();
    assert.deepEqual([holder?.pid, holder?.path, more], [child.pid, path, []]);
  });
}

/** Its first thread ends, the others go on; returns when that is so. */
function loseFirstThread(pid: number): void {
  process.kill(pid, 'SIGUSR1');
  const state = () => /^State:\s*(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  const end = performance.now() + 10_000;
  while (state() !== 'Z') assert.ok(performance.now() < end, `the first thread of ${pid} goes on`);
}

test('a mapping is found although the first thread ends just before it is read', {
  skip: noPython,
}, async () => {
  await using child = await running('python3', ['-c', threadScript, 'mapped', letter], {}, true);
  const exec = new SystemExec();
  const run = exec.run.bind(exec);
  let asked = 0;
  exec.run = (file, args, options) => {
    if (asked++ === 0) loseFirstThread(child.pid);
    return run(file, args, options);
  };
  const [holder, ...more] = await new SystemProcesses(exec, new Files()).holders(dev, soon());
  assert.deepEqual([holder?.pid, more, asked], [child.pid, [], 2]);
});

test('a namespace is known although the first thread ends just before it is read', {
  skip: noPython,
}, async () => {
  const argv = ['--mount', '--propagation', 'private', 'python3', '-c', threadScript, 'open', letter];
  await using child = await running('unshare', argv, {}, true);
  const files = new Files();
  const readText = files.readText.bind(files);
  let asked = 0;
  files.readText = (path, maxBytes) => {
    if (path === `/proc/${child.pid}/mountinfo` && asked++ === 0) loseFirstThread(child.pid);
    return readText(path, maxBytes);
  };
  const [holder, ...more] = await new SystemProcesses(new SystemExec(), files).holders(dev, soon());
  assert.deepEqual([holder?.pid, holder?.path, more, asked], [child.pid, letter, [], 1]);
});

/** A name of our own: groups know no namespace, and our pid is the same in each. */
const group = `beosd-test-${randomUUID()}`;

/** Where groups of cgroup v2 can be made; undefined: nowhere. */
function unifiedGroups(): string | undefined {
  const places = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'];
  return places.find((place) => existsSync(join(place, 'cgroup.procs')) && canMake(place));
}

function canMake(place: string): boolean {
  const path = join(place, group);
  if (spawnSync('mkdir', [path], { stdio: 'ignore' }).status !== 0) return false;
  rmdirSync(path);
  return true;
}

const groups = unifiedGroups();
const uid = '01234567-89ab-cdef-0123-456789abcdef';
for (const [driver, folders] of [
  ['systemd', ['kubepods.slice', `kubepods-besteffort-pod${uid.replaceAll('-', '_')}.slice`, 'cri-1.scope']],
  ['cgroupfs', ['kubepods', `pod${uid}`, 'c0ffee']],
] as const) {
  test(`a process of a pod is told with the pod's uid, as the ${driver} driver groups it`, {
    skip: groups === undefined ? 'no cgroup can be made here' : false,
  }, async () => {
    const top = join(groups ?? '', group);
    const made = [top, ...folders.map((_, n) => join(top, ...folders.slice(0, n + 1)))];
    for (const path of made) mkdirSync(path);
    try {
      await using child = await running('sleep', ['600'], { cwd: at });
      await became(child.pid, 'sleep');
      writeFileSync(join(made.at(-1) ?? '', 'cgroup.procs'), String(child.pid));
      assert.deepEqual(await holders(), [{ pid: child.pid, command: 'sleep', path: at, podUid: uid }]);
    } finally {
      for (const path of made.reverse()) await removed(path);
    }
  });
}

/** A group is empty a moment after its last process has ended. */
async function removed(path: string): Promise<void> {
  for (let look = 0; spawnSync('rmdir', [path], { stdio: 'ignore' }).status !== 0; look++) {
    assert.ok(look < 200, `${path} stays`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
