import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { errorCatalogue } from '#api/errors.ts';
import { operationNames, operations } from '#api/operations.ts';
import { policy } from '#state/policy.ts';
import { generatedFiles } from '../scripts/generated-files.ts';
import {
  functionLengths,
  importCycles,
  importsOf,
  repository,
  sourceFiles,
  targetOf,
} from './support/source-tree.ts';

const files = sourceFiles();
const production = files.filter((file) => !file.isTest && file.path.startsWith('src/'));
const capabilities = ['cluster', 'containerd', 'storage', 'network', 'bluetooth', 'system', 'installer'];
const belowCapability = ['api', 'state', 'jobs', 'store', 'host', 'lib'];

/** Who may use whom, beside their own folder (docs/adr/0001). */
const mayUse: Readonly<Record<string, readonly string[]>> = {
  api: ['lib'],
  lib: [],
  host: ['lib'],
  store: ['lib'],
  state: ['api', 'lib'],
  jobs: ['api', 'state', 'store', 'host', 'lib'],
  auth: ['api', 'state', 'store', 'host', 'lib'],
  http: ['api', 'auth', 'state', 'jobs', 'lib'],
  client: ['api', 'lib'],
  cli: ['api', 'client', 'state', 'lib'],
  web: ['api', 'client', 'lib'],
  ...Object.fromEntries(capabilities.map((name) => [name, belowCapability])),
  daemon: ['api', 'state', 'jobs', 'auth', 'store', 'http', 'host', 'lib', 'web', ...capabilities],
};

test('every folder imports only what it may', () => {
  const wrong: string[] = [];
  for (const { path, text } of production) {
    const folder = path.split('/')[1] ?? '';
    const allowed = mayUse[folder];
    assert.ok(allowed, `src/${folder} has a row in the table of who may use whom`);
    for (const { from } of importsOf(text)) {
      const used = targetOf(from, path)?.split('/');
      if (used === undefined || used[0] !== 'src') continue;
      if (used[1] !== folder && !allowed.includes(used[1] ?? '')) wrong.push(`${path} → ${from}`);
    }
  }
  assert.deepEqual(wrong, []);
});

/** What reaches the machine, and the pure names of the same modules. */
const machineModules = new Set(['child_process', 'fs', 'fs/promises', 'net', 'dgram', 'inotify']);
const pureNames = new Set(['isIP', 'isIPv4', 'isIPv6', 'BlockList']);
/** Beside host/: the store opens its own file, beosctl the files of the person who runs it. */
const mayTouchFiles = new Set(['src/store/store.ts', 'src/cli/local-files.ts']);
/** Plain clients: one reaches the network, the other asks whether somebody answers on our own socket. */
const plainClients = new Set(['src/network/connectivity.ts', 'src/daemon/socket.ts']);

