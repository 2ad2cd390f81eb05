import type { Clock } from '#host/clock.ts';
import type { Files } from '#host/files.ts';
import { messageOf } from '#lib/fault.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import { notObserved } from '#state/derive.ts';
import type { MachineFacts } from '#state/facts.ts';
import { cpuName, gpuName, osRelease, productName } from '#system/hardware.ts';

export interface MachineOptions {
  readonly files: Files;
  readonly clock: Clock;
  /** Where the installer keeps the name of the box. */
  readonly machineInfoPath?: string;
  /** What the box is called when nothing else is known. */
  readonly defaultDeviceName: string;
  /** Prefix of every path, for a test's recorded machine. */
  readonly root?: string;
  readonly onFacts: (facts: Observed<MachineFacts>) => void;
}

const source = 'machine';
/** The kernel computes the start of the boot from a clock that is being slewed: less than this is no other boot. */
const jitterMs = 5000;
/** USER_HZ, 100 on every architecture that we run on (proc(5)). */
const ticksPerSecond = 100;

/** What this machine is, from /proc, /sys, os-release and DMI; no child process. */
export class Machine {
  readonly #options: MachineOptions;
  #fact: Observed<MachineFacts>;

  constructor(options: MachineOptions) {
    this.#options = options;
    this.#fact = unknown(source, options.clock.now(), notObserved);
  }

  start(): void {
    this.resync();
  }

  /** Nothing to stop: it keeps neither timer nor watch. */
  stop(): void {
    this.#fact = unknown(source, this.#options.clock.now(), notObserved);
  }

  resync(): void {
    const { clock, onFacts } = this.#options;
    try {
      const facts = readMachine(this.#options);
      const before = this.#fact.known ? this.#fact.value.bootedAt : undefined;
      const isSame = before !== undefined && Math.abs(before - facts.bootedAt) < jitterMs;
      this.#fact = known(isSame ? { ...facts, bootedAt: before } : facts, source, clock.now());
    } catch (error) {
      this.#fact = failed(this.#fact, source, clock.now(), messageOf(error));
    }
    onFacts(this.#fact);
  }
}

function readMachine(options: MachineOptions): MachineFacts {
  const { files } = options;
  const at = (path: string) => `${options.root ?? ''}${path}`;
  const read = (path: string) => readQuietly(files, at(path));
  const release = osRelease(read('/etc/os-release') ?? read('/usr/lib/os-release') ?? '');
  const deviceName = read(options.machineInfoPath ?? '/etc/machine.info') ?? productName(read);
  const boot = bootOf(read);
  return {
    hostName: read('/proc/sys/kernel/hostname') ?? '',
    deviceName: deviceName ?? options.defaultDeviceName,
    osType: 'linux',
    osArch: architecture(process.arch),
    osInfo: release.name,
    osVersion: release.version,
    kernel: read('/proc/sys/kernel/osrelease') ?? '',
    cpu: cpuName(read('/proc/cpuinfo') ?? '', read('/proc/device-tree/model')),
    gpu: gpuName(files, at('')),
    memoryBytes: memoryBytes(read('/proc/meminfo') ?? ''),
    diskBytes: files.fileSystem(at('/')).totalBytes,
    ...boot,
  };
}

/** Trimmed text, undefined when empty, absent or unreadable: one odd file does not hide the machine. */
function readQuietly(files: Files, path: string): string | undefined {
  try {
    const text = files.readText(path)?.replaceAll('\0', '').trim();
    return text === '' ? undefined : text;
  } catch {
    return undefined;
  }
}

/** The names that clients know, which are Go's. */
function architecture(arch: string): string {
  return arch === 'x64' ? 'amd64' : arch;
}

function memoryBytes(meminfo: string): number {
  return Number(/^MemTotal:\s+(\d+) kB/m.exec(meminfo)?.[1] ?? 0) * 1024;
}

/** The identity of this boot, as `bootIdentity` (host/boot.ts) makes it for what is kept over a restart. */
function bootOf(read: (path: string) => string | undefined): Pick<MachineFacts, 'bootId' | 'bootedAt'> {
  const kernelId = read('/proc/sys/kernel/random/boot_id') ?? 'unknown';
  const ticks = startTicks(read('/proc/1/stat') ?? '') ?? 0;
  const bootSeconds = Number(/^btime (\d+)/m.exec(read('/proc/stat') ?? '')?.[1] ?? Number.NaN);
  if (Number.isNaN(bootSeconds)) throw new Error('/proc/stat does not tell when the machine started');
  return { bootId: `${kernelId}-${ticks}`, bootedAt: bootSeconds * 1000 + (ticks * 1000) / ticksPerSecond };
}

/** Start time in clock ticks since boot: field 22 of /proc/PID/stat; the name in field 2 may hold spaces and brackets. */
export function startTicks(stat: string): number | undefined {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[19] ?? Number.NaN);
  return Number.isFinite(ticks) ? ticks : undefined;
}
