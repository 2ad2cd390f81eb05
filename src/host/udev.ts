import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { errnoOf } from '#lib/fault.ts';

/** A block device as sysfs and the udev database show it. */
export interface BlockDevice {
  readonly name: string;
  readonly node: string;
  /** `major:minor`. */
  readonly dev: string;
  /** Where it hangs in the device tree, e.g. /sys/devices/pci0000:00/…/usb2/2-1/…/block/sda. */
  readonly sysPath: string;
  readonly kind: 'disk' | 'partition';
  /** Name of the disk that a partition lies on. */
  readonly parent: string | undefined;
  readonly size: number;
  readonly readOnly: boolean;
  readonly removable: boolean;
  /** Names of devices that are built on this one (dm, md, bcache). */
  readonly holders: readonly string[];
  /** Names of devices that this one is built on. */
  readonly slaves: readonly string[];
  /** Grows with every device that appears (kernel ≥ 5.15); "" before. A replugged disk has another one. */
  readonly sequence: string;
  /** udev's properties (`ID_FS_TYPE`, …); undefined while udev has not finished with the device. */
  readonly properties: Readonly<Record<string, string>> | undefined;
  /** Its other names, `/dev/disk/by-uuid/…`, `/dev/mapper/…`; none while udev has not finished with it. */
  readonly links: readonly string[];
}

export interface Watch {
  close(): void;
}

/** The disks of the machine. Events only say that it is worth looking again. */
export interface Devices {
  /** @throws Error when it cannot be told which there are */
  list(): BlockDevice[];
  /**
   * `onChange` after udev has handled a block event, with the `sysPath` of its device (undefined: any may have changed);
   * `onLost` when the listener ended (once).
   */
  watch(onChange: (sysPath?: string) => void, onLost: (reason: string) => void): Watch;
}

interface Places {
  readonly sys: string;
  readonly run: string;
}

export class UdevDevices implements Devices {
  readonly #exec: Exec;
  readonly #files: Files;
  readonly #places: Places;

  constructor(exec: Exec, files: Files, places: Places = { sys: '/sys', run: '/run/udev' }) {
    this.#exec = exec;
    this.#files = files;
    this.#places = places;
  }

  list(): BlockDevice[] {
    const folder = `${this.#places.sys}/class/block`;
    // A kernel without disks has it too. To take its absence for "no disks" would detach all that are mounted.
    if (!this.#files.exists(folder)) throw new Error(`${folder} is not there`);
    const devices: BlockDevice[] = [];
    for (const name of this.#files.list(folder)) {
      const device = this.#read(name);
      if (device !== undefined) devices.push(device);
    }
    return devices;
  }

  watch(onChange: (sysPath?: string) => void, onLost: (reason: string) => void): Watch {
    let stopped = false;
    const args = ['monitor', '--udev', '--property', '--subsystem-match=block'];
    const child = this.#exec.lines('udevadm', args, (line) => {
      if (line.startsWith('UDEV ')) onChange(placeOf(line));
    });
    const reason =
      child.pid === undefined ? 'there is no udevadm that could be started' : 'udevadm monitor ended';
    void child.ended.then(() => (stopped ? undefined : onLost(reason)));
    return {
      close: () => {
        stopped = true;
        child.stop();
      },
    };
  }

  /** undefined: it went away while it was read. A file of sysfs that is open by then answers ENODEV. */
  #read(name: string): BlockDevice | undefined {
    try {
      return this.#readWhole(name);
    } catch (error) {
      if (errnoOf(error) === 'ENODEV') return undefined;
      throw error;
    }
  }

  #readWhole(name: string): BlockDevice | undefined {
    const sysPath = this.#files.realPath(`${this.#places.sys}/class/block/${name}`);
    if (sysPath === undefined) return undefined;
    const attribute = (path: string) => this.#files.readText(`${sysPath}/${path}`)?.trim() ?? '';
    const dev = attribute('dev');
    if (dev === '') return undefined;
    const partition = attribute('partition') !== '';
    const parent = partition ? sysPath.split('/').at(-2) : undefined;
    const disk = partition ? '../' : '';
    const data = parseUdevData(this.#files.readText(`${this.#places.run}/data/b${dev}`));
    return {
      name,
      // sysfs writes the slash of names such as cciss/c0d0 as an exclamation mark.
      node: `/dev/${name.replaceAll('!', '/')}`,
      dev,
      sysPath,
      kind: partition ? 'partition' : 'disk',
      parent,
      size: Number(attribute('size')) * 512, // always 512-byte units, whatever the device's own
      readOnly: attribute('ro') === '1' || (partition && attribute('../ro') === '1'),
      removable: attribute(`${disk}removable`) === '1',
      holders: this.#files.list(`${sysPath}/holders`),
      slaves: this.#files.list(`${sysPath}/slaves`),
      sequence: attribute(`${disk}diskseq`),
      properties: data?.properties,
      links: data?.links ?? [],
    };
  }
}

/** `UDEV  [12.3] add /devices/…/block/sda (block)`: where in sysfs that is. */
function placeOf(line: string): string | undefined {
  const path = /\s(\/devices\/.+) \(block\)$/.exec(line)?.[1];
  return path === undefined ? undefined : `/sys${path}`;
}

/**
 * A file of /run/udev/data: `E:KEY=value` for a property, `S:disk/by-uuid/…` for a link below /dev. DEVLINKS is not
 * among the properties there: udevadm makes it of the links when it is asked. Undefined: there is no file.
 */
export function parseUdevData(
  text: string | undefined,
): { readonly properties: Record<string, string>; readonly links: string[] } | undefined {
  if (text === undefined) return undefined;
  const properties: Record<string, string> = {};
  const links: string[] = [];
  for (const line of text.split('\n')) {
    const equals = line.indexOf('=');
    if (line.startsWith('E:') && equals > 2) properties[line.slice(2, equals)] = line.slice(equals + 1);
    if (line.startsWith('S:')) links.push(`/dev/${line.slice(2)}`);
  }
  return { properties, links };
}

/** `\x20` and the like in the properties that end in _ENC. */
export function decodeUdev(text: string): string {
  const bytes: Buffer[] = [];
  for (const part of text.split(/(\\x[0-9a-fA-F]{2})/)) {
    const hex = /^\\x([0-9a-fA-F]{2})$/.exec(part)?.[1];
    bytes.push(hex === undefined ? Buffer.from(part) : Buffer.from(hex, 'hex'));
  }
  return Buffer.concat(bytes).toString('utf8');
}
