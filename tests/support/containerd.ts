import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { CriRuntime } from '#containerd/client.ts';
import { ask, type DaemonProcess } from './daemon-process.ts';
import { type MadeImage, makeArchive } from './oci.ts';

/** containerd programs of this machine: the packaged one, and whatever BEOSD_TEST_CONTAINERD (a list of paths) names. */
export interface Installed {
  readonly binary: string;
  readonly ctr: string;
  readonly version: string;
}

const packaged = ['/usr/bin/containerd', '/usr/local/bin/containerd'];

export function installedContainerds(): Installed[] {
  const named = process.env['BEOSD_TEST_CONTAINERD']?.split(delimiter) ?? [];
  return [...packaged, ...named].filter(existsSync).map((binary) => ({
    binary,
    ctr: join(dirname(binary), 'ctr'),
    version: / v?(\d+\.\d+\.\d+)/.exec(execFileSync(binary, ['--version'], { encoding: 'utf8' }))?.[1] ?? '?',
  }));
}

/** Why a test with a real containerd of this major version cannot run here; false: it can. */
export function whyNot(major: 1 | 2): string | false {
  if (process.getuid?.() !== 0) return 'containerd needs root';
  const found = installedContainerds().some(({ version }) => version.startsWith(`${major}.`));
  return found ? false : `no containerd ${major}.x is installed (PATH or BEOSD_TEST_CONTAINERD)`;
}

export function theContainerd(major: 1 | 2): Installed {
  const found = installedContainerds().find(({ version }) => version.startsWith(`${major}.`));
  if (found === undefined) throw new Error(`no containerd ${major}.x`);
  return found;
}

/** A containerd of our own: root, state, socket and configuration in one temporary folder, ended by its pid. */
export class TestContainerd implements AsyncDisposable {
  readonly folder: string;
  readonly socket: string;
  readonly configFile: string;
  readonly certsDir: string;
  readonly installed: Installed;
  readonly runtime: CriRuntime;
  /** How often it was started. */
  starts = 0;
  #child: ChildProcess | undefined;

  constructor(installed: Installed) {
    this.installed = installed;
    // Not below TMPDIR: a socket path has at most 107 bytes.
    this.folder = mkdtempSync('/tmp/beosd-ctd-');
    this.socket = join(this.folder, 'c.sock');
    this.configFile = join(this.folder, 'etc', 'config.toml');
    this.certsDir = join(this.folder, 'etc', 'certs.d');
    mkdirSync(join(this.folder, 'etc'));
    this.runtime = new CriRuntime({ address: () => this.socket });
    writeFileSync(this.configFile, this.baseConfig());
  }

  /** The least that this containerd needs to stay within its folder, in the newest format that it reads. */
  baseConfig(): string {
    if (!this.installed.version.startsWith('2.')) return this.version2Config();
    const images = "plugins.'io.containerd.cri.v1.images'";
    const cri = `[${images}]\n  snapshotter = "native"\n  use_local_image_pull = true\n`;
    const runtime = "[plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n";
    return `${this.#common(3)}${runtime}${cri}[${images}.pinned_images]\n  sandbox = "lab.local/sandbox:1"\n`;
  }

  /** The format of containerd 1.x, which 2.x still reads. */
  version2Config(): string {
    const plugin = 'plugins."io.containerd.grpc.v1.cri"';
    const local = this.installed.version.startsWith('2.') ? '  use_local_image_pull = true\n' : '';
    const cri = `[${plugin}]\n  sandbox_image = "lab.local/sandbox:1"\n  restrict_oom_score_adj = true\n${local}`;
    return `${this.#common(2)}${cri}[${plugin}.containerd]\n  snapshotter = "native"\n`;
  }

  /** Its configuration names the folder of mirrors from the start, so that no switch is due. */
  lookInCertsDir(): void {
    const table = this.installed.version.startsWith('2.')
      ? "plugins.'io.containerd.cri.v1.images'.registry"
      : 'plugins."io.containerd.grpc.v1.cri".registry';
    writeFileSync(this.configFile, `${this.baseConfig()}[${table}]\n  config_path = "${this.certsDir}"\n`);
  }

  /** Of the process that runs now. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  #common(version: number): string {
    return `# made by a test
version = ${version}
root = "${this.folder}/root"
state = "${this.folder}/state"

[grpc]
  address = "${this.socket}" # ours alone

[ttrpc]
  address = "${this.folder}/t.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "${this.folder}/opt"

`;
  }

  /** Resolves when CRI answers. */
  async start(): Promise<void> {
    this.starts++;
    const log = openSync(join(this.folder, 'log'), 'a');
    const env = { ...process.env, PATH: `${dirname(this.installed.binary)}:${process.env['PATH']}` };
    const child = spawn(this.installed.binary, ['--config', this.configFile], {
      stdio: ['ignore', log, log],
      env,
    });
    this.#child = child;
    await until(async () => {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`containerd ended: ${this.log()}`);
      return await this.runtime.version().then(
        () => true,
        () => false,
      );
    }, 30_000);
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }

  log(): string {
    return readFileSync(join(this.folder, 'log'), 'utf8').slice(-2000);
  }

  ctr(...args: string[]): string {
    return execFileSync(this.installed.ctr, ['-a', this.socket, '-n', 'k8s.io', ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** Imports images under these names and waits until CRI knows them. */
  async import(images: Readonly<Record<string, MadeImage>>): Promise<void> {
    const archive = join(this.folder, 'import.tar');
    writeFileSync(archive, makeArchive(images));
    this.ctr('images', 'import', '--no-unpack', archive);
    await until(async () => {
      const known = new Set((await this.runtime.images()).flatMap(({ tags }) => tags));
      return Object.keys(images).every((name) => known.has(name));
    }, 20_000);
  }

  /** Unpacks an image, so that containers can be made of it. */
  unpack(image: string): void {
    const mounted = mkdtempSync(join(this.folder, 'unpack-'));
    this.ctr('images', 'mount', '--snapshotter', 'native', image, mounted);
    this.ctr('images', 'unmount', '--snapshotter', 'native', mounted);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A shim outlives its containerd: what still runs has to end first.
    if (this.#child !== undefined) await until(() => this.#endTasks(), 20_000);
    await this.stop();
    this.runtime.close();
    this.#unmountAll();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** containerd 2.4 leaves what `ctr images mount` has mounted to its next start, which never comes. */
  #unmountAll(): void {
    const mounted = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .flatMap((line) => line.split(' ')[4] ?? [])
      .filter((path) => path.startsWith(`${this.folder}/`));
    for (const path of mounted.reverse()) execFileSync('umount', [path]);
  }

  /** True when nothing runs any more; else it was told to end. */
  #endTasks(): boolean {
    const ids = this.ctr('tasks', 'list', '-q')
      .split('\n')
      .filter((id) => id !== '');
    for (const id of ids) {
      try {
        this.ctr('tasks', 'delete', '--force', id);
      } catch {
        // it is ending; asked again
      }
    }
    return ids.length === 0;
  }
}

/** A daemon that has just started is `checking` for a moment, and changes nothing as long. */
export async function settled(daemon: DaemonProcess): Promise<void> {
  await until(async () => {
    const { json } = await ask(daemon.port, { path: '/system/status' });
    return (json.data as { terminusState: string }).terminusState !== 'checking';
  }, 20_000);
}

/** Asks again, ever more slowly, until the answer is yes; throws after the deadline. */
export async function until(question: () => Promise<boolean> | boolean, deadlineMs: number): Promise<void> {
  const end = performance.now() + deadlineMs;
  for (let pause = 10; !(await question()); pause = Math.min(pause * 2, 250)) {
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
