import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { type Exec, ExecError, type RunResult } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { parseMountInfo } from '#host/mounts.ts';
import { SystemProcesses } from '#host/processes.ts';
import { became } from '../../tests/support/became.ts';

/** A process that has nothing of /proc open, nor its folder there. */
async function idleChild(): Promise<ChildProcess> {
  const child = spawn('sleep', ['60'], { cwd: '/', stdio: 'ignore' });
  after(() => child.kill('SIGKILL'));
  await became(child);
  return child;
}

class WatchedFiles extends Files {
  readonly read: string[] = [];

  override readText(path: string, maxBytes?: number): string | undefined {
    this.read.push(path);
    return super.readText(path, maxBytes);
  }
}

function execThat(answer: (args: readonly string[]) => Promise<RunResult>): Exec {
  const run: Exec['run'] = (file, args) => {
    assert.equal(file, 'grep');
    return answer(args);
  };
  return { run, lines: () => assert.fail('no listener is needed'), started: 0 };
}

const proc = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')).find(
  (entry) => entry.target === '/proc',
);

test('who has only mapped a file is found by a child, for reading the maps of a hung process hangs', async () => {
  const { pid } = await idleChild();
  assert.ok(pid !== undefined && proc !== undefined);
  const files = new WatchedFiles();
  let asked: readonly string[] = [];
  const exec = execThat(async (args) => {
    asked = args;
    return { exitCode: 2, stdout: `/proc/${pid}/maps\n`, stderr: '' };
  });
  const holders = await new SystemProcesses(exec, files).holders(proc.dev, AbortSignal.timeout(20_000));
  const held = holders.find((holder) => holder.pid === pid);
  assert.deepEqual([held?.command, held?.path], ['sleep', '/proc']);
  assert.ok(asked.includes(`/proc/${pid}/maps`));
  const [major, minor] = proc.dev.split(':').map((part) => Number(part).toString(16).padStart(2, '0'));
  assert.ok(asked.includes(` ${major}:${minor} `), asked.slice(0, 4).join('|'));
  assert.deepEqual(
    files.read.filter((path) => path.endsWith('/maps')),
    [],
  );
});

test('maps that cannot be read in time hide no other holder', async () => {
  const { pid } = await idleChild();
  assert.ok(pid !== undefined && proc !== undefined);
  const hung = new ExecError({
    ...{ file: 'grep', args: [], reason: 'timeout', exitCode: null, stdout: '', stderr: '' },
  });
  const processes = new SystemProcesses(
    execThat(() => Promise.reject(hung)),
    new Files(),
  );
  const root = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')).find(
    (entry) => entry.target === '/',
  );
  const holders = await processes.holders(root?.dev ?? '', AbortSignal.timeout(20_000));
  assert.ok(holders.some((holder) => holder.pid === pid));
});

test('on a machine that is too slow to look at all processes in time, those that were found are told', async () => {
  await idleChild();
  const root = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')).find(
    ({ target }) => target === '/',
  );
  const late = new AbortController();
  class SlowFiles extends Files {
    override readText(path: string, maxBytes?: number): string | undefined {
      if (path.endsWith('/comm')) late.abort(new Error('five seconds are over'));
      return super.readText(path, maxBytes);
    }
  }
  const processes = new SystemProcesses(
    execThat(() => assert.fail('it is too late')),
    new SlowFiles(),
  );
  const holders = await processes.holders(root?.dev ?? '', late.signal);
  assert.equal(holders.length, 1);
  await assert.rejects(processes.holders(root?.dev ?? '', late.signal), /five seconds are over/);
});

test('a thread that ends while it is looked at hides nothing of those that go on', async () => {
  const fd = openSync('/proc/version', 'r');
  const child = spawn('sleep', ['60'], { cwd: '/', stdio: [fd, 'ignore', 'ignore'] });
  after(() => child.kill('SIGKILL'));
  closeSync(fd);
  await became(child);
  assert.ok(child.pid !== undefined && proc !== undefined);
  const task = `/proc/${child.pid}/task`;
  let looks = 0;
  class EndingThread extends Files {
    override list(path: string): string[] {
      if (path === task) return ['ended', String(child.pid)];
      // Its descriptors are those of all, and it is gone before they can be read.
      if (path === `${task}/ended/fd`) return looks++ === 0 ? super.list(`${task}/${child.pid}/fd`) : [];
      return super.list(path);
    }
  }
  const exec = execThat(async () => ({ exitCode: 1, stdout: '', stderr: '' }));
  const processes = new SystemProcesses(exec, new EndingThread());
  const holders = await processes.holders(proc.dev, AbortSignal.timeout(20_000));
  assert.equal(holders.find(({ pid }) => pid === child.pid)?.path, '/proc/version');
  assert.ok(looks > 0);
});
