import { join } from 'node:path';
import { test } from 'node:test';
import { noLoopDevices } from '../support/loop-disk.ts';
import { testsInPrivateMounts } from '../support/private-mounts.ts';

const skip = noLoopDevices() ?? false;
const inside = (name: string) => join(import.meta.dirname, `../support/${name}-child.ts`);

test('mounts and folders of the kernel keep the contract that those in memory keep', { skip }, (t) =>
  testsInPrivateMounts(t, inside('mounts'), {}, 120_000),
);

test('who holds a file system is found among the processes of the machine', { skip }, (t) =>
  testsInPrivateMounts(t, inside('holders'), {}, 120_000),
);

test('an unmount by path reaches exactly what is ours', { skip }, (t) =>
  testsInPrivateMounts(t, inside('umount'), {}, 120_000),
);
