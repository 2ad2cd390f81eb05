import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Files } from '#host/files.ts';
import { FolderWatch } from '#host/folder-watch.ts';

/** Waits for the next call that satisfies `wanted`; every step is caused by an event of the kernel. */
function told() {
  const names: string[] = [];
  const waiting = new Set<() => void>();
  return {
    names,
    onChange: (name: string) => {
      names.push(name);
      for (const wake of waiting) wake();
    },
    until: (wanted: () => boolean) =>
      new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`told only: ${names.join()}`)), 5000);
        const look = () => {
          if (!wanted()) return;
          clearTimeout(timer);
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
  };
}

test('a folder that comes later, goes and comes again is followed', async (t) => {
  const base = mkdtempSync(join(tmpdir(), 'beosd-watch-'));
  const folder = join(base, 'a', 'b');
  const { names, onChange, until } = told();
  const watch = new FolderWatch(new Files(), folder, onChange);
  watch.start();
  t.after(() => watch.stop());
  mkdirSync(join(base, 'a'));
  mkdirSync(folder);
  await until(() => names.length > 0);
  writeFileSync(join(folder, 'one'), '1');
  await until(() => names.includes('one'));
  rmSync(folder, { recursive: true });
  const gone = names.length;
  await until(() => names.length > gone || names.at(-1) === '');
  mkdirSync(folder);
  await until(() => names.length > gone);
  watch.resync();
  writeFileSync(join(folder, 'two'), '2');
  await until(() => names.includes('two'));
});

test('a folder that is replaced at one blow is followed too', async (t) => {
  const base = mkdtempSync(join(tmpdir(), 'beosd-watch-'));
  const folder = join(base, 'a');
  mkdirSync(folder);
  const { names, onChange, until } = told();
  const watch = new FolderWatch(new Files(), folder, onChange);
  watch.start();
  t.after(() => watch.stop());
  rmSync(folder, { recursive: true });
  mkdirSync(folder);
  await until(() => names.includes(''));
  writeFileSync(join(folder, 'one'), '1');
  await until(() => names.includes('one'));
  mkdirSync(join(base, 'b'));
  renameSync(folder, join(base, 'old'));
  renameSync(join(base, 'b'), folder);
  writeFileSync(join(folder, 'two'), '2');
  await until(() => names.filter((name) => name === '').length > 1);
  writeFileSync(join(folder, 'three'), '3');
  await until(() => names.includes('three'));
});

test('after stop nothing is told', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-watch-'));
  const { names, onChange, until } = told();
  const stopped = new FolderWatch(new Files(), folder, () => assert.fail('told after stop'));
  const other = new FolderWatch(new Files(), folder, onChange);
  stopped.start();
  other.start();
  stopped.stop();
  writeFileSync(join(folder, 'x'), '');
  await until(() => names.includes('x'));
  other.stop();
});
