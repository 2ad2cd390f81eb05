import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemExec } from '#host/exec.ts';
import { type Child, startChild } from './child.ts';
import { within } from './deadline.ts';
import type { GuestImage } from './image.ts';
import { AgentLink } from './link.ts';
import { Qmp, type QmpEvent } from './qmp.ts';

/** A disk on the guest's SATA controller; there from the start, as SATA hot-plug is more than QEMU can do. */
export interface SataDisk {
  readonly image: string;
  readonly serial: string;
  /** A file, made by `makeWriteLog`, that keeps each write and flush of the disk, for `loseCache`. */
  readonly log?: string;
}

export interface MachineConfig {
  readonly image: GuestImage;
  /** The qcow2 layer that takes this machine's writes. */
  readonly layer: string;
  readonly folder: string;
  readonly memoryMiB: number;
  readonly sata: readonly SataDisk[];
  /** A saved state to go on from, instead of booting. */
  readonly state?: string | undefined;
}

/** One run of QEMU, from power on to power off. It is paused until `qmp.run('cont')`. */
export interface Machine {
  readonly qemu: Child;
  readonly qmp: Qmp;
  readonly link: AgentLink;
}

const kernelArguments = [
  ...[
    'root=/dev/vda',
    'rw',
    'console=ttyS0',
    'net.ifnames=0',
    'quiet',
    'systemd.show_status=0',
    'mitigations=off',
  ],
  ...['nokaslr', 'tsc=reliable', 'audit=0', 'panic=-1'],
].join(' ');

/** Makes an empty layer over a disk; nothing is ever written below it. */
export async function makeLayer(layer: string, below: string, format: 'raw' | 'qcow2'): Promise<void> {
  await new SystemExec().run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', format, '-b', below, layer]);
}

/** Starts QEMU and takes its two connections. */
export async function startMachine(config: MachineConfig): Promise<Machine> {
  // Short, wherever the cache is: the path of a unix socket has at most 107 bytes.
  const sockets = await mkdtemp(join(tmpdir(), 'beosd-lab-'));
  const log = join(config.folder, 'qemu.log');
  try {
    const [qmpCall, agentCall] = await Promise.all([
      caller(join(sockets, 'qmp')),
      caller(join(sockets, 'agent')),
    ]);
    const qemu = await startChild(qemuArguments(config, sockets), log);
    try {
      const early = qemu.ended.then(async () => {
        throw new Error(`lab: QEMU ended: ${(await readFile(log, 'utf8')).slice(-1000)}`);
      });
      const both = Promise.race([Promise.all([qmpCall.socket, agentCall.socket]), early]);
      const [qmpSocket, agentSocket] = await within(30_000, 'the start of QEMU', both);
      early.catch(() => undefined);
      const qmp = new Qmp(qmpSocket);
      await qmp.run('qmp_capabilities');
      if (config.state !== undefined) await migrate(qmp, 'migrate-incoming', `exec:cat '${config.state}'`);
      return { qemu, qmp, link: new AgentLink(agentSocket) };
    } catch (error) {
      await qemu.stop(0);
      throw error;
    } finally {
      qmpCall.close();
      agentCall.close();
    }
  } finally {
    await rm(sockets, { recursive: true });
  }
}

/** Writes the state of the paused machine, memory and devices, to a file; the disk's is in its layer. */
export async function saveState(machine: Machine, path: string): Promise<void> {
  await machine.qmp.run('migrate-set-parameters', { 'max-bandwidth': 8 * 1024 ** 3 });
  await migrate(machine.qmp, 'migrate', `exec:cat > '${path}'`);
}

async function migrate(qmp: Qmp, command: 'migrate' | 'migrate-incoming', uri: string): Promise<void> {
  await qmp.run('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
  const over = ({ event, data }: QmpEvent) =>
    event === 'MIGRATION' && ['completed', 'failed'].includes(String(data?.['status']));
  const done = qmp.event(over, `the end of ${command}`, 120_000);
  done.catch(() => undefined); // awaited below, unless the command itself fails
  await qmp.run(command, { uri });
  if ((await done).data?.['status'] !== 'completed') throw new Error(`lab: ${command} failed`);
}

/** Listens for the one connection that QEMU makes. */
async function caller(path: string): Promise<{ readonly socket: Promise<Socket>; close(): void }> {
  const server = createServer().listen(path);
  await once(server, 'listening');
  const socket = once(server, 'connection').then(([connected]) => connected as Socket);
  socket.catch(() => undefined);
  return { socket, close: () => server.close() };
}

function qemuArguments(config: MachineConfig, sockets: string): string[] {
  const { image, layer, folder } = config;
  return [
    ...[
      'qemu-system-x86_64',
      '-M',
      'q35,usb=off,vmport=off',
      '-accel',
      'tcg,thread=multi,tb-size=256',
      '-smp',
      '2',
    ],
    ...['-cpu', 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16', '-m', String(config.memoryMiB), '-nodefaults'],
    ...['-display', 'none', '-no-user-config', '-nic', 'none', '-S', '-kernel', image.kernel],
    ...['-initrd', image.initrd, '-append', kernelArguments],
    ...['-drive', `file=${layer},if=none,id=root,format=qcow2,cache=unsafe,discard=unmap`],
    ...['-device', 'virtio-blk-pci,drive=root', '-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci'],
    ...[
      '-chardev',
      `socket,id=agent,path=${sockets}/agent`,
      '-device',
      'virtserialport,chardev=agent,name=lab.agent',
    ],
    ...['-device', 'qemu-xhci,id=xhci,p2=8,p3=8', '-serial', `file:${join(folder, 'serial.log')}`],
    ...['-chardev', `socket,id=qmp,path=${sockets}/qmp`, '-mon', 'chardev=qmp,mode=control'],
    ...['-virtfs', `local,path=${join(folder, 'share')},mount_tag=lab,security_model=none,readonly=on`],
    ...config.sata.flatMap(sataArguments),
    ...(config.state === undefined ? [] : ['-incoming', 'defer']),
  ];
}

/** Three of q35's six ports are enough: the built-in controller numbers them ide.0 to ide.5. */
function sataArguments({ image, serial, log }: SataDisk, at: number): string[] {
  const logged = `driver=blklogwrites,file.driver=file,file.filename=${image},log.driver=file,log.filename=${log}`;
  const plain = `file=${image},format=raw`;
  const drive = `if=none,id=sata${at},cache=writeback,${log === undefined ? plain : logged}`;
  return ['-drive', drive, '-device', `ide-hd,bus=ide.${at},drive=sata${at},serial=${serial}`];
}
