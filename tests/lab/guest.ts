import { once } from 'node:events';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';
import { ExecError, type RunResult, SystemExec } from '#host/exec.ts';
import { Mutex } from '#lib/mutex.ts';
import { cached } from './cache.ts';
import { type Deferred, deferred, within } from './deadline.ts';
import type { ExitAnswer, OpenRequest } from './frames.ts';
import { type HttpAnswer, type HttpCall, httpOver } from './http.ts';
import { type GuestImage, guestImage } from './image.ts';
import { type Machine, makeLayer, type SataDisk, saveState, startMachine } from './machine.ts';
import { makeRunFolder, removeRunFolder } from './runs.ts';
import { plugUsb, type UsbDisk, unplugUsb } from './usb.ts';

export interface GuestOptions {
  /** Boots from power on (half a minute) instead of going on from the saved state of a booted machine (two seconds). */
  readonly cold?: boolean;
  /** Disks on the SATA controller; with any the boot is a cold one. */
  readonly sata?: readonly SataDisk[];
  /** Sets a booted machine up once; its state is cached under `recipe`, and every later start goes on from there. */
  readonly prepare?: { readonly recipe: unknown; setUp(vm: Guest): Promise<void> };
}

export interface GuestRunOptions {
  /** The command's process group is killed after this many ms. Default 60 s. */
  readonly timeoutMs?: number;
  readonly stdin?: Uint8Array | string;
  readonly env?: Readonly<Record<string, string>>;
  /** Exit codes that are answers, not errors. Default [0]. */
  readonly okCodes?: readonly number[];
}

interface SavedGuest {
  readonly disk: string;
  readonly state: string;
}

const memoryMiB = 1024;
const bootTimeoutMs = 300_000; // half a minute on a quiet machine; emulation shares its processors with the other tests
/** Through a 9p share that is mounted only meanwhile: a mounted one would keep the machine from being saved. */
const copyScript = [
  'set -e; mkdir -p "$(dirname "$1")" /run/lab-share',
  'mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose lab /run/lab-share',
  'trap "umount /run/lab-share" EXIT',
  'cp --archive --no-target-directory --no-preserve=ownership /run/lab-share/copy "$1"',
].join('\n');
const apiTarget: OpenRequest = { port: 18088 };

/**
 * Starts a Debian machine with the distribution's own kernel under QEMU, without network. Its disk is thrown away when
 * it is disposed.
 */
export async function bootGuest(options: GuestOptions = {}): Promise<Guest> {
  const image = await guestImage();
  const cold = options.cold === true || (options.sata ?? []).length > 0;
  if (cold) return await startGuest(image, undefined, options.sata ?? []);
  const booted = await savedGuest('booted', image, undefined, undefined);
  if (options.prepare === undefined) return await startGuest(image, booted, []);
  return await startGuest(image, await savedGuest('prepared', image, booted, options.prepare), []);
}

/** The cached state of a machine that was booted, or went on from `from`, and was set up. */
async function savedGuest(
  kind: 'booted' | 'prepared',
  image: GuestImage,
  from: SavedGuest | undefined,
  prepare: GuestOptions['prepare'],
): Promise<SavedGuest> {
  const { stdout: qemu } = await new SystemExec().run('qemu-system-x86_64', ['--version']);
  const below = from === undefined ? image.folder : dirname(from.disk);
  const recipe = { version: 2, below: basename(below), qemu, memoryMiB, setUp: prepare?.recipe };
  const folder = await cached(kind, recipe, async (into) => {
    await using vm = await startGuest(image, from, [], join(into, 'disk.qcow2'));
    await prepare?.setUp(vm);
    await vm.save(join(into, 'state'));
  });
  return { disk: join(folder, 'disk.qcow2'), state: join(folder, 'state') };
}

async function startGuest(
  image: GuestImage,
  from: SavedGuest | undefined,
  sata: readonly SataDisk[],
  ownLayer?: string,
): Promise<Guest> {
  const folder = await makeRunFolder('vm');
  await mkdir(join(folder, 'share'));
  const layer = ownLayer ?? join(folder, 'disk.qcow2');
  await makeLayer(layer, from?.disk ?? image.disk, from === undefined ? 'raw' : 'qcow2');
  const vm = new Guest(folder, layer, image, sata);
  try {
    await vm.powerOn(from?.state);
    return vm;
  } catch (error) {
    const said = await vm.serialLog();
    await vm[Symbol.asyncDispose]();
    throw new Error(`lab: the guest did not start: ${said.slice(-2000)}`, { cause: error });
  }
}

