import { ExecError } from '#host/exec.ts';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import type { MountEntry, Mounts } from '#host/mounts.ts';
import type { BlockDevice } from '#host/udev.ts';
import { quickStore, rig, shareRoot } from './fake-storage.ts';

export const volume = (label: string, fstype = 'ext4'): FakeVolume => ({
  ...{ fstype, uuid: `u-${label}`, label, files: new Map() },
});
export const disk = (serial: string, ...volumes: FakeVolume[]): FakeDisk => ({
  ...{ serial, model: 'Acme', transport: 'sata', volumes },
});
export const member = volume('PV', 'LVM2_member');

/** A device of LVM or LUKS on sda1. */
export const mapped = (n: number, name: string, fstype = 'ext4'): BlockDevice => ({
  ...{
    name: `dm-${n}`,
    node: `/dev/dm-${n}`,
    dev: `253:${n}`,
    kind: 'disk',
    parent: undefined,
    size: 1 << 29,
  },
  ...{ sysPath: `/sys/devices/virtual/block/dm-${n}`, readOnly: false, removable: false, holders: [] },
  ...{ slaves: ['sda1'], sequence: `dm${n}`, links: [`/dev/mapper/${name}`] },
  properties: { DM_NAME: name, ID_FS_USAGE: 'filesystem', ID_FS_TYPE: fstype, ID_FS_UUID: `u-${name}` },
});

export interface Options {
  readonly disks?: readonly FakeDisk[];
  readonly built?: () => readonly BlockDevice[];
  readonly refuses?: boolean;
  /** What is mounted is a btrfs, which has no device number of a disk. */
  readonly isPool?: boolean;
}

/** A machine with a free text of fstab, devices that are built on others, and mounts of those. */
export function world(
  fstab: () => string,
  { disks = [], built = () => [], refuses = false, isPool = false }: Options = {},
) {
  const places = [...fstab().matchAll(/ (\/\S+) /g)].map(([, target = '']) => target);
  const machine = new FakeMachine(['/', '/olares', shareRoot, '/media/a', '/media/a/b', ...places]);
  for (const each of [...disks, disk('S9')]) machine.plug(each);
  const ports = machine.ports();
  const did: string[] = [];
  let others: MountEntry[] = [];
  const add = (entry: Pick<MountEntry, 'source' | 'target' | 'dev' | 'fstype'>) => {
    const id = 500 + did.length + others.length;
    others.push({
      ...{ id, parent: 1, root: '/', options: ['rw'], propagation: [], superOptions: ['rw'] },
      ...entry,
    });
  };
  const mounts: Mounts = {
    ...ports.mounts,
    list: () => [...machine.entries(), ...others],
    mountFstab: async (request) => {
      did.push(
        [
          'mount',
          request.source,
          request.target,
          ...(request.options.length > 0 ? [request.options.join()] : []),
        ].join(' '),
      );
      if (refuses)
        throw new ExecError({
          file: 'mount',
          args: [],
          reason: 'exit',
          exitCode: 32,
          stdout: '',
          stderr: 'no',
        });
      const device = built().find(
        ({ properties }) => `/dev/mapper/${properties?.['DM_NAME']}` === request.source,
      );
      const fstype = isPool ? 'btrfs' : (device?.properties?.['ID_FS_TYPE'] ?? '');
      const dev = fstype === 'btrfs' ? '0:77' : (device?.dev ?? '');
      if (device === undefined && !isPool) machine.mountForeign(request.source, request.target);
      else add({ source: request.source, target: request.target, dev, fstype });
    },
    umount: async (target, how) => {
      did.push(`umount ${target}`);
      const isOthers = others.some((entry) => entry.target === target);
      if (!isOthers) await ports.mounts.umount(target, how);
      others = others.filter((entry) => entry.target !== target);
    },
  };
  const devices = { ...ports.devices, list: () => [...ports.devices.list(), ...built()] };
  const store = quickStore();
  const drop = (target: string) => {
    others = others.filter((entry) => entry.target !== target);
  };
  return {
    machine,
    did,
    add,
    drop,
    store,
    ...rig({ machine, store, real: { fstab, mounts, devices } }),
  };
}

export const targetsOf = (machine: FakeMachine) =>
  machine
    .entries()
    .map(({ source, target }) => `${source} ${target}`)
    .slice(1);
export const reasons = async ({ storage }: ReturnType<typeof rig>) =>
  (await storage.disks())
    .flatMap((each) => each.volumes.map((one) => one.notMountedBecause))
    .filter((why) => why !== '');
export async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await new Promise((resolve) => setImmediate(resolve));
}
