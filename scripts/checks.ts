/** What is looked at before anything runs: format, lint, types, dead code, generated files. */
export const checks: readonly {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
}[] = [
  { name: 'format and lint', command: 'node_modules/.bin/biome', args: ['ci', '.'] },
  { name: 'types', command: 'node_modules/.bin/tsc', args: ['-p', '.'] },
  { name: 'dead code', command: 'scripts/node', args: ['node_modules/knip/bin/knip.js', '--no-progress'] },
  { name: 'generated files', command: 'scripts/node', args: ['scripts/generate.ts', '--check'] },
];
