import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { isErrorCode } from '#api/errors.ts';
import { operationNames, operations, specOf } from '#api/operations.ts';
import { templatePath } from '#api/paths.ts';
import { docsPage } from '#http/docs-page.ts';
import { openApiDocument } from '#http/openapi.ts';

type Json = Record<string, unknown>;
const document = JSON.parse(JSON.stringify(openApiDocument(operations, '1.2.3'))) as Json;
const paths = document['paths'] as Record<string, Record<string, Json>>;

function operation(name: keyof typeof operations): Json {
  const spec = specOf(name);
  const found = paths[templatePath(spec)]?.[spec.method.toLowerCase()];
  assert.ok(found, `${name} is in the document`);
  return found;
}

test('every operation is in the document, with who, gate and its refusals', () => {
  for (const name of operationNames) {
    const found = operation(name);
    assert.equal(found['operationId'], name);
    assert.ok((found['x-who'] as string[]).length > 0);
    for (const [status, value] of Object.entries(found['responses'] as Record<string, Json>)) {
      if (status === '200') continue;
      for (const code of value['x-error-codes'] as string[]) assert.ok(isErrorCode(code), code);
    }
  }
});

test('every reference in the document leads somewhere', () => {
  const seen: string[] = [];
  const walk = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return;
    for (const [key, each] of Object.entries(value)) {
      if (key === '$ref') seen.push(String(each));
      else walk(each);
    }
  };
  walk(document);
  assert.ok(seen.length > 10);
  for (const ref of new Set(seen)) {
    const found = ref
      .replace(/^#\//, '')
      .split('/')
      .reduce<unknown>((at, part) => (at as Json | undefined)?.[part], document);
    assert.ok(found, ref);
  }
});

test('a missing proof is 403 where the ancestor has the route and 401 on ours', () => {
  const codes = (name: keyof typeof operations, status: string) =>
    (operation(name)['responses'] as Record<string, Json>)[status]?.['x-error-codes'] as string[] | undefined;
  assert.ok(codes('command.install', '403')?.includes('unproven'));
  assert.equal(codes('command.install', '401'), undefined);
  assert.ok(codes('jobs.list', '401')?.includes('unproven'));
});

test('the gate of an install names the states that allow it', () => {
  assert.deepEqual(operation('command.install')['x-gate'], {
    action: 'install',
    allowedIn: ['not-installed'],
  });
  assert.equal(operation('system.status')['x-gate'], null);
});

test('mutating routes take an Idempotency-Key, plans a dryRun, the stream a Last-Event-ID', () => {
  const names = (name: keyof typeof operations) =>
    (operation(name)['parameters'] as Json[]).map((each) => each['name']);
  assert.deepEqual(names('command.install'), ['dryRun', 'Idempotency-Key']);
  assert.deepEqual(names('jobs.cancel'), ['id', 'Idempotency-Key']);
  assert.deepEqual(names('events.stream'), ['Last-Event-ID']);
});

test('only what reads without an excluded session takes a session token', () => {
  const has = (name: keyof typeof operations) =>
    (operation(name)['security'] as Json[]).some((each) => 'session' in each);
  assert.equal(has('jobs.list'), true);
  assert.equal(has('system.audit'), false);
  assert.equal(has('command.reboot'), false);
});

test('the page loads and runs nothing, its one style is allowed by its hash', () => {
  const { html, contentSecurityPolicy } = docsPage(document);
  const style = /<style>([\s\S]*?)<\/style>/.exec(html)?.[1] ?? '';
  const hash = createHash('sha256').update(style).digest('base64');
  assert.match(contentSecurityPolicy, /default-src 'none'/);
  assert.ok(contentSecurityPolicy.includes(`'sha256-${hash}'`));
  assert.doesNotMatch(html, /<script|\son\w+=|\sstyle=|https?:\/\//);
  for (const name of operationNames) assert.ok(html.includes(`>${templatePath(specOf(name))}<`), name);
});

test('the page escapes what the contract says', () => {
  const { html } = docsPage({ info: { title: '<b>&"', version: '1' }, paths: {}, components: {} });
  assert.ok(html.includes('&lt;b&gt;&amp;&quot;'));
  assert.ok(!html.includes('<b>'));
});
