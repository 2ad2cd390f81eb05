import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { runBeosctl } from '#cli/main.ts';
import { createKey, formatKeyFile } from '#client/sign.ts';
import { FakeNode } from '../../tests/support/fake-node.ts';
import { FakeTerminal } from '../../tests/support/fake-terminal.ts';

let folder: string;
let terminal: FakeTerminal;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'beosctl-'));
});
after(() => rm(folder, { recursive: true }));
beforeEach(() => {
  terminal = new FakeTerminal();
});

const beosctl = (...argv: string[]) => runBeosctl(argv, terminal, '1.2.3');

const phase = {
  name: 'run',
  state: 'running',
  percent: 40,
  startedAt: null,
  finishedAt: null,
  message: 'copying',
};
const job = {
  id: 'j1',
  operation: 'command.install',
  state: 'running',
  phase: 'run',
  percent: 40,
  phases: [phase],
  error: null,
  caller: 'root',
  cancellable: true,
  createdAt: '2026-11-22T00:00:00Z',
  startedAt: null,
  finishedAt: null,
};

test('status comes over the socket as lines, or as JSON', async () => {
  const socket = join(folder, 'a.sock');
  await using _node = await FakeNode.start(socket);
  assert.equal(await beosctl('status', '--socket', socket), 0);
  assert.match(terminal.stdout, /^terminusState {2}not-installed$/m);
  terminal.stdout = '';
  assert.equal(await beosctl('--socket', socket, 'system', 'status', '--json'), 0);
  assert.equal(JSON.parse(terminal.stdout).terminusState, 'not-installed');
});

test('beside a sandbox its socket is found by itself', async () => {
  await mkdir(join(folder, '.beosd'));
  await using node = await FakeNode.start(join(folder, '.beosd', 'beosd.sock'));
  terminal.cwd = folder;
  assert.equal(await beosctl('status'), 0);
  assert.equal(node.received.length, 1);
});

test('flags become the body, typed and named as in the contract; the password comes from a file', async () => {
  await using node = await FakeNode.start();
  node.on('POST /command/install', () => ({ body: { message: 'start to install', data: { jobId: 'j1' } } }));
  await writeFile(join(folder, 'password'), 'tr0ub4dor\nsecond line\n');
  const file = ['--password-file', join(folder, 'password')];
  assert.equal(await beosctl('install', '--node', node.url, '--username', 'alice', ...file, '--no-wait'), 0);
  const sent = node.of('POST /command/install')[0];
  assert.deepEqual(JSON.parse(sent?.body ?? ''), { username: 'alice', password: 'tr0ub4dor' });
  assert.match(terminal.stdout, /jobId {2}j1/);
  assert.ok(!terminal.stdout.includes('tr0ub4dor') && !terminal.stderr.includes('tr0ub4dor'));
});

test('a password is no flag; on a terminal it is asked for without echo', async () => {
  await using node = await FakeNode.start();
  node.on('POST /command/install', () => ({ body: { message: 'ok', data: {} } }));
  assert.equal(await beosctl('install', '--node', node.url, '--username', 'a', '--password', 'x'), 2);
  assert.equal(node.received.length, 0);
  terminal.inIsTty = true;
  terminal.input = 'typed';
  assert.equal(await beosctl('install', '--node', node.url, '--username', 'a', '--password-file', '-'), 0);
  assert.deepEqual(terminal.prompts, ['password: ']);
  assert.equal(JSON.parse(node.of('POST /command/install')[0]?.body ?? '').password, 'typed');
  terminal.inIsTty = false;
  terminal.input = '4711\n';
  await beosctl('install', '--node', node.url, '--username', 'a', '--claim-code-file', '-');
  assert.equal(node.of('POST /command/install')[1]?.headers['x-claim-code'], '4711');
});

