import { type FakeDisk, FakeMachine } from '#host/fake/machine.ts';
import { mountsContract } from '../../../tests/support/mounts-contract.ts';

const root = '/work';

function stick(n: number): FakeDisk {
  const volume = { fstype: 'ext4', uuid: `u${n}`, label: `STICK${n}`, files: new Map() };
  return { serial: `S${n}`, model: 'Acme', transport: 'usb', volumes: [volume] };
}

mountsContract(() => {
  const machine = new FakeMachine(['/', root]);
  const sticks = [stick(0), stick(1), stick(2)] as const;
  return {
    ...machine.ports(),
    root,
    plug: (n) => {
      machine.plug(sticks[n]);
      return machine.nodesOf(sticks[n])[0] ?? '';
    },
    unplug: (n) => machine.unplug(sticks[n]),
    makeFile: (path) => machine.makeForeign(path, 'file'),
    hold: (path) => {
      machine.busy.add(path);
      return () => machine.busy.delete(path);
    },
    link: (path, to) => void machine.links.set(path, to),
    fstab: (target, node) => {
      const device = machine
        .ports()
        .devices.list()
        .find((each) => each.node === node);
      machine.fstab.set(target, device?.properties?.['ID_FS_UUID'] ?? '');
    },
  };
});
