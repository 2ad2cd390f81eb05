import assert from 'node:assert/strict';
import { chmod, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Job } from '#api/shapes.ts';
import type { Status } from '#api/status.ts';
import { createKey, signLegacy } from '#client/sign.ts';
import { ask, type Reply } from '../support/daemon-process.ts';
import { within } from './deadline.ts';
import { bootContainer, type Container } from './nspawn.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const unit = 'beosd.service';
/** The node's address in the network that it shares with the phone. */
const address = '10.77.0.1';
const installer = '/opt/recorded';
const baseDir = '/var/lib/beos';

/** What differs from a node: the installer is a recording. Everything else is as packaging/ ships it. */
const settings = `\nBEOS_CLI=${installer}/node-cli\nBASE_DIR=${baseDir}\nINSTALLED_VERSION=0.1.0\n`;

/** A node as it is delivered: the packaged unit, the bundle and the pinned Node in a container with systemd, and a phone. */
export class DaemonBox implements AsyncDisposable {
  readonly key = createKey();
  readonly box: Container;

  constructor(box: Container) {
    this.box = box;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.box[Symbol.asyncDispose]();
  }

  /** A property of the unit, as systemd knows it. */
  async property(name: string): Promise<string> {
    const { stdout } = await this.box.run(['systemctl', 'show', `--property=${name}`, '--value', unit]);
    return stdout.trim();
  }

  /** `kill -9` of the daemon; resolves when systemd has started it again and it has said that it is ready. */
  async killDaemon(signal = '-9'): Promise<void> {
    const cursor = await this.box.journalEnd();
    await this.box.run(['kill', signal, await this.property('MainPID')]);
    await this.box.journalLine(cursor, unit, /^Started /, 60_000);
  }

  /** The unit is active, waited for where it is not yet. */
  async active(name: string): Promise<void> {
    await this.#until(30_000, `${name} active`, async () => {
      const { stdout } = await this.box.run(['systemctl', 'show', '--property=ActiveState', '--value', name]);
      return stdout.trim() === 'active' ? true : undefined;
    });
  }

  asRoot(method: string, path: string): Promise<Reply> {
    return ask(this.box.pathOf('/run/beosd/beosd.sock'), { method, path });
  }

  async status(): Promise<Status> {
    return (await this.asRoot('GET', '/system/status')).json.data as Status;
  }

  async job(id: string): Promise<Job> {
    return (await this.asRoot('GET', `/jobs/${id}`)).json.data as Job;
  }

  /** The job once it has ended. */
  async ended(id: string, withinMs = 60_000): Promise<Job> {
    return await this.#until(withinMs, `the end of job ${id}`, async () => {
      const job = await this.job(id);
      return job.finishedAt === null ? undefined : job;
    });
  }

  /** The network has been read after a start, so that the state is known. */
  async known(): Promise<Status> {
    return await this.#until(30_000, 'a state other than checking', async () => {
      const status = await this.status();
      return status.terminusState === 'checking' ? undefined : status;
    });
  }

  /** A signed request; `from` the phone at the other end of the link, or this node's own loopback. */
  async signed(from: 'phone' | 'loopback', path: string, body: Record<string, unknown>): Promise<Answer> {
    const host = from === 'phone' ? address : '127.0.0.1';
    const domain = `http://${host}:18088`;
    const signature = signLegacy(this.key, { now: Date.now(), body: { username: 'alice', ...body }, domain });
    const headers = [`X-Signature: ${signature}`, 'Content-Type: application/json'];
    const { stdout } = await this.box.run([
      ...(from === 'phone' ? ['ip', 'netns', 'exec', 'phone'] : []),
      ...['curl', '--silent', '--show-error', '--max-time', '20', '--data-binary', JSON.stringify(body)],
      ...headers.flatMap((header) => ['--header', header]),
      `${domain}${path}`,
    ]);
    return JSON.parse(stdout) as Answer;
  }

  /** How the recorded installer shall behave, and how long it pauses between two lines, s. */
  async play(mode: string, pause: number): Promise<void> {
    const write = 'printf %s "$1" > mode && printf %s "$2" > pause';
    await this.box.run(['sh', '-c', `cd ${installer} && ${write}`, 'play', mode, String(pause)]);
  }

  /** Pids, inside the container, of the installers that were ever started, in the order of their starts. */
  async installers(): Promise<number[]> {
    const text = await readFile(this.box.pathOf(`${installer}/starts`), 'utf8').catch(() => '');
    return text.split('\n').filter(Boolean).map(Number.parseFloat);
  }

  /** Whether a process of the container lives. */
  async lives(pid: number): Promise<boolean> {
    const stat = await readFile(this.box.pathOf(`/proc/${pid}/stat`), 'utf8').catch(() => undefined);
    return stat !== undefined && !/\) [ZX] /.test(stat);
  }

  /** Waits by looking: what is awaited is a fact behind an API, which itself may be down for a while. */
  async #until<T>(ms: number, what: string, look: () => Promise<T | undefined>): Promise<T> {
    const over = new AbortController();
    const looking = async (): Promise<T> => {
      for (;;) {
        const found = await look();
        if (found !== undefined) return found;
        over.signal.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    try {
      return await within(ms, what, looking());
    } finally {
      over.abort(new Error('given up'));
    }
  }
}

