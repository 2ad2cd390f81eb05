import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { bootIdentity } from '#host/boot.ts';
import { parseMountInfo, topmostAt } from '#host/mounts.ts';
import { errnoOf } from '#lib/fault.ts';
import { Registry } from '#storage/registry.ts';
import { Store } from '#store/store.ts';
import { askAsRoot, startDaemonProcess } from '../support/daemon-process.ts';

const count = 20;

/** Why FUSE cannot be had; undefined: it can. */
function noFuse(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  return existsSync('/dev/fuse') ? undefined : 'this kernel has no /dev/fuse';
}

/**
 * A file system whose server never answers, not even the kernel's greeting: whoever asks it waits. It ends when the
 * returned function is called.
 */
function mountHung(path: string): () => void {
  mkdirSync(path, { recursive: true });
  const fd = openSync('/dev/fuse', 'r+');
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other';
  execFileSync('mount', ['-i', '-t', 'fuse', '-o', options, 'hung', path], {
    stdio: ['ignore', 'pipe', 'pipe', fd],
  });
  return () => {
    closeSync(fd); // the kernel gives the connection up, and everybody who waits gets an error
    spawnSync('umount', ['-l', path]);
  };
}

/** Empty when the thread has ended meanwhile. */
function statOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(errnoOf(error) ?? '')) return '';
    throw error;
  }
}

/** Threads in uninterruptible sleep, by id. */
function sleepers(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).filter((task) => {
    const stat = statOf(`/proc/${pid}/task/${task}/stat`);
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('D');
  });
}

/**
 * Threads that sleep and do not wake. A write to the disk is such a sleep too, for milliseconds; who waits for a server
 * that never answers sleeps for ever, and so is seen every time.
 */
async function stuckThreads(pid: number): Promise<string[]> {
  let same = sleepers(pid);
  for (let look = 0; look < 20 && same.length > 0; look++) {
    await pause(100);
    const now = sleepers(pid);
    same = same.filter((task) => now.includes(task));
  }
  return same;
}

function percentile(times: readonly number[], share: number): number {
  return times.toSorted((a, b) => a - b)[Math.floor((times.length - 1) * share)] ?? 0;
}

test(`with ${count} hung mounts the API answers as ever, and each of them is shown as invalid`, {
  skip: noFuse() ?? false,
}, async (t) => {
  const dataDir = realpathSync(mkdtempSync(join(tmpdir(), 'beosd-hung-')));
  const names = Array.from({ length: count }, (_, n) => `share-${n}`);
  const ends: (() => void)[] = [];
  try {
    for (const name of names) ends.push(mountHung(join(dataDir, 'share', name)));
    register(dataDir, names);
    await using daemon = await startDaemonProcess({ dataDir });
    const times = { quiet: [] as number[], hung: [] as number[] };
    const stuck = new Set<string>();
    const ask = async (path: string, into: number[]) => {
      const began = performance.now();
      const answer = await askAsRoot(daemon, 'GET', path);
      into.push(performance.now() - began);
      for (const task of await stuckThreads(daemon.pid)) stuck.add(task);
      return answer;
    };
    for (let n = 0; n < 200; n++) await ask('/system/status', times.quiet);
    const first = await askAsRoot(daemon, 'GET', '/system/mounted-path');
    assert.equal(first.status, 200);
    for (let n = 0; n < 200; n++) {
      const rows = (await ask('/system/mounted-path', times.hung)).json.data as readonly Row[];
      assert.deepEqual(new Set(rows.map((row) => row.invalid)), new Set([true]));
      assert.equal(rows.length, count);
      await ask('/system/status', times.hung);
    }
    const p99 = { quiet: percentile(times.quiet, 0.99), hung: percentile(times.hung, 0.99) };
    t.diagnostic(
      `p99 ${p99.hung.toFixed(1)} ms, median ${percentile(times.hung, 0.5).toFixed(1)} ms; status before: p99 ${p99.quiet.toFixed(1)} ms`,
    );
    assert.ok(p99.hung < 50, `p99 is ${p99.hung} ms`);
    assert.deepEqual([...stuck], [], 'no thread of the daemon waits for a file system');
  } finally {
    for (const end of ends) end();
  }
});

interface Row {
  readonly path: string;
  readonly invalid: boolean;
}

/** The mounts as the daemon would have recorded them when it mounted them. */
function register(dataDir: string, names: readonly string[]): void {
  const store = new Store(dataDir, Date.now);
  const registry = new Registry(store, Date.now);
  const entries = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  for (const name of names) {
    const entry = topmostAt(entries, join(dataDir, 'share', name));
    assert.ok(entry);
    registry.put({
      ...{
        identity: `smb://nas:445/${name}`,
        kind: 'smb',
        name,
        disk: '',
        source: `//nas/${name}`,
        fstype: 'cifs',
      },
      ...{ wanted: true, phase: 'mounted', dev: entry.dev, mountId: entry.id, bootId: bootIdentity() },
      ...{
        folder: undefined,
        folderToken: undefined,
        heldOff: undefined,
        sealed: undefined,
        extra: { server: 'nas' },
      },
    });
  }
  store.close();
}
