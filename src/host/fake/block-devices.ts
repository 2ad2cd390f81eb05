import type { BlockDevice } from '#host/udev.ts';

/** A disk in its port, under the name and the numbers that it has got there. */
export interface Plugged {
  readonly disk: {
    readonly serial: string;
    readonly model: string;
    readonly transport: 'usb' | 'sata';
    readonly volumes: readonly { readonly fstype: string; readonly uuid: string; readonly label: string }[];
    readonly writeProtected?: boolean;
  };
  readonly name: string;
  readonly index: number;
  readonly sequence: number;
}

/** What udev knows of it: the disk, and a partition for each of its volumes. */
export function devicesOf({ disk, name, index, sequence }: Plugged): BlockDevice[] {
  const bus = disk.transport === 'usb' ? 'usb1/1-1/1-1:1.0' : 'ata1';
  const sysPath = `/sys/devices/pci0000:00/0000:00:01.0/${bus}/host0/target0:0:0/0:0:0:0/block/${name}`;
  const common = {
    readOnly: disk.writeProtected === true,
    removable: disk.transport === 'usb',
    holders: [],
    slaves: [],
    sequence: String(sequence),
  };
  const serial = {
    ID_SERIAL: `${disk.model}_${disk.serial}`,
    ID_SERIAL_SHORT: disk.serial,
    ID_MODEL_ENC: disk.model,
  };
  const whole: BlockDevice = {
    ...common,
    name,
    node: `/dev/${name}`,
    dev: `8:${index * 16}`,
    sysPath,
    kind: 'disk',
    parent: undefined,
    size: 1 << 30,
    properties: { ...serial, ID_PART_TABLE_TYPE: 'gpt' },
    links: [],
  };
  const parts = disk.volumes.map((volume, n): BlockDevice => {
    const properties = {
      ...serial,
      ID_FS_USAGE: 'filesystem',
      ID_FS_TYPE: volume.fstype,
      ID_FS_UUID: volume.uuid,
      ID_FS_LABEL_ENC: volume.label,
    };
    const part = `${name}${n + 1}`;
    const dev = `8:${index * 16 + n + 1}`;
    return {
      ...whole,
      name: part,
      node: `/dev/${part}`,
      dev,
      sysPath: `${sysPath}/${part}`,
      kind: 'partition',
      parent: name,
      properties,
      links: [`/dev/disk/by-uuid/${volume.uuid}`],
    };
  });
  return [whole, ...parts];
}