test('--file gives the whole body, flags go before it', async () => {
  await using node = await FakeNode.start();
  node.on('POST /system/hosts-file', () => ({ body: { message: 'success', data: [] } }));
  terminal.input = '{"items":[{"ip":"10.0.0.9","host":"nas"}]}';
  assert.equal(await beosctl('system', 'set-hosts-file', '--node', node.url, '--file', '-'), 0);
  const items = ['--items', '[]'];
  assert.equal(await beosctl('system', 'set-hosts-file', '--node', node.url, '--file', '-', ...items), 0);
  const bodies = node.of('POST /system/hosts-file').map((each) => JSON.parse(each.body));
  assert.deepEqual(bodies, [{ items: [{ ip: '10.0.0.9', host: 'nas' }] }, { items: [] }]);
});

test('a wrong command line is exit code 2 and reaches no node', async () => {
  await using node = await FakeNode.start();
  assert.equal(await beosctl('install', '--node', node.url), 2);
  assert.match(terminal.stderr, /--username is needed/);
  assert.equal(await beosctl('frobnicate', '--node', node.url), 2);
  assert.equal(await beosctl('ifs', '--node', node.url, '--test-connectivity', 'perhaps'), 2);
  assert.equal(await beosctl('jobs', 'list', '--node', node.url, '--limit', 'many'), 2);
  assert.equal(node.received.length, 0);
});

test('query and path parameters are typed; jobs alone lists them', async () => {
  await using node = await FakeNode.start();
  node.on('GET /jobs', () => ({ body: { message: 'success', data: [job], next: 'j1' } }));
  node.on('GET /jobs/j1', () => ({ body: { message: 'success', data: job } }));
  assert.equal(await beosctl('jobs', '--node', node.url, '--limit', '5'), 0);
  assert.equal(node.of('GET /jobs')[0]?.target, '/jobs?limit=5');
  assert.match(terminal.stderr, /more: --before j1/);
  terminal.stdout = '';
  assert.equal(await beosctl('job', 'j1', '--node', node.url), 0);
  assert.match(terminal.stdout, /operation {2}command.install[\s\S]*run +running +40% +copying/);
});

test('a list is a table, or blocks where the terminal is too narrow for one', async () => {
  await using node = await FakeNode.start();
  const data = [
    { code: 'a', message: 'short' },
    { code: 'b', message: 'x'.repeat(60) },
  ];
  node.on('GET /system/conditions', () => ({ body: { message: 'success', data } }));
  terminal.outIsTty = true;
  assert.equal(await beosctl('conditions', '--node', node.url), 0);
  assert.match(terminal.stdout, /^code {2}message\na {5}short\nb {5}x+\n$/);
  terminal.stdout = '';
  terminal.columns = 40;
  assert.equal(await beosctl('conditions', '--node', node.url), 0);
  assert.match(terminal.stdout, /^code {5}a\nmessage {2}short\n\ncode {5}b\nmessage {2}x+\n$/);
});

test('a dry run prints the plan as tables and fails when it would be refused', async () => {
  await using node = await FakeNode.start();
  const plan = {
    allowed: false,
    preconditions: [{ name: 'disk', ok: false, reason: 'full' }],
    steps: [{ name: 'format', does: 'erases it', reversible: false }],
  };
  node.on('POST /command/reboot', () => ({ body: { message: 'plan', data: plan } }));
  assert.equal(await beosctl('reboot', '--dry-run', '--node', node.url), 1);
  assert.equal(node.of('POST /command/reboot')[0]?.target, '/command/reboot?dryRun=true');
  assert.match(terminal.stdout, /NO +disk +full/);
  assert.match(terminal.stdout, /1 +format +CANNOT BE UNDONE +erases it/);
});

test('a job is followed to its end; its result decides the exit code', async () => {
  await using node = await FakeNode.start();
  let answers = [job, { ...job, state: 'succeeded', percent: 100 }];
  node.on('POST /command/reboot', () => ({ body: { message: 'success', data: { jobId: 'j1' } } }));
  node.on('GET /jobs/j1', () => {
    const [first = job, ...rest] = answers;
    answers = rest;
    if (rest[0] !== undefined) setImmediate(() => node.publish('job', { ...rest[0] }));
    return { body: { message: 'success', data: first } };
  });
  assert.equal(await beosctl('reboot', '--node', node.url), 0);
  assert.match(
    terminal.stderr,
    /40% {2}command.install {2}running {2}run: copying\n.*100% {2}command.install {2}succeeded/,
  );
  const error = { code: 'impossible', message: 'no disk', remedy: 'Add one.' };
  answers = [{ ...job, state: 'failed', error } as never];
  assert.equal(await beosctl('reboot', '--node', node.url), 1);
  assert.match(terminal.stderr, /the job failed: no disk\n {2}Add one\./);
});

