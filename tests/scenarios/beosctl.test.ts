import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { InstallNode } from '../support/install-node.ts';

const program = join(import.meta.dirname, '../../dist/beosctl.cjs');

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The tool as a person runs it, its standard input given. */
function beosctl(args: readonly string[], stdin = ''): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    const said = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream].setEncoding('utf8').on('data', (text: string) => {
        said[stream] += text;
      });
    }
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, ...said }));
    child.stdin.end(stdin);
  });
}

test('key new, then a signed install: followed to 100 %, and status, jobs and audit tell of it', async () => {
  const node = new InstallNode();
  node.play('success', 0.1);
  await using daemon = await node.start();
  const key = join(node.dir, 'key.json');
  const made = await beosctl(['key', 'new', '--key', key]);
  assert.equal(made.code, 0, made.stderr);
  assert.equal(statSync(key).mode & 0o777, 0o600);
  const at = ['--node', `http://127.0.0.1:${daemon.port}`, '--key', key];
  const plan = await beosctl([...at, 'install', '--username', 'alice', '--dry-run']);
  assert.equal(plan.code, 0, plan.stderr);
  assert.match(plan.stdout, /prepare[\s\S]*install[\s\S]*verify/);
  const install = await beosctl(
    [...at, 'install', '--username', 'alice', '--password-file', '-'],
    'canary-99-secret',
  );
  assert.equal(install.code, 0, install.stdout + install.stderr);
  const percents = [...install.stderr.matchAll(/(\d+(?:\.\d+)?) ?%/g)].map((match) => Number(match[1]));
  assert.ok(percents.length >= 2, install.stderr);
  assert.deepEqual(
    percents,
    percents.toSorted((a, b) => a - b),
    install.stderr,
  );
  assert.equal(percents.at(-1), 100);
  assert.doesNotMatch(install.stdout + install.stderr, /canary/);
  const socket = ['--socket', join(daemon.dataDir, 'beosd.sock')];
  const status = await beosctl([...socket, 'status']);
  assert.equal(status.code, 0, status.stderr);
  assert.match(status.stdout, /@key\.local/);
  const jobs = await beosctl([...socket, 'jobs', '--json']);
  assert.equal((JSON.parse(jobs.stdout) as { operation: string }[])[0]?.operation, 'command.install');
  const audit = await beosctl([...socket, 'audit', '--json']);
  assert.match(audit.stdout, /signature-bound/);
});

test('a refusal is printed with its remedy and exit code 1, an unreachable node with 3, a slip with 2', async () => {
  const node = new InstallNode();
  await using daemon = await node.start();
  const socket = ['--socket', join(daemon.dataDir, 'beosd.sock')];
  const refused = await beosctl([...socket, 'reboot']);
  assert.equal(refused.code, 1, refused.stdout);
  assert.match(refused.stderr, /--system/);
  const nobody = await beosctl(['--socket', join(node.dir, 'nowhere.sock'), 'status']);
  assert.equal(nobody.code, 3, nobody.stderr);
  const slip = await beosctl([...socket, 'install', '--no-such-flag']);
  assert.equal(slip.code, 2, slip.stderr);
});
