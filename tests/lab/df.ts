import assert from 'node:assert/strict';
import type { MountedPath, UsageStat } from '#api/storage.ts';
import type { Guest } from './guest.ts';
import type { BeosNode } from './node.ts';
import { eventually } from './storage-node.ts';

type Numbers = Omit<UsageStat, 'fstype' | 'usedPercent' | 'inodesUsedPercent'>;

const columns = ['target', 'size', 'used', 'avail', 'pcent', 'itotal', 'iused', 'iavail', 'ipcent'];

/** What df of the guest says of a mount; it rounds a percentage up, and has none of nothing. */
async function df(vm: Guest, path: string) {
  const argv = ['df', '-B1', `--output=${columns.join(',')}`, path];
  const line = (await vm.run(argv)).stdout.trim().split('\n')[1] ?? '';
  const words = line.trim().split(/\s+/);
  assert.equal(words.length, columns.length, line);
  const count = (name: string) =>
    Number(words[columns.indexOf(name)]?.replace(/^-$/, '0').replace('%', '')) + 0;
  const numbers: Numbers = {
    path: words[0] ?? '',
    ...{ total: count('size'), used: count('used'), free: count('avail') },
    // NTFS has more free inodes than inodes: df says that less than none is used, and we that none is.
    ...{ inodesTotal: count('itotal'), inodesUsed: Math.max(0, count('iused')), inodesFree: count('iavail') },
  };
  return { numbers, percent: count('pcent'), inodesPercent: Math.max(0, count('ipcent')) };
}

/**
 * The numbers of a mount are those of df, each of them. Nothing is written meanwhile, as far as that is ours: df says
 * the same before and after the daemon was asked, and the daemon may give out what it has read half a second ago.
 */
export async function saysWhatDfSays(node: BeosNode, path: string): Promise<MountedPath> {
  await node.vm.run(['sync', '--file-system', path]);
  let last = 'nothing was listed';
  return await eventually(`the numbers of df of ${path}`, 30_000, async () => {
    const before = await df(node.vm, path);
    const row = (await node.paths()).find((each) => each.path === path);
    const after = await df(node.vm, path);
    const { numbers } = after;
    const own =
      row && Object.fromEntries(Object.keys(numbers).map((key) => [key, row[key as keyof Numbers]]));
    last = `${JSON.stringify(own)}, by df ${JSON.stringify(before.numbers)}, then ${JSON.stringify(numbers)}`;
    const isQuiet = JSON.stringify(before) === JSON.stringify(after);
    if (row === undefined || !isQuiet || JSON.stringify(own) !== JSON.stringify(numbers))
      throw new Error(last);
    assertPercentages(row, after);
    return row;
  });
}

function assertPercentages(
  row: MountedPath,
  { numbers, percent, inodesPercent }: Awaited<ReturnType<typeof df>>,
): void {
  assert.ok(numbers.total > 0 && numbers.used + numbers.free > 0, JSON.stringify(numbers));
  assert.equal(row.usedPercent, (numbers.used / (numbers.used + numbers.free)) * 100);
  assert.equal(roundedUp(row.usedPercent), percent);
  const inodes = numbers.inodesTotal === 0 ? 0 : (numbers.inodesUsed / numbers.inodesTotal) * 100;
  assert.equal(row.inodesUsedPercent, inodes);
  assert.equal(roundedUp(row.inodesUsedPercent), inodesPercent);
}

/** Without the sign of a zero. */
function roundedUp(percent: number): number {
  return Math.ceil(percent) + 0;
}
