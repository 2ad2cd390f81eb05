import type { Files } from '#host/files.ts';

/** Name and version of the system from os-release(5). */
export function osRelease(text: string): { readonly name: string; readonly version: string } {
  const value = (key: string) =>
    new RegExp(`^${key}=(?:"([^"]*)"|'([^']*)'|(.*))$`, 'm')
      .exec(text)
      ?.slice(1)
      .find((part) => part !== undefined);
  return { name: value('PRETTY_NAME') ?? value('NAME') ?? 'Linux', version: value('VERSION_ID') ?? '' };
}

/** What boards say when their maker had nothing to say. */
const placeholders =
  /^(to be filled|default string|system product name|system name|not specified|none|n\/a|o\.e\.m|oem|invalid|0+$|standard pc)/i;

/** The product name from DMI, or the device tree's model on boards without one. */
export function productName(read: (path: string) => string | undefined): string | undefined {
  const product = read('/sys/class/dmi/id/product_name') ?? read('/proc/device-tree/model');
  return product === undefined || placeholders.test(product) ? undefined : product;
}

/** ARM cores by part number (MIDR_EL1, implementer 0x41), as far as boxes of this kind have them. */
const armCores: Readonly<Record<string, string>> = {
  '0xd03': 'Cortex-A53',
  '0xd04': 'Cortex-A35',
  '0xd05': 'Cortex-A55',
  '0xd07': 'Cortex-A57',
  '0xd08': 'Cortex-A72',
  '0xd09': 'Cortex-A73',
  '0xd0a': 'Cortex-A75',
  '0xd0b': 'Cortex-A76',
  '0xd0c': 'Neoverse-N1',
  '0xd40': 'Neoverse-V1',
  '0xd41': 'Cortex-A78',
  '0xd49': 'Neoverse-N2',
};

/** The processor's name from /proc/cpuinfo; x86 has it in words, ARM as numbers. */
export function cpuName(cpuinfo: string, boardModel: string | undefined): string {
  const field = (name: string) => new RegExp(`^${name}\\s*:\\s*(.+)$`, 'm').exec(cpuinfo)?.[1]?.trim();
  const words = field('model name') ?? field('cpu model');
  if (words !== undefined) return words.replace(/\s+/g, ' ');
  const part = field('CPU part')?.toLowerCase();
  const implementer = field('CPU implementer')?.toLowerCase();
  const core = implementer === '0x41' && part !== undefined ? armCores[part] : undefined;
  if (core !== undefined) return `ARM ${core}`;
  return field('Hardware') ?? boardModel ?? 'unknown';
}

/** PCI vendors of display controllers, the most telling first: a server's board management chip says least. */
const gpuVendors: readonly (readonly [string, string])[] = [
  ['0x10de', 'NVIDIA'],
  ['0x1002', 'AMD'],
  ['0x8086', 'Intel'],
  ['0x1ed5', 'Moore Threads'],
  ['0x1af4', 'Virtio'],
  ['0x1b36', 'QXL'],
  ['0x15ad', 'VMware'],
  ['0x1234', 'QEMU'],
  ['0x1a03', 'ASPEED'],
  ['0x102b', 'Matrox'],
];

/** The name of the graphics card: NVIDIA's driver tells it in words, else vendor and device id from PCI. */
export function gpuName(files: Files, root: string): string | undefined {
  const nvidia = nvidiaModel(files, root);
  if (nvidia !== undefined) return nvidia;
  const base = `${root}/sys/bus/pci/devices`;
  const found = quietList(files, base).flatMap((device) => {
    const read = (name: string) => quietText(files, `${base}/${device}/${name}`);
    // Class 03: display controller (PCI Code and ID Assignment Specification).
    if (!/^0x03(00|02|80)/.test(read('class') ?? '')) return [];
    return [{ vendor: read('vendor') ?? '', device: read('device') ?? '' }];
  });
  for (const [id, name] of gpuVendors) {
    const card = found.find(({ vendor }) => vendor === id);
    if (card !== undefined) return `${name} ${card.device.replace(/^0x/, '')}`.trim();
  }
  const [other] = found;
  return other === undefined ? undefined : `${other.vendor}:${other.device}`.replaceAll('0x', '');
}

function nvidiaModel(files: Files, root: string): string | undefined {
  const base = `${root}/proc/driver/nvidia/gpus`;
  const [first] = quietList(files, base);
  if (first === undefined) return undefined;
  return /^Model:\s*(.+)$/m.exec(quietText(files, `${base}/${first}/information`) ?? '')?.[1]?.trim();
}

function quietList(files: Files, path: string): string[] {
  try {
    return files.list(path);
  } catch {
    return [];
  }
}

function quietText(files: Files, path: string): string | undefined {
  try {
    return files.readText(path)?.trim();
  } catch {
    return undefined;
  }
}
