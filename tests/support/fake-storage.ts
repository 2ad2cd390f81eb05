import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Disks } from '#host/disks.ts';
import { ExecError } from '#host/exec.ts';
import { FakeClock } from '#host/fake/clock.ts';
import type { FakeMachine } from '#host/fake/machine.ts';
import { FakeSecrets } from '#host/fake/secrets.ts';
import type { Processes } from '#host/processes.ts';
import type { Machine, NetworkTools, Problem } from '#storage/ports.ts';
import { Storage } from '#storage/storage.ts';
import { Store } from '#store/store.ts';

export const shareRoot = '/olares/share';

const idle: Disks = {
  signatures: async () => [],
  probe: async () => ({}),
  endsAreZero: async () => true,
  claim: async () => ({ release: async () => undefined }),
  hold: async () => ({ release: async () => undefined }),
  forgetPartitions: async () => undefined,
  recallPartitions: async () => undefined,
  wipe: async () => undefined,
  missing: () => [],
  partition: async () => undefined,
  format: async () => undefined,
  give: async () => undefined,
  settle: async () => undefined,
  quiet: async () => undefined,
  health: async () => undefined,
  powerDown: async () => false,
};

const nobody: Processes = { holders: async () => [], namespacesWith: async () => [] };

export interface Rig {
  readonly storage: Storage;
  readonly clock: FakeClock;
  readonly secrets: FakeSecrets;
  readonly events: Record<string, unknown>[];
  readonly problems: () => readonly Problem[];
  /** How often it was said that every mount has been tried. */
  readonly ready: () => number;
  readonly ports: Machine;
}

export interface RigOptions {
  readonly machine: FakeMachine;
  readonly store: Pick<Store, 'read' | 'commit'>;
  readonly bootId?: string;
  /** Runs before each touch of the machine, and may throw. */
  readonly guard?: (call: string) => void;
  readonly network?: Partial<NetworkTools>;
  readonly disks?: Partial<Disks>;
  readonly processes?: Partial<Processes>;
  readonly swaps?: () => readonly string[];
  /** Doors that are real in this test. */
  readonly real?: Partial<Machine>;
  readonly shareRoot?: string;
  readonly shareRootAs?: string;
  /** False: as in a sandbox. */
  readonly mayAct?: boolean;
}

/** A storage daemon on a machine that exists only in memory. */
export function rig(options: RigOptions): Rig {
  const { machine: fake, guard = () => undefined } = options;
  const clock = new FakeClock();
  const secrets = new FakeSecrets();
  const events: Record<string, unknown>[] = [];
  let problems: readonly Problem[] = [];
  let ready = 0;
  const machine: Machine = {
    ...fake.ports(guard),
    disks: { ...idle, ...options.disks },
    processes: { ...nobody, ...options.processes },
    secrets,
    network: {
      answers: async (host) => fake.servers.has(host),
      smbShares: async () => '',
      smbEnter: async (server, _, path) => enter(fake, server, path),
      nfsExports: async () => '',
      ...options.network,
    },
    clock,
    fstab: () =>
      [...fake.fstab].map(([target, uuid]) => `UUID=${uuid} ${target} ext4 defaults 0 2`).join('\n'),
    ntfs3: () => undefined,
    ...options.real,
  };
  const storage = new Storage({
    machine,
    store: {
      read: (work) => {
        guard('read');
        return options.store.read(work);
      },
      commit: (work) => {
        guard('commit');
        const result = options.store.commit(work);
        guard('commit done');
        return result;
      },
    },
    settings: {
      shareRoot: options.shareRoot ?? shareRoot,
      shareRootAs: options.shareRootAs ?? options.shareRoot ?? shareRoot,
      protectedNames: ['ai'],
      systemPaths: ['/', options.shareRoot ?? shareRoot],
      bootId: options.bootId ?? 'boot-1',
      owner: { uid: 1000, gid: 1000 },
      mayAct: options.mayAct ?? true,
    },
    around: {
      report: (now) => {
        problems = now;
      },
      emit: (data) => {
        events.push({ ...data });
      },
      log: () => undefined,
      podName: (uid) => `pod of ${uid}`,
      nodeName: () => 'node-1',
      mountsReady: () => {
        ready++;
      },
    },
    swaps: options.swaps ?? (() => []),
  });
  return { storage, clock, secrets, events, problems: () => problems, ready: () => ready, ports: machine };
}

/** As smbclient does: only a server that is there opens a share, one that it has, and one that it refuses to nobody. */
function enter({ servers, shares }: FakeMachine, server: string, path: string): void {
  const share = shares.get(`//${server}/${path}`);
  const words = !servers.has(server)
    ? `do_connect: Connection to ${server} failed (Error NT_STATUS_CONNECTION_REFUSED)`
    : share === undefined
      ? 'tree connect failed: NT_STATUS_BAD_NETWORK_NAME'
      : share.broken && 'tree connect failed: NT_STATUS_ACCESS_DENIED';
  if (words === undefined) return;
  const how = { file: 'smbclient', args: [], reason: 'exit', exitCode: 1, stdout: '' } as const;
  throw new ExecError({ ...how, stderr: words });
}

/** A store in memory-backed files: what is tested is what is written when, not how long a disk takes. */
export function quickStore(): Store {
  if (process.listenerCount('exit', removeStores) === 0) process.on('exit', removeStores);
  return new Store(mkdtempSync(join(quickDisk(), stores)), Date.now);
}

const quickDisk = () => (existsSync('/dev/shm') ? '/dev/shm' : tmpdir());

/** Names of our own: pids are the same in each namespace. */
const stores = `beosd-storage-${randomUUID()}-`;

/** It is memory, and in a container 64 MiB of it: a few runs of the tests would leave no room. */
function removeStores(): void {
  for (const name of readdirSync(quickDisk()).filter((each) => each.startsWith(stores)))
    rmSync(join(quickDisk(), name), { recursive: true, force: true });
}
