import { type ChildProcess, spawn } from 'node:child_process';
import { constants, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdir, readFile, realpath, writeFile } from 'node:fs/promises';
import { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type RunOptions, type RunResult, SystemExec } from '#host/exec.ts';
import { messageOf } from '#lib/fault.ts';
import { type Child, startChild, startReady } from './child.ts';
import { type Deferred, deferred, within } from './deadline.ts';
import { type HttpAnswer, type HttpCall, httpOver } from './http.ts';
import { groupOf, makeRunFolder, removeRunFolder } from './runs.ts';
import { debianTree } from './tree.ts';

export interface ContainerOptions {
  /** Shown read-only inside, e.g. the bundle; `from` is a path of this machine. */
  readonly binds?: readonly { readonly from: string; readonly to: string }[];
  /** Files written before the first boot, path inside → text: units, configuration. */
  readonly files?: Readonly<Record<string, string>>;
  /** Units under /etc/systemd/system that start at boot. */
  readonly enable?: readonly string[];
  /**
   * Makes /sys writable, so that udevd runs inside. It then sees, and at boot triggers, every device of this machine:
   * only for tests that need it.
   */
  readonly udev?: boolean;
  /** Deadline for one boot, ms. Default 60 s: a boot takes one, but the machine may be busy. */
  readonly bootTimeoutMs?: number;
}

/** How a boot ended, in systemd's words; `degraded` when a unit failed. */
export type BootState = 'running' | 'degraded' | 'maintenance' | 'starting' | 'stopping' | 'unknown';

/** A listener inside a machine of the lab. */
export interface Follower {
  /** Settles when it has ended, for whatever reason. */
  readonly ended: Promise<void>;
  stop(): void;
}

const apiPort = 18088;
const rebootWanted = 133; // systemd-nspawn's exit code when PID 1 asked for a reboot

/** Tells the harness over a FIFO that a boot is over, and how: the event that everything here waits for. */
const labFiles = {
  '/etc/systemd/system/lab-ready.service': [
    '[Unit]\nDescription=tells the lab when the boot is over',
    '[Service]\nType=simple',
    "ExecStart=/bin/sh -c 'exec systemctl is-system-running --wait > /run/lab/ready'\n",
  ].join('\n'),
};

/**
 * Boots a Debian container with systemd as PID 1 and its own network (loopback only), pids, mounts and cgroups. The
 * Node that runs the tests is `/usr/local/bin/node` inside. What the container writes goes when it is disposed.
 */
export async function bootContainer(options: ContainerOptions = {}): Promise<Container> {
  const tree = await debianTree();
  const folder = await makeRunFolder('box');
  for (const name of ['upper', 'work', 'root', 'lab']) await mkdir(join(folder, name));
  await writeInside(join(folder, 'upper'), { ...labFiles, ...options.files });
  await enableUnits(join(folder, 'upper'), ['lab-ready.service', ...(options.enable ?? [])]);
  await new SystemExec().run('mkfifo', [join(folder, 'lab/ready')]);
  const container = new Container(tree, folder, options);
  try {
    await container.start();
    return container;
  } catch (error) {
    const said = await readFile(join(folder, 'console.log'), 'utf8').catch(() => '');
    await container[Symbol.asyncDispose]();
    throw new Error(`lab: the container did not boot: ${said.slice(-2000)}`, { cause: error });
  }
}

async function writeInside(root: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
}

async function enableUnits(root: string, units: readonly string[]): Promise<void> {
  const wants = join(root, 'etc/systemd/system/multi-user.target.wants');
  await mkdir(wants, { recursive: true });
  const links = units.map((unit) => `/etc/systemd/system/${unit}`);
  await new SystemExec().run('ln', ['--symbolic', '--force', `--target-directory=${wants}`, ...links]);
}

