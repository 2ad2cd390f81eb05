import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { checks } from './checks.ts';

/** `npm run check`: the static checks, then the fast tests. */
const root = join(import.meta.dirname, '..');
let failed = 0;
for (const { name, command, args } of checks) {
  process.stdout.write(`check ${name}\n`);
  if (spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status !== 0) failed++;
}
if (failed === 0)
  process.exitCode = spawnSync('./test', ['--fast'], { cwd: root, stdio: 'inherit' }).status ?? 1;
else process.exitCode = 1;
