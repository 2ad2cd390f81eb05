import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { appendFile, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ask } from '../support/daemon-process.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const system = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
const firstStartMs = 60_000;
const laterStartMs = 1_000;
/** What npm says when the machine has no way to a registry: then nothing can be said about the first start. */
const noRegistry = /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT)\b/;

/** The folder on PATH, none of the project's, that holds a program. */
function folderOf(program: string): string | undefined {
  const folders = [...system, ...(process.env['PATH'] ?? '').split(delimiter)];
  return folders.find((folder) => {
    if (folder === '' || folder.includes('node_modules')) return false;
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const [node, npm] = [folderOf('node'), folderOf('npm')];
const missing =
  (node === undefined && 'no Node of the machine') ||
  (npm === undefined && 'no npm of the machine') ||
  (!existsSync(join(root, '.git')) && 'this folder is no git repository') ||
  false;

/** The machine as its owner has it, with nothing of this test run: no pinned Node on PATH, no filled npm cache. */
function environment(cache: string): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(NODE_|npm_|BEOS|BASE_DIR|KUBE)/.test(name) || name === 'NODE_EXTRA_CA_CERTS',
  );
  const path = [node, npm, ...system].filter((each) => each !== undefined).join(delimiter);
  return { ...Object.fromEntries(inherited), PATH: path, npm_config_cache: cache };
}

interface Start {
  /** From the command to the first 200 of /system/status, ms. */
  readonly ms: number;
  readonly said: string;
}

/** `./run --port 0` in `folder` until its status answers, then SIGTERM and its end. Everything it started ends with it. */
async function start(folder: string, env: NodeJS.ProcessEnv, withinMs: number): Promise<Start> {
  const began = performance.now();
  const stdio = ['ignore', 'pipe', 'pipe'] as const;
  const child = spawn(join(folder, 'run'), ['--port', '0'], {
    cwd: folder,
    env,
    stdio: [...stdio],
    detached: true,
  });
  // 'exit' may come before the last words, and with them the reason for which nothing can be installed here.
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const output = new Output(child);
  const late = setTimeout(() => endGroup(child), withinMs);
  try {
    const port = await Promise.race([output.port, ended.then(() => undefined)]);
    if (port === undefined)
      throw new Error(`./run ended, or was ended after ${withinMs} ms:\n${output.said}`);
    const { status, json } = await ask(port, { path: '/system/status' });
    const ms = performance.now() - began;
    assert.equal(status, 200);
    assert.equal(json.code, 200);
    child.kill('SIGTERM');
    assert.equal(await ended, 0, output.said);
    return { ms, said: output.said };
  } finally {
    clearTimeout(late);
    endGroup(child);
    await ended;
  }
}

/** What ./run prints, and the port once it is said. */
class Output {
  said = '';
  readonly port: Promise<number>;

  constructor(child: ChildProcess) {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.port = promise;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (part: Buffer) => {
        this.said += part.toString();
        const match = /listening on http:\/\/\S+:(\d+)/.exec(this.said);
        if (match !== null) resolve(Number(match[1]));
      });
    }
  }
}

/** npm and what it started are in the group that `./run` leads. */
function endGroup(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  process.kill(-child.pid, 'SIGKILL');
}

describe('a fresh clone', { skip: missing, timeout: 5 * 60_000 }, () => {
  let folder: string;
  let clone: string;
  let env: NodeJS.ProcessEnv;
  let isInstalled = false;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'beosd-clone-'));
    clone = join(folder, 'beosd');
    env = environment(join(folder, 'npm-cache'));
    await promisify(execFile)('git', ['clone', '--quiet', root, clone], { timeout: 60_000 });
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('answers within 60 s of ./run, installs included', async (context: TestContext) => {
    assert.equal(existsSync(join(clone, 'node_modules')), false);
    let first: Start;
    try {
      first = await start(clone, env, firstStartMs + 30_000);
    } catch (error) {
      if (!(error instanceof Error) || !noRegistry.test(error.message)) throw error;
      context.skip('the npm registry cannot be reached from here');
      return;
    }
    isInstalled = true;
    context.diagnostic(`first start ${Math.round(first.ms)} ms`);
    assert.match(first.said, /installing the pinned packages/);
    assert.ok(first.ms <= firstStartMs, `${Math.round(first.ms)} ms`);
  });

  it('answers within 1.0 s of ./run when it was started before (best of 3)', async (context: TestContext) => {
    if (!isInstalled) {
      context.skip('nothing was installed');
      return;
    }
    const starts: number[] = [];
    for (let round = 0; round < 3; round++) {
      const { ms, said } = await start(clone, env, 30_000);
      assert.doesNotMatch(said, /installing/);
      starts.push(Math.round(ms));
    }
    context.diagnostic(`later starts ${starts.join(', ')} ms`);
    assert.ok(Math.min(...starts) <= laterStartMs, `${starts.join(', ')} ms`);
  });

  it('bundles again when a source has changed, and only then', async (context: TestContext) => {
    if (!isInstalled) {
      context.skip('nothing was installed');
      return;
    }
    const bundledAt = async () => (await stat(join(clone, 'dist/beosd.cjs'))).mtimeMs;
    const before = await bundledAt();
    await start(clone, env, 30_000);
    assert.equal(await bundledAt(), before);
    await appendFile(join(clone, 'src/daemon/main.ts'), '// changed\n');
    await start(clone, env, 30_000);
    assert.ok((await bundledAt()) > before);
  });

  it('leaves everything it keeps in folders that git ignores', async () => {
    await promisify(execFile)('git', ['checkout', '--quiet', '.'], { cwd: clone });
    const { stdout } = await promisify(execFile)('git', ['status', '--porcelain'], { cwd: clone });
    assert.equal(stdout, '');
  });
});