test('only host/ touches processes, files and raw sockets', () => {
  const wrong: string[] = [];
  for (const { path, text } of production) {
    if (path.startsWith('src/host/') || mayTouchFiles.has(path) || plainClients.has(path)) continue;
    for (const { from, names, typeOnly } of importsOf(text)) {
      if (typeOnly || !machineModules.has(from.replace(/^node:/, ''))) continue;
      if (names.length === 0 || names.some((name) => !pureNames.has(name))) wrong.push(`${path} → ${from}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('only http/ listens', () => {
  const wrong = production.filter(
    ({ path, text }) =>
      !path.startsWith('src/http/') && importsOf(text).some(({ names }) => names.includes('createServer')),
  );
  assert.deepEqual(
    wrong.map(({ path }) => path),
    [],
  );
});

test('no file is longer than 400 lines', () => {
  const long = files.filter(({ lines }) => lines.length > 400);
  assert.deepEqual(
    long.map(({ path, lines }) => `${path}: ${lines.length}`),
    [],
  );
});

test('nine functions of ten are no longer than 40 lines', () => {
  const all = production.flatMap(({ path, lines }) =>
    functionLengths(lines).map((each) => ({ ...each, path })),
  );
  all.sort((a, b) => a.lines - b.lines);
  assert.ok(all.length > 200, `${all.length} functions were found`);
  const p90 = all[Math.floor(all.length * 0.9)];
  assert.ok(p90 !== undefined && p90.lines <= 40, `p90 is ${p90?.lines} lines`);
});

test('the counter of function lengths knows functions from blocks', () => {
  const text = [
    'export function one(',
    '  a: number,',
    '): number {',
    '  if (a > 1) {',
    '    return 2;',
    '  }',
    '  return list.map((each) => {',
    '    return each;',
    '  });',
    '}',
    'class Two {',
    '  async three(): Promise<void> {',
    '    await four();',
    '  }',
    '}',
  ];
  assert.deepEqual(
    functionLengths(text).map((each) => each.lines),
    [10, 3, 3],
  );
});

test('nothing is left undone, and no test runs alone', () => {
  const marks = [/\bTO.?DO\b/, /\bFIX.?ME\b/, /\bXX.?X\b/, /\b(?:test|it|describe|suite)\.on.?ly\(/];
  const wrong = files.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) =>
      marks.some((mark) => mark.test(line)) && path !== 'tests/architecture.test.ts'
        ? [`${path}:${index + 1}`]
        : [],
    ),
  );
  assert.deepEqual(wrong, []);
});

test('every operation has its row of policy, sorted by name', () => {
  assert.deepEqual(Object.keys(policy).sort(), [...operationNames].sort());
  assert.deepEqual(Object.keys(policy), Object.keys(policy).sort());
});

test('every error code can happen and is documented', () => {
  const tables = new Set(['src/api/errors.ts', 'src/api/refusals.ts']);
  const text = production
    .filter(({ path }) => !tables.has(path))
    .map((file) => file.text)
    .join('\n');
  const documented = readFileSync(join(repository, 'docs/errors.md'), 'utf8');
  for (const code of Object.keys(errorCatalogue)) {
    assert.ok(text.includes(`'${code}'`), `${code} is thrown somewhere`);
    assert.ok(documented.includes(`\`${code}\``), `${code} is in docs/errors.md`);
  }
});

test('what is generated is up to date', () => {
  const manifest = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { version: string };
  for (const [path, text] of Object.entries(generatedFiles(operations, manifest.version))) {
    assert.equal(readFileSync(join(repository, path), 'utf8'), text, `${path}: run npm run generate`);
  }
});

test('every variable of the environment that the daemon reads is in packaging/beosd.env', () => {
  const read = files.filter(({ path }) => ['src/daemon/config.ts', 'src/daemon/work.ts'].includes(path));
  const names = read.flatMap(({ text }) =>
    [...text.matchAll(/'([A-Z]+_[A-Z_]+)'/g)].map((match) => match[1]),
  );
  const listed = readFileSync(join(repository, 'packaging/beosd.env'), 'utf8');
  assert.ok(names.length > 10);
  const missing = new Set(names.filter((name) => !listed.includes(`#${name}=`)));
  assert.deepEqual([...missing], []);
});

test('no file imports itself, by whatever way', () => {
  const graph = new Map(
    files.map(({ path, text }) => [
      path,
      importsOf(text).flatMap(({ from, typeOnly }) => (typeOnly ? [] : (targetOf(from, path) ?? []))),
    ]),
  );
  assert.ok([...graph.values()].some((used) => used.length > 3));
  assert.deepEqual(importCycles(graph), []);
});

test('a cycle is found where there is one', () => {
  const graph = new Map([
    ['a', ['b']],
    ['b', ['c']],
    ['c', ['b']],
  ]);
  assert.deepEqual(importCycles(graph), [['b', 'c', 'b']]);
});

test('no default exports and no files that only pass on what others export', () => {
  const wrong = files.filter(({ text }) => /^export default /m.test(text) || /^export \* from/m.test(text));
  assert.deepEqual(
    wrong.map(({ path }) => path),
    [],
  );
});
