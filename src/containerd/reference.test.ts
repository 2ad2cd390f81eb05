import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalNames, parseHost, parseReference, registryName } from '#containerd/reference.ts';

const hex = 'a'.repeat(64);
const digest = `sha256:${hex}`;

test('references mean what containerd takes them to mean', () => {
  const table: readonly (readonly [string, string])[] = [
    ['nginx', 'docker.io/library/nginx:latest'],
    ['nginx:1.27', 'docker.io/library/nginx:1.27'],
    ['bitnami/redis', 'docker.io/bitnami/redis:latest'],
    ['docker.io/nginx', 'docker.io/library/nginx:latest'],
    ['index.docker.io/nginx', 'docker.io/library/nginx:latest'],
    ['index.docker.io/library/nginx:2', 'docker.io/library/nginx:2'],
    ['localhost/a', 'localhost/a:latest'],
    ['localhost:5000/a', 'localhost:5000/a:latest'],
    ['host:5000/a/b:t', 'host:5000/a/b:t'],
    ['ghcr.io/org/app/part:v1', 'ghcr.io/org/app/part:v1'],
    ['[fd00::1]:5000/a:1', '[fd00::1]:5000/a:1'],
    ['Host/a', 'Host/a:latest'],
    [`nginx@${digest}`, `docker.io/library/nginx@${digest}`],
    [`host:5000/a@${digest}`, `host:5000/a@${digest}`],
  ];
  for (const [text, name] of table) {
    const reference = parseReference(text);
    assert.ok(reference, text);
    assert.deepEqual(canonicalNames(reference), [name], text);
  }
  const both = parseReference(`nginx:1@${digest}`);
  assert.deepEqual(both && canonicalNames(both), [
    'docker.io/library/nginx:1',
    `docker.io/library/nginx@${digest}`,
  ]);
});

test('what containerd would not take is no reference', () => {
  const bad = [
    '',
    ' ',
    '/',
    'a//b',
    '../a',
    'a/../b',
    'a:',
    'a@',
    'a@sha256:12',
    'UPPER',
    'a b',
    'a:t:u',
    hex,
  ];
  for (const text of [...bad, `x/${'a'.repeat(300)}`, 'a\0b', 'a\nb', 'http://a/b', 'a:-t', '%2e%2e%2f']) {
    assert.equal(parseReference(text), undefined, JSON.stringify(text));
  }
});

test('a registry is host[:port] and nothing that leads elsewhere', () => {
  const good = [
    'docker.io',
    'host',
    'host:5000',
    '10.0.0.1',
    '10.0.0.1:443',
    '[::1]',
    '[::1]:5000',
    '_default',
  ];
  for (const text of good) assert.equal(registryName(text), text);
  assert.equal(registryName('GHCR.io'), 'ghcr.io');
  assert.equal(registryName('index.docker.io'), 'docker.io');
  const tricks = [
    '',
    '.',
    '..',
    '../x',
    '..%2f',
    '%2e%2e%2f',
    'a/b',
    'a\\b',
    'a\0b',
    'a b',
    'host:',
    'host:0',
    'host:65536',
  ];
  const more = [
    ':5000',
    'a..b',
    '-a',
    'a-',
    '[::1',
    '[x]:1',
    'a:1:2',
    '_default/..',
    '_x',
    'x'.repeat(10_240),
    'a.',
    '\n',
  ];
  for (const text of [...tricks, ...more])
    assert.equal(registryName(text), undefined, JSON.stringify(text.slice(0, 40)));
});

test('no text whatever becomes a name with a separator or a step upwards', () => {
  const pieces = fc.constantFrom(
    '..',
    '.',
    '/',
    '\\',
    '%2f',
    '%2e',
    ':',
    '[',
    ']',
    '_default',
    'a',
    'Z',
    '9',
    '-',
    '\0',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(pieces).map((parts) => parts.join('')),
      ),
      (text) => {
        const name = registryName(text);
        if (name !== undefined) assert.match(name, /^(_default|[a-z0-9.:[\]-]+)$/);
        if (name !== undefined) assert.ok(name !== '.' && !name.includes('..'));
        const host = parseHost(text);
        assert.equal(host === undefined, name === undefined || name === '_default');
      },
    ),
    { numRuns: 2000 },
  );
});
