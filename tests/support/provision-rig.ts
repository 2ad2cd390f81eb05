import assert from 'node:assert/strict';
import type { Disks, Layout } from '#host/disks.ts';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import type { Checkpoint } from '#jobs/definition.ts';
import { isFault } from '#lib/fault.ts';
import { quickStore, rig, shareRoot } from './fake-storage.ts';

export const disk: FakeDisk = { serial: 'S1', model: 'Acme', transport: 'sata', volumes: [] };
export const wish = {
  disk: 'Acme_S1',
  filesystem: 'ext4',
  label: 'Vault',
  confirm: 'S1',
  wipe: true,
} as const;
export const volume = (uuid: string, label: string): FakeVolume => ({
  ...{ fstype: 'ext4', uuid, label, files: new Map() },
});

/** A provisioning of one disk, phase by phase, with doors to the disk that a test makes. */
export function world(plugged: FakeDisk, disks: (machine: FakeMachine) => Partial<Disks>) {
  const machine = new FakeMachine(['/', '/olares', shareRoot]);
  machine.plug(plugged);
  // What the job has written is on the disk, as far as a test does not say otherwise.
  const checkpoint: Record<string, unknown> = { layout: { tableUuid: 'T' }, boot: 'boot-1' };
  const probe = async () => ({ ID_PART_TABLE_UUID: (checkpoint['layout'] as Layout).tableUuid });
  const { storage } = rig({ machine, store: quickStore(), disks: { probe, ...disks(machine) } });
  const [check, partition, format, mount] = storage.provisioner.definition().phases(wish);
  assert.ok(check !== undefined && partition !== undefined && format !== undefined && mount !== undefined);
  const context = {
    ...{ jobId: '1', input: wish, signal: new AbortController().signal, checkpoint },
    remember: (patch: Checkpoint) => void Object.assign(checkpoint, patch),
    progress: () => undefined,
  };
  return { machine, storage, check, partition, format, mount, context };
}

/** Partitioning makes another disk of it. */
export const remade = (before: FakeDisk, after: FakeDisk) => (machine: FakeMachine) => ({
  partition: async () => {
    machine.unplug(before);
    machine.plug(after);
  },
});

export const targets = (machine: FakeMachine) => machine.entries().map((entry) => entry.target);

export const isCalled = (code: string, words: RegExp) => (error: unknown) =>
  isFault(error) && error.code === code && words.test(error.message);
