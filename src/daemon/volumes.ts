import type { Handlers } from '#api/operations.ts';
import type { Config } from '#daemon/config.ts';
import type { Core } from '#daemon/core.ts';
import { bootIdentity } from '#host/boot.ts';
import { SystemDisks } from '#host/disks.ts';
import type { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';
import { SystemMounts } from '#host/mounts.ts';
import { SystemNetworkTools } from '#host/network-tools.ts';
import { SystemProcesses } from '#host/processes.ts';
import { SystemSecrets } from '#host/sealing.ts';
import { memoryFolder } from '#host/secrets.ts';
import { UdevDevices } from '#host/udev.ts';
import type { JobDefinition, Jobs } from '#jobs/definition.ts';
import { causeChain } from '#lib/fault.ts';
import type { Observatory } from '#state/observatory.ts';
import { parseSwaps } from '#storage/blank.ts';
import { noOtherNodes, storageHandlers } from '#storage/handlers.ts';
import { type Ntfs3, ntfs3Of } from '#storage/options.ts';
import type { Machine, Surroundings } from '#storage/ports.ts';
import { ShareLists } from '#storage/share-lists.ts';
import { Storage } from '#storage/storage.ts';

/** What storage asks of others. */
export interface Neighbours {
  /** Name of the pod with this uid, as `namespace/name`; undefined: nobody knows it. */
  podName(uid: string): string | undefined;
}

/** Disks and shares of this machine, with the doors they need. */
export class Volumes {
  readonly definitions: readonly JobDefinition<never>[];
  readonly #storage: Storage;
  readonly #lists: ShareLists;
  readonly #secrets: SystemSecrets;
  readonly #nodeName: () => string;
  readonly #core: Core;

  constructor(options: Core, neighbours: Neighbours) {
    const { config, observatory } = options;
    this.#core = options;
    this.#nodeName = () => nodeName(config, observatory);
    this.#secrets = secretsOf(options);
    const machine = machineOf(options, this.#secrets);
    this.#storage = storageOf(options, machine, { ...neighbours, nodeName: this.#nodeName });
    this.#lists = new ShareLists(machine, this.#storage.registry);
    this.definitions = [this.#storage.provisioner.definition()];
  }

  handlers(jobs: Jobs): Pick<Handlers, keyof ReturnType<typeof storageHandlers>> {
    const { storage, lists, nodeName } = {
      storage: this.#storage,
      lists: this.#lists,
      nodeName: this.#nodeName,
    };
    return storageHandlers({ storage, lists, nodeName, jobs, others: noOtherNodes });
  }

  /** Begins to look; resolves when what was wanted at start has been tried. */
  async start(): Promise<void> {
    try {
      this.#secrets.sweep();
    } catch (error) {
      this.#core.onError('sweeping credentials', error); // no reason to leave the disks alone
    }
    await this.#storage.start();
  }

  /** The store can be read and written again. */
  recovered(): void {
    this.#storage.recovered();
  }

  async close(): Promise<void> {
    await this.#storage.close().catch((error: unknown) => this.#core.onError('closing storage', error));
  }
}

function nodeName(config: Config, observatory: Observatory): string {
  const { cluster, machine } = observatory.current.facts;
  if (config.nodeName !== undefined) return config.nodeName;
  if (cluster.known && cluster.value.node !== undefined) return cluster.value.node.name;
  return machine.known ? machine.value.hostName : '';
}

function secretsOf({ config, paths, exec, files }: Core): SystemSecrets {
  const memory = memoryFolder(config.sandbox ? [] : ['/run']);
  return new SystemSecrets(exec, files, {
    keyFile: config.sandbox ? `${paths.dataDir}/secret.key` : files.systemPath('/etc/beosd/secret.key'),
    runDir: memory === undefined ? `${paths.dataDir}/credentials` : `${memory}/beosd/credentials`,
    useSystemd: !config.sandbox,
  });
}

function machineOf({ paths, exec, files, clock }: Core, secrets: SystemSecrets): Machine {
  return {
    devices: new UdevDevices(exec, files),
    mounts: new SystemMounts(exec, files),
    folders: new SystemFolders(),
    disks: new SystemDisks(exec, files, `${paths.dataDir}/disks.lock`),
    processes: new SystemProcesses(exec, files),
    secrets,
    network: new SystemNetworkTools(exec),
    clock,
    fstab: () => files.readText('/etc/fstab'),
    ntfs3: () => findNtfs3(files),
  };
}

/** Built in or loaded: /proc/filesystems; else as a module that mount(8) loads. */
function findNtfs3(files: Files): Ntfs3 | undefined {
  const release = files.readText('/proc/sys/kernel/osrelease')?.trim() ?? '';
  const isThere =
    /\bntfs3$/m.test(files.readText('/proc/filesystems') ?? '') ||
    files.exists(`/lib/modules/${release}/kernel/fs/ntfs3`);
  return isThere ? ntfs3Of(release) : undefined;
}

const target = 'beosd-mounts.target';
const unitFolders = ['/etc/systemd/system', '/usr/local/lib/systemd/system', '/usr/lib/systemd/system'];

/** Units that are wanted by the target start now: packaging/beosd-mounts.target. */
function reachTarget({ config, exec, files, log }: Core): void {
  if (config.sandbox || !unitFolders.some((folder) => files.exists(`${folder}/${target}`))) return;
  exec
    .run('systemctl', ['start', '--no-block', target])
    .catch((error: unknown) => log.warn({ cause: causeChain(error) }, `${target} could not be started`));
}

function storageOf(
  options: Core,
  machine: Machine,
  names: Pick<Surroundings, 'podName' | 'nodeName'>,
): Storage {
  const { config, profile, paths, files, store, observatory, events, log } = options;
  const shareRootAs = config.sandbox ? `${paths.dataDir}/share` : files.systemPath(profile.shareRoot);
  const shareRoot = files.leadsTo(shareRootAs);
  const system = ['/', '/boot', '/boot/efi', '/usr', '/var', shareRoot, files.leadsTo(paths.dataDir)];
  return new Storage({
    machine,
    store,
    settings: {
      shareRoot,
      shareRootAs,
      protectedNames: profile.protectedShares,
      systemPaths: system,
      bootId: bootIdentity(),
      owner: profile.podUser,
      mayAct: !config.sandbox,
    },
    around: {
      report: (problems) => {
        const { reported } = observatory.current.facts;
        observatory.update({ reported: { ...reported, storage: problems } });
      },
      emit: (data) => void events.publish('mount', data),
      log: (message, data) => log.info(data, message),
      ...names,
      mountsReady: () => {
        observatory.update({ mountsTried: true });
        reachTarget(options);
      },
    },
    swaps: () => parseSwaps(files.readText('/proc/swaps') ?? ''),
  });
}
