import type { Qmp, QmpEvent } from './qmp.ts';

/** A USB disk as the guest sees it. */
export interface UsbDisk {
  /** A raw image on this machine; the guest writes to it. */
  readonly image: string;
  /** What the USB device gives as its serial number. */
  readonly serial: string;
  /** The SCSI vendor (up to 8 characters) and product (up to 16); default QEMU's own. */
  readonly vendor?: string;
  readonly product?: string;
  readonly readOnly?: boolean;
  /** Speaks UAS instead of the older bulk-only protocol. */
  readonly uas?: boolean;
}

/** Plugs the disk into the guest's USB controller; returns when QEMU has done so, before the guest has seen it. */
export async function plugUsb(qmp: Qmp, id: string, disk: UsbDisk): Promise<void> {
  const file = { driver: 'file', filename: disk.image };
  const cache = { direct: false, 'no-flush': true };
  const readOnly = { 'read-only': disk.readOnly === true };
  await qmp.run('blockdev-add', { driver: 'raw', 'node-name': `${id}-disk`, file, cache, ...readOnly });
  const usb = { bus: 'xhci.0', id, serial: disk.serial };
  if (!disk.uas && disk.vendor === undefined && disk.product === undefined) {
    await qmp.run('device_add', { driver: 'usb-storage', drive: `${id}-disk`, removable: true, ...usb });
    return;
  }
  // A bridge with a disk behind it; bulk-only ones attach to the bus once the disk is there.
  const bridge = disk.uas ? { driver: 'usb-uas', ...usb } : { driver: 'usb-bot', attached: false, ...usb };
  await qmp.run('device_add', bridge);
  const { vendor, product } = disk;
  const names = { ...(vendor !== undefined && { vendor }), ...(product !== undefined && { product }) };
  const scsi = { driver: 'scsi-hd', bus: `${id}.0`, id: `${id}-scsi`, drive: `${id}-disk`, removable: true };
  await qmp.run('device_add', { ...scsi, ...names, serial: disk.serial });
  if (!disk.uas)
    await qmp.run('qom-set', { path: `/machine/peripheral/${id}`, property: 'attached', value: true });
}

/** Pulls the disk out; returns when QEMU has let go of its image. */
export async function unplugUsb(qmp: Qmp, id: string): Promise<void> {
  const gone = ({ event, data }: QmpEvent) => event === 'DEVICE_DELETED' && data?.['device'] === id;
  const deleted = qmp.event(gone, `the end of ${id}`);
  deleted.catch(() => undefined); // awaited below, unless the command itself fails
  await qmp.run('device_del', { id });
  await deleted;
  await qmp.run('blockdev-del', { 'node-name': `${id}-disk` });
}
