import { mkdtempSync, realpathSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemDisks } from '#host/disks.ts';
import { SystemExec } from '#host/exec.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import { Files } from '#host/files.ts';
import { SystemFolders } from '#host/folders.ts';
import { SystemMounts } from '#host/mounts.ts';
import type { Checkpoint, PhaseContext } from '#jobs/definition.ts';
import type { ProvisionInput } from '#storage/provision-checks.ts';
import type { Store } from '#store/store.ts';
import { quickStore, type Rig, type RigOptions, rig } from './fake-storage.ts';
import { LoopDevices } from './loop-disk.ts';

export interface ProvisionWorld extends Rig {
  readonly devices: LoopDevices;
  /** Devices that are swapped to. */
  readonly swaps: string[];
  readonly shareRoot: string;
  readonly store: Pick<Store, 'read' | 'commit'>;
}

/** Where what writes to disks is locked: in a folder of its own. */
export const disksLock = (): string => join(mkdtempSync(join(tmpdir(), 'beosd-lock-')), 'disks.lock');

/** Storage over loop disks, with the disks, mounts and folders of the machine. */
export function world(options: Partial<RigOptions> = {}): ProvisionWorld {
  const exec = new SystemExec();
  const files = new Files();
  const devices = new LoopDevices();
  const swaps: string[] = [];
  const shareRoot = join(realpathSync(mkdtempSync(join(tmpdir(), 'beosd-share-'))), 'share');
  const real = {
    devices,
    mounts: new SystemMounts(exec, files),
    folders: new SystemFolders(),
    disks: new SystemDisks(exec, files, disksLock()),
  };
  const store = options.store ?? quickStore();
  const daemon = rig({
    machine: new FakeMachine(),
    store,
    shareRoot,
    swaps: () => swaps,
    ...options,
    real: { ...real, ...options.real },
  });
  return { devices, swaps, shareRoot, store, ...daemon };
}

/** What is asked for; by default a wish for a blank disk. */
export const wish = (more: Partial<ProvisionInput> = {}): ProvisionInput => ({
  ...{ disk: 'Loop_S1', filesystem: 'ext4', label: 'Vault', confirm: 'S1', wipe: false },
  ...more,
});

/** One job as its phases see it. */
export function contextOf(
  input: ProvisionInput,
  kept: Checkpoint = {},
): PhaseContext<ProvisionInput> & { kept: Record<string, unknown> } {
  const checkpoint: Record<string, unknown> = { ...kept };
  return {
    ...{ jobId: 'job-1', input, checkpoint, kept: checkpoint, signal: new AbortController().signal },
    remember: (patch) => void Object.assign(checkpoint, patch),
    progress: () => undefined,
  };
}
