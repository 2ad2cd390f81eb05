import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

/**
 * Resolves once the child is the program that it was to be: `spawn` tells when exec(2) can no longer fail, and /proc
 * shows the name, the arguments and the folder of the new program a moment later.
 */
export async function became(child: ChildProcess): Promise<void> {
  if (child.pid === undefined) await once(child, 'spawn'); // or its error
  const [program] = child.spawnargs;
  const isIt = () => readFileSync(`/proc/${child.pid}/cmdline`, 'utf8').split('\0')[0] === program;
  const deadline = performance.now() + 10_000;
  while (!isIt()) {
    assert.ok(performance.now() < deadline, `${child.pid} never became ${program}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