export interface Answer {
  readonly code: number;
  readonly message: string;
  readonly data?: { readonly jobId: string };
  readonly error?: { readonly code: string };
}

/** Boots the container and installs beosd in it as docs/operations.md says; the daemon serves when it resolves. */
export async function bootDaemonBox(): Promise<DaemonBox> {
  const box = await bootContainer();
  try {
    await copyIn(box);
    await connectPhone(box);
    await box.run(['systemctl', 'daemon-reload']);
    await box.run(['systemctl', 'enable', '--now', unit]);
    const daemon = new DaemonBox(box);
    await daemon.known();
    return daemon;
  } catch (error) {
    const said = await box.run(['journalctl', '--no-pager', `--unit=${unit}`]).catch(() => undefined);
    await box[Symbol.asyncDispose]();
    throw new Error(`lab: the daemon does not serve in the container: ${said?.stdout}`, { cause: error });
  }
}

async function copyIn(box: Container): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'beosd-delivered-'));
  try {
    const node = process.execPath;
    const inPackage = join('node_modules', `node-linux-${process.arch}`, 'bin/node');
    const delivered = ['run', 'scripts/toolchain.sh', 'dist/beosd.cjs', 'dist/beosctl.cjs'];
    for (const path of [...delivered, inPackage]) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await cp(path === inPackage ? node : join(root, path), join(folder, path));
    }
    await box.copyIn(folder, '/usr/lib/beosd');
    for (const each of [unit, 'beosd-mounts.target'])
      await box.copyIn(join(root, 'packaging', each), `/etc/systemd/system/${each}`);
    await mkdir(join(folder, 'etc'), { mode: 0o700 });
    const env = await readFile(join(root, 'packaging/beosd.env'), 'utf8');
    await writeFile(join(folder, 'etc/beosd.env'), env + settings, { mode: 0o600 });
    await box.copyIn(join(folder, 'etc'), '/etc/beosd');
    await mkdir(join(folder, 'cli'));
    await cp(join(root, 'tests/support/recorded-installer.sh'), join(folder, 'cli/node-cli'));
    await chmod(join(folder, 'cli/node-cli'), 0o755);
    await box.copyIn(join(folder, 'cli'), installer);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** A neighbour: a network namespace at the other end of a link. It is gone after a reboot, as are the node's addresses. */
async function connectPhone(box: Container): Promise<void> {
  await box.run(['ip', 'netns', 'add', 'phone']);
  await box.run(['ip', 'link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan0', 'netns', 'phone']);
  await box.run(['ip', 'address', 'add', `${address}/24`, 'dev', 'lan0']);
  await box.run(['ip', 'link', 'set', 'lan0', 'up']);
  await box.run(['ip', '-netns', 'phone', 'address', 'add', '10.77.0.2/24', 'dev', 'lan0']);
  await box.run(['ip', '-netns', 'phone', 'link', 'set', 'lan0', 'up']);
}

/** @throws AssertionError when the answer is no success with a job */
export function jobOf(answer: { readonly code: number; readonly data?: unknown }): string {
  const { jobId } = (answer.data ?? {}) as { jobId?: string };
  assert.equal(typeof jobId, 'string', JSON.stringify(answer));
  return jobId ?? '';
}