/** A booted container, made by `bootContainer`. Every call has a deadline. */
export class Container implements AsyncDisposable {
  /** Settles with systemd-nspawn's exit code when the container has powered off or was cut off for good. */
  readonly ended: Promise<number>;
  readonly #tree: string;
  readonly #folder: string;
  readonly #options: ContainerOptions;
  readonly #exec = new SystemExec();
  readonly #ended: Deferred<number> = deferred();
  #boot: Deferred<BootState> = deferred();
  #ready: Socket | undefined;
  #nspawn: Child | undefined;
  #relay: Promise<Child> | undefined;
  #leader: number | undefined;
  #cut = false; // its processes were killed by us, to be started again
  #over = false; // disposed, or powered off

  constructor(tree: string, folder: string, options: ContainerOptions) {
    this.#tree = tree;
    this.#folder = folder;
    this.#options = options;
    this.ended = this.#ended.promise;
  }

  /** The pid of the container's PID 1 as this machine sees it; another one after a reboot. */
  get leader(): number {
    if (this.#leader === undefined) throw new Error('lab: the container is not up');
    return this.#leader;
  }

  /** The first boot; `bootContainer` calls it. */
  async start(): Promise<void> {
    // Opened for writing too, so that it does not end with the first boot's writer.
    const fd = openSync(join(this.#folder, 'lab/ready'), constants.O_RDWR | constants.O_NONBLOCK);
    this.#ready = new Socket({ fd, readable: true, writable: false });
    createInterface({ input: this.#ready }).on('line', (line) => this.#booted(line as BootState));
    await this.#launch();
    await this.booted();
  }

  /** Runs a command as root to its end; an exit code outside `okCodes` is an ExecError with its output. */
  run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const env = { HOME: '/root', PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };
    return this.#exec.run('nsenter', [...this.#entering(), ...argv], {
      timeoutMs: 60_000,
      ...options,
      env: { ...env, ...options.env },
    });
  }

  /** Starts a command whose lines of output are events, such as `journalctl --follow`. It ends with the container. */
  follow(argv: readonly string[], onLine: (line: string) => void): Follower {
    const stdio = ['ignore', 'pipe', 'ignore'] as const;
    const child = spawn('nsenter', [...this.#entering(), ...argv], { stdio: [...stdio] });
    const lines = createInterface({ input: child.stdout }).on('line', onLine);
    const ended = new Promise<void>((resolve) => {
      child.once('error', () => resolve());
      child.once('exit', () => resolve());
    });
    const stop = () => {
      lines.removeListener('line', onLine); // what was half written when it is killed is no line
      endInside(child);
    };
    return { ended, stop };
  }

  /** The end of the journal as it is now, for `journalLine`: what was logged until now stands before it. */
  async journalEnd(): Promise<string> {
    await this.run(['journalctl', '--sync']);
    const { stdout } = await this.run(['journalctl', '--lines=0', '--show-cursor']);
    const cursor = /^-- cursor: (.+)$/m.exec(stdout)?.[1];
    if (cursor === undefined) throw new Error('lab: the journal has no cursor');
    return cursor;
  }

  /**
   * Waits for the first line of a unit's journal, later than `cursor`, that matches. The whole journal is followed and
   * the unit picked here: by a filter (`--unit`, or the `--boot` that `--follow` implies without `--merge`) journalctl
   * goes by the index of that field, which journald extends after it has counted the entry. A look in between takes
   * the last entry for seen, and it is told with the next one only, which may never come.
   */
  async journalLine(cursor: string, unit: string, match: RegExp, timeoutMs = 30_000): Promise<string> {
    const seen: Deferred<string> = deferred();
    const options = ['--follow', '--merge', '--lines=all', '--output=json', `--after-cursor=${cursor}`];
    const follower = this.follow(['journalctl', ...options], (line) => {
      const said = messageFrom(unit, line);
      if (said !== undefined && match.test(said)) seen.resolve(said);
    });
    void follower.ended.then(() => seen.reject(new Error(`lab: the journal of ${unit} ended`)));
    try {
      return await within(timeoutMs, `${match} in the journal of ${unit}`, seen.promise);
    } finally {
      follower.stop();
    }
  }

  /** Copies a file or folder of this machine, links and modes kept, to a path inside whose parent folder exists. */
  async copyIn(from: string, to: string): Promise<void> {
    const options = { timeoutMs: 120_000 };
    await this.#exec.run('cp', ['--archive', '--no-target-directory', from, this.pathOf(to)], options);
  }

  /** The path by which this machine reaches a file inside. Absolute links inside do not lead where they do there. */
  pathOf(inside: string): string {
    return join(`/proc/${this.leader}/root`, inside);
  }

  /** One HTTP exchange with the server on port 18088 of the container's own loopback. */
  async http(path: string, call: HttpCall = {}): Promise<HttpAnswer> {
    return httpOver(await this.apiSocket(), path, call);
  }

  /** A unix socket of this machine that leads to port 18088 inside, for clients that keep a connection open. */
  async apiSocket(): Promise<string> {
    const socketPath = join(this.#folder, `api-${this.leader}.sock`);
    this.#relay ??= this.#startRelay(socketPath);
    await this.#relay;
    return socketPath;
  }

  /** Settles when the boot that is under way, or the last one, is over. */
  booted(): Promise<BootState> {
    return within(this.#options.bootTimeoutMs ?? 60_000, 'the boot of the container', this.#boot.promise);
  }

  /** Settles with the next boot after this one, whoever asks for it; call it before what causes the reboot. */
  async nextBoot(): Promise<BootState> {
    const nspawn = this.#nspawn;
    const timeoutMs = this.#options.bootTimeoutMs ?? 60_000;
    if (nspawn !== undefined) await within(timeoutMs, 'the shutdown of the container', nspawn.ended);
    if (this.#over) throw new Error('lab: the container powered off instead of rebooting');
    return this.booted();
  }

  /** Asks logind for a reboot and waits until the container is up again. */
  async reboot(): Promise<BootState> {
    const next = this.nextBoot();
    const manager = ['org.freedesktop.login1', '/org/freedesktop/login1', 'org.freedesktop.login1.Manager'];
    // The bus may go down before it has passed the answer on: what counts is the boot that follows.
    const asked = this.run(['busctl', 'call', ...manager, 'Reboot', 'b', 'false']).then(
      () => undefined,
      (cause: unknown) => cause,
    );
    try {
      return await next;
    } catch (error) {
      throw new Error(`lab: no reboot: ${messageOf(error)}`, { cause: await asked });
    }
  }

  /** Kills every process of the container at once and boots it again; what was in its page cache survives. */
  async killAll(): Promise<BootState> {
    const next = this.nextBoot();
    this.#cut = true;
    process.kill(this.#findLeader(), 'SIGKILL');
    return next;
  }

  /** What systemd-nspawn and the container's console said. */
  consoleLog(): Promise<string> {
    return readFile(join(this.#folder, 'console.log'), 'utf8');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true;
    await this.#stopRelay();
    const nspawn = this.#nspawn;
    if (nspawn !== undefined) {
      // PID 1 takes every process of the container with it, and systemd-nspawn ends by itself then.
      const leader = leaderUnder(nspawn.pid);
      if (leader !== undefined) process.kill(leader, 'SIGKILL');
      else await nspawn.stop();
      await within(20_000, 'the end of the container', nspawn.ended);
    }
    this.#ready?.destroy();
    await removeRunFolder(this.#folder);
  }

  async #launch(): Promise<void> {
    this.#cut = false;
    const alone = [
      'unshare',
      '--mount',
      '--propagation',
      'private',
      '--pid',
      '--mount-proc',
      '--fork',
      '--kill-child',
    ];
    const script = fileURLToPath(new URL('nspawn-start.sh', import.meta.url));
    const group = groupOf(this.#folder);
    const argv = [...alone, script, group, this.#tree, this.#folder, ...(await this.#nspawnArguments())];
    const env = this.#options.udev ? { SYSTEMD_NSPAWN_API_VFS_WRITABLE: '1' } : {};
    const nspawn = await startChild(argv, join(this.#folder, 'console.log'), env);
    this.#nspawn = nspawn;
    void nspawn.ended.then((end) => this.#down(end.code ?? -1));
  }

  async #nspawnArguments(): Promise<string[]> {
    const binds = (this.#options.binds ?? []).map(({ from, to }) => `--bind-ro=${from}:${to}`);
    const node = await realpath(process.execPath);
    return [
      ...[`--machine=${groupOf(this.#folder)}`, '--hostname=labbox', '--private-network', '--capability=all'],
      ...['--register=no', '--keep-unit', '--console=pipe', '--resolv-conf=off', '--timezone=off'],
      ...[`--bind=${join(this.#folder, 'lab')}:/run/lab`, `--bind-ro=${node}:/usr/local/bin/node`, ...binds],
      ...['--boot', ...cgroupArguments()],
    ];
  }

  /** systemd-nspawn has ended: a reboot is followed by another start, anything else is the end. */
  #down(code: number): void {
    const died = new Error(`lab: the container ended with code ${code} before its boot was over`);
    this.#boot.reject(died);
    this.#leader = undefined;
    const relay = this.#stopRelay();
    if (this.#over || (code !== rebootWanted && !this.#cut)) {
      this.#over = true;
      this.#ended.resolve(code);
      return;
    }
    this.#boot = deferred();
    const fail = (error: Error) => this.#boot.reject(error);
    void relay.then(() => this.#launch()).catch(fail);
  }

  #booted(state: BootState): void {
    try {
      this.#leader = this.#findLeader();
      this.#boot.resolve(state);
    } catch (error) {
      this.#boot.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #findLeader(): number {
    const leader = this.#nspawn && leaderUnder(this.#nspawn.pid);
    if (leader === undefined) throw new Error('lab: the container has no PID 1');
    return leader;
  }

  #entering(): string[] {
    return [`--target=${this.leader}`, '--mount', '--net', '--pid', '--uts', '--ipc', '--cgroup', '--'];
  }

  async #startRelay(socketPath: string): Promise<Child> {
    const relay = fileURLToPath(new URL('relay.ts', import.meta.url));
    const entering = ['nsenter', `--target=${this.leader}`, '--net', '--'];
    const argv = [...entering, process.execPath, relay, socketPath, String(apiPort)];
    return await startReady(argv);
  }

  async #stopRelay(): Promise<void> {
    const relay = this.#relay;
    this.#relay = undefined;
    await relay?.then((child) => child.stop()).catch(() => undefined);
  }
}

/** What an entry of the journal (JSON, one a line) says, if it is of the unit or of systemd about the unit. */
function messageFrom(unit: string, line: string): string | undefined {
  if (!line.endsWith('}')) return undefined; // cut off by the end of the container
  const entry = JSON.parse(line) as { MESSAGE?: unknown; UNIT?: unknown; _SYSTEMD_UNIT?: unknown };
  if (entry.UNIT !== unit && entry._SYSTEMD_UNIT !== unit) return undefined;
  return typeof entry.MESSAGE === 'string' ? entry.MESSAGE : undefined; // an array of bytes where it is not text
}

/** On a machine with version 1 of cgroups the container's systemd has to be told so. */
function cgroupArguments(): string[] {
  if (existsSync('/sys/fs/cgroup/cgroup.controllers')) return [];
  return ['systemd.unified_cgroup_hierarchy=0', 'systemd.legacy_systemd_cgroup_controller=1'];
}

/**
 * Ends what nsenter runs, not nsenter: orphaned, it would be reaped by this machine's PID 1, whenever that comes to it,
 * and until then the container's shutdown waits for it.
 */
function endInside(nsenter: ChildProcess): void {
  if (nsenter.pid === undefined || nsenter.exitCode !== null) return;
  for (const pid of childrenOf(nsenter.pid)) process.kill(pid, 'SIGKILL');
}

/** The container's PID 1, below unshare, nspawn-start.sh and systemd-nspawn, which have one child each. */
function leaderUnder(unshare: number): number | undefined {
  let pid: number | undefined = unshare;
  for (let depth = 0; depth < 3 && pid !== undefined; depth++) pid = childrenOf(pid)[0];
  return pid;
}

function childrenOf(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
  return text
    .split(' ')
    .map(Number)
    .filter((child) => child > 0);
}
