import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { run } from 'node:test';
import type { TestEvent } from 'node:test/reporters';
import { parseArgs } from 'node:util';
import { checks } from './checks.ts';
import { runSoak } from './soak.ts';
import { Tally } from './tally.ts';

const root = join(import.meta.dirname, '..');
process.chdir(root);
const usage = 'usage: ./test [--fast] [--soak NAME] [FILE...]';
const { values, positionals } = asked();

function asked() {
  try {
    return parseArgs({
      options: { fast: { type: 'boolean' }, soak: { type: 'string' } },
      allowPositionals: true,
    });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}\n`);
    process.exit(2);
  }
}

/** Files of each tier, in the order in which they run; the later ones need the machine to themselves. */
function tiers(): { readonly name: string; readonly files: string[]; readonly concurrency: number }[] {
  if (positionals.length > 0) return [{ name: 'chosen', files: positionals, concurrency: 1 }];
  const all = globSync('{src,tests,scripts}/**/*.test.ts', { cwd: root }).sort();
  const kind = (suffix: string) => all.filter((file) => file.endsWith(suffix));
  const lab = kind('.lab.test.ts');
  const real = kind('.real.test.ts');
  const timing = kind('.timing.test.ts');
  const special = new Set([...lab, ...real, ...timing]);
  const plain = all.filter((file) => !special.has(file));
  return [
    { name: 'pure and scenario', files: plain, concurrency: 2 },
    { name: 'timing', files: timing, concurrency: 1 },
    ...(values.fast
      ? []
      : [
          { name: 'real components', files: real, concurrency: 1 },
          { name: 'lab', files: lab, concurrency: 1 },
        ]),
  ];
}

async function runTier(files: string[], concurrency: number, tally: Tally): Promise<void> {
  if (files.length === 0) return;
  const stream = run({ files: files.map((file) => resolve(root, file)), concurrency, timeout: 30 * 60_000 });
  for await (const event of stream as AsyncIterable<TestEvent>) tally.hear(event);
}

async function main(): Promise<number> {
  if (values.soak !== undefined) return await runSoak(root, values.soak);
  const tally = new Tally(root, (text) => process.stdout.write(text));
  if (positionals.length === 0) {
    for (const check of checks) {
      const started = Date.now();
      const result = spawnSync(check.command, check.args, { cwd: root, encoding: 'utf8' });
      if (result.status === 0) {
        tally.passed++;
      } else {
        tally.fail(`check: ${check.name}`, `${result.stdout}${result.stderr}`);
      }
      process.stdout.write(
        `check ${check.name}: ${result.status === 0 ? 'ok' : 'FAILED'} (${Date.now() - started} ms)\n`,
      );
    }
  }
  for (const tier of tiers()) {
    const started = Date.now();
    const before = tally.passed;
    await runTier(tier.files, tier.concurrency, tally);
    process.stdout.write(
      `tier ${tier.name}: ${tally.passed - before} passed (${Math.round((Date.now() - started) / 1000)} s)\n`,
    );
  }
  if (tally.skipped.length > 0)
    process.stdout.write(`\nSkipped:\n${tally.skipped.map((each) => `  ${each}`).join('\n')}\n`);
  process.stdout.write(`\n${tally.passed} passed, ${tally.failed} failed, ${tally.skipped.length} skipped\n`);
  return tally.failed === 0 && tally.passed > 0 ? 0 : 1;
}

process.exitCode = await main();
