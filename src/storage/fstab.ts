import { posix } from 'node:path';
import { type MountEntry, topmostAt, unescapeOctal } from '#host/mounts.ts';
import { type Built, mountsOf, type Volume } from '#storage/devices.ts';

/** A line of fstab(5) that mounts something at a folder. */
export interface FstabEntry {
  readonly spec: string;
  /** Without `..`, double and last slashes; links in it stay as they are. */
  readonly target: string;
  /** It names a local disk. */
  readonly isDisk: boolean;
  /** Mounted at boot: no `noauto`. */
  readonly auto: boolean;
  readonly readOnly: boolean;
  /** As it stands there. */
  readonly line: string;
  matches(volume: Pick<Volume, 'uuid' | 'partUuid' | 'label' | 'device'>): boolean;
}

/** The last word of a pair holds (mount(8)). */
function isSet(flags: readonly string[], on: string, off: string): boolean {
  return flags.findLast((flag) => flag === on || flag === off) === on;
}

export function parseFstab(text: string): FstabEntry[] {
  const entries: FstabEntry[] = [];
  for (const line of text.split('\n')) {
    const [spec, target, fstype, options] = line.trim().split(/\s+/).map(unescapeOctal);
    if (spec === undefined || spec.startsWith('#') || target === undefined || fstype === undefined) continue;
    if (!target.startsWith('/')) continue;
    const flags = (options ?? 'defaults').split(',');
    const isBind = flags.includes('bind') || flags.includes('rbind');
    const isDisk = !isBind && /^(UUID=|PARTUUID=|LABEL=|PARTLABEL=|\/dev\/)/.test(spec);
    entries.push({
      spec,
      target: posix.normalize(target).replace(/(.)\/+$/, '$1'),
      isDisk,
      auto: !isSet(flags, 'noauto', 'auto'),
      readOnly: isSet(flags, 'ro', 'rw'),
      line,
      matches: (volume) => isDisk && matches(spec, volume),
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

/** A line of the boot, of a disk or of anything else, that is not carried out. */
export function isAwaited(
  entry: FstabEntry,
  entries: readonly MountEntry[],
  places: readonly Built[],
): boolean {
  if (!entry.auto || topmostAt(entries, entry.target) !== undefined) return false;
  // Where a link is in its path, the kernel names another one.
  return !places.some(({ volume }) => entry.matches(volume) && mountsOf(entries, volume.device).length > 0);
}
