import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { parseArgs } from 'node:util';
import { checks } from './checks.ts';
import { runSoak } from './soak.ts';

const root = join(import.meta.dirname, '..');
process.chdir(root);
const { values, positionals } = parseArgs({
  options: { fast: { type: 'boolean' }, soak: { type: 'string' } },
  allowPositionals: true,
});

interface Tally {
  passed: number;
  failed: number;
  readonly skipped: string[];
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
  const stream = run({ files: files.map((file) => join(root, file)), concurrency, timeout: 30 * 60_000 });
  for await (const { type, data } of stream) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.details.type === 'suite') continue;
    const where = `${relative(root, data.file ?? '')}: ${data.name}`;
    if (data.skip !== undefined && data.skip !== false) {
      tally.skipped.push(`${where} (${data.skip === true ? 'no reason given' : data.skip})`);
    } else if (type === 'test:pass') {
      tally.passed++;
    } else {
      tally.failed++;
      process.stdout.write(`\nFAILED ${where}\n${describe(data.details.error)}\n`);
    }
  }
}

function describe(error: Error | undefined): string {
  const cause = error?.cause;
  return cause instanceof Error
    ? (cause.stack ?? cause.message)
    : String(cause ?? error?.message ?? 'no reason given');
}

async function main(): Promise<number> {
  if (values.soak !== undefined) return await runSoak(root, values.soak);
  const tally: Tally = { passed: 0, failed: 0, skipped: [] };
  if (positionals.length === 0) {
    for (const check of checks) {
      const started = Date.now();
      const result = spawnSync(check.command, check.args, { cwd: root, encoding: 'utf8' });
      if (result.status === 0) {
        tally.passed++;
      } else {
        tally.failed++;
        process.stdout.write(`\nFAILED check: ${check.name}\n${result.stdout}${result.stderr}\n`);
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
