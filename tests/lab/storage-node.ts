import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Job } from '#api/shapes.ts';
import type { Disk, MountedPath } from '#api/storage.ts';
import { bootGuest, type Guest } from './guest.ts';
import type { SataDisk } from './machine.ts';
import { type BeosNode, startNode } from './node.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const units = '/etc/systemd/system';

/** The daemon's unit as packaging/ ships it; only the program is elsewhere. */
const unit = readFileSync(`${root}packaging/beosd.service`, 'utf8');
const ownProgram = '[Service]\nExecStart=\nExecStart=/usr/bin/env node /opt/beosd/beosd.cjs --system\n';

/** A neighbour at the other end of a link: with it the machine counts as connected, and somebody can claim it. */
const phone = `[Unit]
Before=beosd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip netns add phone
ExecStart=ip link add lan0 type veth peer name lan0 netns phone
ExecStart=ip address add 10.77.0.1/24 dev lan0
ExecStart=ip link set lan0 up
ExecStart=ip -netns phone address add 10.77.0.2/24 dev lan0
ExecStart=ip -netns phone link set lan0 up
[Install]
WantedBy=multi-user.target
`;

/** A guest that starts the daemon at boot, in the surroundings that it is shipped for. */
export const shippedUnit = {
  recipe: { unit, ownProgram },
  async setUp(vm: Guest) {
    await vm.put(`${units}/beosd.service`, unit);
    await vm.put(`${units}/beosd.service.d/lab.conf`, ownProgram);
    await vm.run(['systemctl', 'daemon-reload']);
    await vm.run(['systemctl', 'enable', 'beosd']);
  },
};

const prepare = {
  recipe: { unit, ownProgram, phone },
  async setUp(vm: Guest) {
    await vm.put(`${units}/phone.service`, phone);
    await shippedUnit.setUp(vm);
    await vm.run(['systemctl', 'enable', '--now', 'phone']);
  },
};

/** A guest with the daemon installed and not yet started; `sata` makes it a cold boot. */
export async function bootStorageGuest(sata: readonly SataDisk[] = []): Promise<Guest> {
  const cold = sata.length > 0;
  const vm = await bootGuest(cold ? { sata } : { prepare });
  try {
    if (cold) await prepare.setUp(vm);
    await bringDaemon(vm);
    return vm;
  } catch (error) {
    await vm[Symbol.asyncDispose]();
    throw error;
  }
}

/** Copies the bundle to where the unit of the lab expects it. */
export async function bringDaemon(vm: Guest): Promise<void> {
  await vm.copyIn(await realpath(`${root}dist/beosd.cjs`), '/opt/beosd/beosd.cjs');
}

/** Such a guest with the daemon serving. */
export async function bootStorageNode(): Promise<BeosNode> {
  return await startNode(await bootStorageGuest());
}

/**
 * Looks until something is there; what is awaited is a fact behind an API that may be down for a moment. Under emulation
 * a look costs what the daemon needs to get there, hence the pause.
 */
export async function eventually<T>(
  what: string,
  timeoutMs: number,
  look: () => Promise<T | undefined>,
): Promise<T> {
  const began = performance.now();
  for (;;) {
    let last: unknown;
    const found = await look().catch((error: unknown) => {
      last = error;
      return undefined;
    });
    if (found !== undefined) return found;
    assert.ok(performance.now() - began < timeoutMs, `${what} within ${timeoutMs} ms: ${String(last)}`);
    await setTimeout(200);
  }
}

export async function disksOf(node: BeosNode): Promise<readonly Disk[]> {
  const { status, data, message } = await node.call('GET', '/storage/disks');
  assert.equal(status, 200, message);
  return data as readonly Disk[];
}

/** The disk with this serial number, once the node has it. */
export async function diskOf(node: BeosNode, serial: string, timeoutMs = 60_000): Promise<Disk> {
  return await eventually(`disk ${serial}`, timeoutMs, async () =>
    (await disksOf(node)).find((disk) => disk.serial === serial),
  );
}

/** The job once it has ended, also when the daemon was killed meanwhile. */
export async function ended(node: BeosNode, id: string, timeoutMs = 180_000): Promise<Job> {
  return await eventually(`the end of job ${id}`, timeoutMs, async () => {
    const job = (await node.call('GET', `/jobs/${id}`)).data as Job;
    return job.finishedAt === null ? undefined : job;
  });
}

/** Where the file system of the disk with this serial number is mounted. */
export function mountOf(paths: readonly MountedPath[], serial: string): MountedPath | undefined {
  return paths.find((each) => each.id_serial_short === serial);
}

/** The kernel's mount table in the guest. */
export async function mountTable(vm: Guest): Promise<string> {
  return (await vm.run(['cat', '/proc/1/mountinfo'])).stdout;
}