test('on a terminal the progress is one line with a bar', async () => {
  await using node = await FakeNode.start();
  node.on('GET /jobs/j1', (request) => {
    const ended = node.of('GET /jobs/j1').length > 1;
    if (request.target === '/jobs/j1' && !ended) setImmediate(() => node.publish('job', { id: 'j1' }));
    return { body: { message: 'success', data: { ...job, state: ended ? 'succeeded' : 'running' } } };
  });
  terminal.errIsTty = true;
  assert.equal(await beosctl('job', 'j1', '--follow', '--node', node.url), 0);
  assert.ok(terminal.stderr.includes('\r\u001b[2K[##########--------------]  40%'));
});

test('every refusal is printed with what can be done', async () => {
  await using node = await FakeNode.start();
  const error = { code: 'state_forbids', allowedIn: ['not-installed'], remedy: 'Wait for it.' };
  node.on('POST /command/reboot', () => ({ status: 403, body: { message: 'not now', error } }));
  assert.equal(await beosctl('reboot', '--node', node.url), 1);
  assert.equal(
    terminal.stderr,
    'beosctl: not now (state_forbids)\n  allowed while: not-installed\n  Wait for it.\n',
  );
});

test('a node that cannot be reached is exit code 3, with a hint', async () => {
  assert.equal(await beosctl('status', '--socket', join(folder, 'none.sock')), 3);
  assert.match(terminal.stderr, /cannot reach .*none\.sock[\s\S]*systemctl status beosd/);
  await using node = await FakeNode.start();
  node.on('GET /system/status', () => ({ body: 'hello' }));
  assert.equal(await beosctl('status', '--node', node.url), 3);
});

test('key new makes a private file that is never overwritten; key show hides the secret', async () => {
  terminal.home = folder;
  assert.equal(await beosctl('key', 'new'), 0);
  const file = join(folder, '.config/beosd/key.json');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.match(terminal.stdout, /@key\.local/);
  assert.equal(await beosctl('key', 'new'), 2);
  assert.match(terminal.stderr, /exists already/);
  terminal.stdout = '';
  assert.equal(await beosctl('key', 'show', '--json'), 0);
  assert.deepEqual(Object.keys(JSON.parse(terminal.stdout)), ['name', 'did', 'file']);
});

test('a key that others can read is refused; a private one signs', async () => {
  await using node = await FakeNode.start();
  node.on('GET /jobs', () => ({ body: { message: 'success', data: [] } }));
  const file = join(folder, 'key.json');
  await writeFile(file, formatKeyFile(createKey()), { mode: 0o644 });
  await chmod(file, 0o644);
  assert.equal(await beosctl('jobs', '--node', node.url, '--key', file), 2);
  assert.match(terminal.stderr, /chmod 600/);
  await chmod(file, 0o600);
  assert.equal(await beosctl('jobs', '--node', node.url, '--key', file), 0);
  assert.equal(String(node.of('GET /jobs')[0]?.headers['x-signature']).split('.').length, 3);
});

test('events are printed until a refusal ends them', async () => {
  await using node = await FakeNode.start();
  const running = beosctl('events', '--json', '--node', node.url, '--last-event-id', '0');
  node.publish('state', { state: 'installing' });
  node.publish('job', { id: 'j' });
  const deadline = Date.now() + 5000;
  while (terminal.stdout.split('\n').length < 3 && Date.now() < deadline) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  terminal.controller.abort(new Error('Ctrl-C'));
  assert.equal(await running, 130);
  const events = terminal.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    events.map((each) => [each.id, each.type]),
    [
      [1, 'state'],
      [2, 'job'],
    ],
  );
});
