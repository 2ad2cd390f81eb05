import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';

export const repository = join(import.meta.dirname, '../..');

export interface SourceFile {
  /** From the root of the repository: `src/http/server.ts`. */
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
  readonly isTest: boolean;
}

/** Our own TypeScript; what a generator wrote is left out. */
export function sourceFiles(): SourceFile[] {
  return globSync('{bin,src,tests,scripts}/**/*.ts', { cwd: repository })
    .filter((path) => !path.includes('/generated/'))
    .sort()
    .map((path) => {
      const text = readFileSync(join(repository, path), 'utf8');
      const lines = text.replace(/\n$/, '').split('\n');
      return { path, text, lines, isTest: path.endsWith('.test.ts') || path.startsWith('tests/') };
    });
}

export interface Import {
  /** As written: `#api/errors.ts`, `node:fs`, `fastify`. */
  readonly from: string;
  /** The names between the braces; [] for a namespace or side-effect import. */
  readonly names: readonly string[];
  /** Erased before it runs. */
  readonly typeOnly: boolean;
}

const importStatement =
  /^(?:import|export)\s+(?<type>type\s+)?(?:(?<what>[\w*\s{},$]+?)\s+from\s+)?'(?<from>[^']+)'/gm;
const dynamicImport = /\bimport\(\s*'(?<from>[^']+)'/g;

export function importsOf(text: string): Import[] {
  const fixed = [...text.matchAll(importStatement)].map(({ groups = {} }) => {
    const names = (/\{([\s\S]*)\}/.exec(groups['what'] ?? '')?.[1] ?? '')
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '');
    const values = names.filter((name) => !name.startsWith('type '));
    const typeOnly = groups['type'] !== undefined || (names.length > 0 && values.length === 0);
    return { from: groups['from'] ?? '', names: values, typeOnly };
  });
  const lazy = [...text.matchAll(dynamicImport)].map(({ groups = {} }) => ({
    from: groups['from'] ?? '',
    names: [],
    typeOnly: false,
  }));
  return [...fixed, ...lazy];
}

/** The file of ours that an import names; undefined for packages and Node itself. */
export function targetOf(from: string, importer: string): string | undefined {
  if (from.startsWith('#')) return `src/${from.slice(1)}`;
  if (!from.startsWith('.')) return undefined;
  return relative(repository, normalize(join(repository, dirname(importer), from)));
}

/** Lines of every function, by the layout that the formatter gives: it ends where a line closes at its own indent. */
export function functionLengths(lines: readonly string[]): { name: string; lines: number }[] {
  const found: { name: string; lines: number }[] = [];
  for (const [index, line] of lines.entries()) {
    const indent = /^ */.exec(line)?.[0] ?? '';
    const start = startOfHeader(lines, index, indent);
    if (start === undefined) continue;
    const end = lines.findIndex((each, at) => at > index && each.startsWith(`${indent}}`));
    if (end > index) found.push({ name: (lines[start] ?? '').trim(), lines: end - start + 1 });
  }
  return found;
}

const keyword = /^(?:\} )?(?:if|for|while|switch|catch|else|do|try|with)\b/;
const header = /(?:=>|\bfunction\b.*\)(?:: .+)?|^[\w#*[\].<> ]+\(.*\)(?:: .+)?) \{$/;

/** Where the function whose body opens at the end of this line begins; undefined when none does. */
function startOfHeader(lines: readonly string[], index: number, indent: string): number | undefined {
  const text = (lines[index] ?? '').slice(indent.length);
  if (keyword.test(text)) return undefined;
  if (header.test(text)) return index;
  if (!/^\)(?:: .+)?(?: =>)? \{$/.test(text)) return undefined;
  for (let at = index - 1; at >= 0; at--) {
    const line = lines[at] ?? '';
    if (line.trim() === '' || !line.startsWith(indent) || line.charAt(indent.length) === ' ') continue;
    return keyword.test(line.slice(indent.length)) ? undefined : at;
  }
  return undefined;
}

/** Runtime import cycles, each as the files on its way. */
export function importCycles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const cycles: string[][] = [];
  const done = new Set<string>();
  const walk = (file: string, way: readonly string[]) => {
    const at = way.indexOf(file);
    if (at >= 0) cycles.push([...way.slice(at), file]);
    if (at >= 0 || done.has(file)) return;
    for (const next of graph.get(file) ?? []) walk(next, [...way, file]);
    done.add(file);
  };
  for (const file of graph.keys()) walk(file, []);
  return cycles;
}
