import { unescapeOctal } from '#host/mounts.ts';
import type { Volume } from '#storage/devices.ts';

/** A line of fstab(5) that names a local disk. */
export interface FstabEntry {
  readonly spec: string;
  readonly target: string;
  readonly fstype: string;
  /** Mounted at boot: neither `noauto` nor a swap, tmpfs or bind line. */
  readonly auto: boolean;
  readonly readOnly: boolean;
  /** As it stands there. */
  readonly line: string;
  matches(volume: Pick<Volume, 'uuid' | 'partUuid' | 'label' | 'device'>): boolean;
}

export function parseFstab(text: string): FstabEntry[] {
  const entries: FstabEntry[] = [];
  for (const line of text.split('\n')) {
    const [spec, target, fstype, options] = line.trim().split(/\s+/).map(unescapeOctal);
    if (spec === undefined || spec.startsWith('#') || target === undefined || fstype === undefined) continue;
    if (!target.startsWith('/') || !/^(UUID=|PARTUUID=|LABEL=|PARTLABEL=|\/dev\/)/.test(spec)) continue;
    const flags = (options ?? 'defaults').split(',');
    const auto = !flags.includes('noauto') && !flags.includes('bind');
    entries.push({
      spec,
      target: target.replace(/(.)\/+$/, '$1'),
      fstype,
      auto,
      readOnly: flags.findLast((flag) => flag === 'ro' || flag === 'rw') === 'ro',
      line,
      matches: (volume) => matches(spec, volume),
    });
  }
  return entries;
}

function matches(spec: string, volume: Pick<Volume, 'uuid' | 'partUuid' | 'label' | 'device'>): boolean {
  const [key, ...rest] = spec.split('=');
  const value = rest.join('=').replace(/^"(.*)"$/, '$1');
  const same = (a: string) => a !== '' && a.toLowerCase() === value.toLowerCase();
  if (key === 'UUID') return same(volume.uuid);
  if (key === 'PARTUUID') return same(volume.partUuid);
  if (key === 'LABEL') return volume.label !== '' && volume.label === value;
  if (key === 'PARTLABEL') return same(volume.device.properties?.['ID_PART_ENTRY_NAME'] ?? '');
  return spec === volume.device.node || volume.device.links.includes(spec);
}
