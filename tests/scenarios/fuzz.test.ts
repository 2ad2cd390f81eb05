import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { operationNames, specOf } from '#api/operations.ts';
import { broken, fitting } from '../support/arbitrary.ts';
import {
  type Ask,
  ask,
  type DaemonProcess,
  type Reply,
  startDaemonProcess,
} from '../support/daemon-process.ts';

/** 2,000 bodies a route in the soak (`./test --soak fuzz`), some of each in every run. */
const perRoute = process.env['BEOSD_SOAK'] === '1' ? 2000 : 200;
const seed = Number(process.env['BEOSD_SEED'] ?? 20261123);

/** Routes that answer without end, or whose effect would end the test. */
const passedOver = new Set(['events.stream']);

describe(`bodies made from the schemas, valid and broken (seed ${seed})`, () => {
  let daemon: DaemonProcess;
  let socket: string;

  before(async () => {
    daemon = await startDaemonProcess();
    socket = join(daemon.dataDir, 'beosd.sock');
  });
  after(async () => {
    await daemon.stop();
  });

  const state = async () => {
    const { json } = await ask(daemon.port, { path: '/system/status' });
    const { observedAt: _at, ...rest } = json.data as Record<string, unknown>;
    return rest;
  };

  const check = (reply: Reply, operation: keyof typeof allowed503, what: string) => {
    assert.notEqual(reply.status, 500, `${operation} ${what}: ${reply.text}\n${daemon.log()}`);
    if (reply.status === 503) assert.ok(allowed503[operation], `${operation} ${what}: ${reply.text}`);
    if (specOf(operation).raw === undefined || reply.status >= 400) {
      assert.equal(reply.json.code, reply.status, what);
      assert.equal(typeof reply.json.message, 'string', what);
    }
  };

  const allowed503 = Object.fromEntries(
    operationNames.map((name) => [name, specOf(name).statuses?.includes(503) ?? false]),
  ) as Record<(typeof operationNames)[number], boolean>;

  /** What a request can change in a sandbox: its files but for the database, and the jobs. */
  const fingerprint = async () => {
    const { json } = await ask(socket, { path: '/jobs?limit=1' });
    const [newest] = json.data as { id: string }[];
    return { job: newest?.id, files: filesOf(daemon.dataDir) };
  };

  for (const operation of operationNames) {
    if (passedOver.has(operation)) continue;
    test(operation, async () => {
      const { method, path, params, body } = specOf(operation);
      const look = async () => (method === 'GET' ? undefined : await fingerprint());
      let known = await look();
      const bodies = fc.oneof(fitting(body ?? {}), broken(body ?? {}));
      const samples = fc.sample(fc.tuple(fitting(params ?? {}), bodies), { numRuns: perRoute, seed });
      for (const [index, [given, value]] of samples.entries()) {
        // As root every second time: what is refused at the door says nothing about the handler.
        const reply = await ask(
          index % 2 === 0 ? socket : daemon.port,
          requestOf(method, pathOf(path, given), value),
        );
        const what = `${pathOf(path, given)} ${JSON.stringify(value)}`;
        check(reply, operation, what);
        const now = await look();
        if (reply.status >= 300) assert.deepEqual(now, known, `refused, but not without effect: ${what}`);
        known = now;
      }
    });
  }

  test('the one that has crashed the ancestor', async () => {
    const headers = { 'content-type': 'application/json' };
    for (const body of [
      '{"items":[null]}',
      '{"items":null}',
      '{}',
      '[]',
      'null',
      '{"items":[[]]}',
      '{"items":{}}',
    ]) {
      const reply = await ask(socket, { method: 'POST', path: '/system/hosts-file', headers, body });
      assert.equal(reply.status, 400, `${body}: ${reply.text}`);
    }
  });

  test('what is no proper request is refused in the form of the contract', async () => {
    const post = (headers: Record<string, string>, body: string | Buffer) =>
      ask(socket, { method: 'POST', path: '/system/hosts-file', headers, body });
    const json = { 'content-type': 'application/json' };
    const cases: [Promise<Reply>, number, string][] = [
      [post(json, '{'), 400, 'malformed_body'],
      [post(json, Buffer.from([0xff, 0xfe])), 400, 'malformed_body'],
      [post({ 'content-type': 'text/plain' }, '{}'), 415, 'not_json'],
      [post({ 'content-type': 'application/x-www-form-urlencoded' }, 'a=b'), 415, 'not_json'],
      [post({}, '{"items":[]}'), 415, 'not_json'],
      [post(json, `{"items":"${'x'.repeat(70_000)}"}`), 413, 'body_too_large'],
      [post(json, '{"items":[],"Items":[]}'), 400, 'duplicate_field'],
      [ask(socket, { path: '/nowhere' }), 404, 'not_found'],
      [ask(socket, { method: 'PATCH', path: '/system/status' }), 404, 'not_found'],
      [ask(socket, { path: '/jobs/%zz' }), 400, 'malformed_body'],
      [ask(socket, { path: '/jobs?limit=x' }), 400, 'invalid_input'],
      [ask(socket, { method: 'POST', path: '/auth/session?dryRun=true' }), 403, 'forbidden'],
      [ask(daemon.port, { path: '/system/status', headers: { host: 'evil.example' } }), 421, 'host_not_ours'],
      [
        ask(daemon.port, { path: '/system/status', headers: { origin: 'http://evil.example' } }),
        403,
        'origin_refused',
      ],
    ];
    for (const [asked, status, code] of cases) {
      const reply = await asked;
      assert.deepEqual([reply.status, reply.json.error?.['code']], [status, code], reply.text);
      assert.equal(reply.json.code, status);
    }
  });

  test('on our own routes an unknown key is refused by name', async () => {
    const body = JSON.stringify({ name: 'a@b.c', extra: 1 });
    const headers = { 'content-type': 'application/json' };
    const reply = await ask(socket, { method: 'POST', path: '/owner/transfer', headers, body });
    assert.deepEqual([reply.status, reply.json.error?.['field']], [400, 'extra'], reply.text);
  });

  test('refused requests change nothing', async () => {
    const earlier = await state();
    for (const operation of operationNames) {
      const { method, path } = specOf(operation);
      if (method === 'GET') continue;
      const reply = await ask(daemon.port, { method, path: pathOf(path, { id: 'x', name: 'x' }) });
      assert.ok(reply.status >= 400, `${operation}: ${reply.text}`);
    }
    assert.deepEqual(await state(), earlier);
  });
});

/** Every file with what is in it; who was refused is written to the database, and a lock is no state. */
function filesOf(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !/^beosd\.db|\.lock$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => `${path} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`)
    .sort();
}

function requestOf(method: string, path: string, value: unknown): Ask {
  const body = method === 'GET' ? undefined : JSON.stringify(value);
  if (body === undefined) return { method, path };
  return { method, path, body, headers: { 'content-type': 'application/json' } };
}

function pathOf(path: string, params: unknown): string {
  const values = (params ?? {}) as Record<string, unknown>;
  return path.replace(/:(\w+)|\*/g, (_all, name: string | undefined) =>
    encodeURIComponent(String(name === undefined ? Object.values(values)[0] : values[name]) || 'x'),
  );
}