/** A running guest, made by `bootGuest`. Every call has a deadline. */
export class Guest implements AsyncDisposable {
  readonly #folder: string;
  readonly #layer: string;
  readonly #image: GuestImage;
  readonly #sata: readonly SataDisk[];
  readonly #sharing = new Mutex();
  readonly #usb = new Map<string, UsbDisk>();
  readonly #relays = new Map<string, Server>();
  #machine: Machine | undefined;
  #reset: Deferred<void> = deferred();
  #ids = 0;

  constructor(folder: string, layer: string, image: GuestImage, sata: readonly SataDisk[]) {
    this.#folder = folder;
    this.#layer = layer;
    this.#image = image;
    this.#sata = sata;
  }

  /** Switches a machine on that is off; returns when systemd has finished the boot. */
  async powerOn(state?: string): Promise<void> {
    if (this.#machine !== undefined) throw new Error('lab: the guest is on');
    const [image, layer, folder, sata] = [this.#image, this.#layer, this.#folder, this.#sata];
    const machine = await startMachine({ image, layer, folder, memoryMiB, sata, state });
    this.#machine = machine;
    void machine.qemu.ended.then(() => this.#gone(machine));
    machine.qmp.onEvent(({ event }) => event === 'RESET' && this.#onReset(machine));
    for (const [id, disk] of this.#usb) await plugUsb(machine.qmp, id, disk);
    await machine.qmp.run('cont');
    machine.link.ping();
    await within(bootTimeoutMs, "the agent's hello", machine.link.hello());
    if (state === undefined) await this.#systemUp();
    else await this.run(['date', `--set=@${(Date.now() / 1000).toFixed(3)}`]);
  }

  /** Takes the power away: what the guest had not written to its disks is lost. */
  async powerCut(): Promise<void> {
    const { qmp, qemu } = this.#on;
    qmp.run('quit').catch(() => undefined); // QEMU may go before it answers
    await within(30_000, 'the end of QEMU', qemu.ended);
  }

  /** Settles when the guest has switched itself off. */
  async poweredOff(timeoutMs = 120_000): Promise<void> {
    if (this.#machine !== undefined) await within(timeoutMs, 'the power off', this.#machine.qemu.ended);
  }

  /** Asks systemd for a reboot and waits until the guest is up again. */
  async reboot(): Promise<void> {
    const next = this.nextBoot();
    next.catch(() => undefined); // awaited below, unless the request itself fails
    const asked = this.run(['systemctl', 'reboot', '--no-block']).catch((error) => {
      if (error instanceof ExecError) throw error; // else the guest went down before it could answer
    });
    await Promise.race([asked, next]);
    await next;
  }

  /** Presses the reset button and waits until the guest is up again. */
  async reset(): Promise<void> {
    const next = this.nextBoot();
    await this.#on.qmp.run('system_reset');
    await next;
  }

  /** Settles when the guest is up after its next reset, whoever causes it; call it before what causes the reset. */
  async nextBoot(): Promise<void> {
    await within(120_000, "the guest's reset", this.#reset.promise);
    await within(bootTimeoutMs, "the agent's hello", this.#on.link.hello());
    await this.#systemUp();
  }

  /** Runs a command as root to its end; an exit code outside `okCodes` is an ExecError with its output. */
  run(argv: readonly string[], options: GuestRunOptions = {}): Promise<RunResult> {
    const { timeoutMs = 60_000, env = {}, stdin = '', okCodes = [0] } = options;
    return this.#on.link.run({ argv, env, timeoutMs }, stdin, okCodes);
  }

  /** Starts a command whose lines of output are events; it ends by `stop`, with the guest, or after an hour. */
  follow(
    argv: readonly string[],
    onLine: (line: string) => void,
  ): { ended: Promise<ExitAnswer>; stop(): void } {
    const text = new PassThrough();
    createInterface({ input: text }).on('line', onLine);
    const events = { onOutput: (part: Buffer) => text.write(part), onErrors: () => undefined };
    const command = this.#on.link.start({ argv, timeoutMs: 3_600_000 }, events);
    return { ended: command.exit, stop: () => command.kill() };
  }

  /** Writes a file inside. */
  async put(path: string, bytes: Uint8Array | string, mode = 0o644): Promise<void> {
    const script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"';
    await this.run(['sh', '-c', script, 'put', path, mode.toString(8)], { stdin: bytes, timeoutMs: 300_000 });
  }

  /** Copies a file or folder of this machine, links and modes kept, to a path inside, as root's. */
  copyIn(from: string, to: string): Promise<void> {
    return this.#sharing.run(async () => {
      const staged = join(this.#folder, 'share', 'copy');
      await new SystemExec().run('cp', ['--archive', from, staged], { timeoutMs: 120_000 });
      try {
        await this.run(['sh', '-c', copyScript, 'copy', to], { timeoutMs: 300_000 });
      } finally {
        await rm(staged, { recursive: true });
      }
    });
  }

  /** Plugs a USB disk in; returns the name to unplug it by. It stays plugged over a power cut. */
  async plugUsb(disk: UsbDisk): Promise<string> {
    const id = `usb${this.#ids++}`;
    await plugUsb(this.#on.qmp, id, disk);
    this.#usb.set(id, disk);
    return id;
  }

  /** Pulls a USB disk out, as a hand does: without asking the guest. */
  async unplugUsb(id: string): Promise<void> {
    this.#usb.delete(id);
    await unplugUsb(this.#on.qmp, id);
  }

  /** One HTTP exchange with the server on port 18088 of the guest's own loopback. */
  async http(path: string, call: HttpCall = {}): Promise<HttpAnswer> {
    return await httpOver(await this.apiSocket(), path, call);
  }

  /** A unix socket of this machine that leads to a server inside, for clients that keep a connection open. */
  async apiSocket(target: OpenRequest = apiTarget): Promise<string> {
    const name = 'port' in target ? String(target.port) : target.path.replaceAll('/', '-');
    const path = join(this.#folder, `api-${name}.sock`);
    if (this.#relays.has(name)) return path;
    const server = createServer({ allowHalfOpen: true }, (outside) => {
      const inside = this.#on.link.open(target);
      outside.on('error', () => inside.destroy());
      inside.on('error', () => outside.destroy());
      inside.once('close', () => outside.destroySoon());
      outside.pipe(inside);
      inside.pipe(outside);
    });
    this.#relays.set(name, server);
    await once(server.listen(path), 'listening');
    return path;
  }

  /** QEMU's control connection, for what has no method here. */
  get qmp(): Machine['qmp'] {
    return this.#on.qmp;
  }

  /** Writes the machine's state to a file and switches it off. */
  async save(path: string): Promise<void> {
    await this.run(['sync']);
    await this.#on.qmp.run('stop');
    await saveState(this.#on, path);
    await this.powerCut();
  }

  /** What the kernel and systemd said on the serial console. */
  serialLog(): Promise<string> {
    return readFile(join(this.#folder, 'serial.log'), 'utf8').catch(() => '');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#relays.values()) server.close();
    await this.#machine?.qemu.stop(0);
    await removeRunFolder(this.#folder);
  }

  get #on(): Machine {
    if (this.#machine === undefined) throw new Error('lab: the guest is off');
    return this.#machine;
  }

  #gone(machine: Machine): void {
    if (this.#machine === machine) this.#machine = undefined;
    this.#reset.reject(new Error('lab: the guest was switched off'));
    this.#reset = deferred();
  }

  #onReset(machine: Machine): void {
    machine.link.down('the guest was reset');
    this.#reset.resolve();
    this.#reset = deferred();
  }

  /** Waits for the end of systemd's boot; a failed unit is the test's business. */
  async #systemUp(): Promise<void> {
    const okCodes = [0, 1];
    await this.run(['systemctl', 'is-system-running', '--wait'], { timeoutMs: bootTimeoutMs, okCodes });
  }
}
