import { readFileSync, writeFileSync } from 'node:fs';
import { operations } from '#api/operations.ts';
import { generatedFiles } from './generated-files.ts';

/**
 * Writes what is derived from the contract: docs/openapi.json, docs/policy.md, docs/errors.md, docs/beosctl.md.
 * `--check` writes nothing and fails when one of them is stale.
 */
const check = process.argv.includes('--check');
const root = new URL('..', import.meta.url);
const { version } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { version: string };

const stale: string[] = [];
for (const [path, text] of Object.entries(generatedFiles(operations, version))) {
  const target = new URL(path, root);
  if (readOrEmpty(target) === text) continue;
  stale.push(path);
  if (!check) writeFileSync(target, text);
}
if (check && stale.length > 0) {
  console.error(`stale: ${stale.join(', ')}; run: npm run generate`);
  process.exitCode = 1;
} else if (stale.length > 0) {
  console.log(`written: ${stale.join(', ')}`);
}

function readOrEmpty(file: URL): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
