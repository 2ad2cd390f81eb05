import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Call } from '#api/operation.ts';
import { clusterHandlers } from '#cluster/handlers.ts';
import { installDefinition } from '#cluster/install.ts';
import { generatePassword } from '#cluster/password.ts';
import { uninstallDefinition } from '#cluster/uninstall.ts';
import type { JobDefinition, Jobs, StartOptions } from '#jobs/definition.ts';
import { installerBench } from '../../tests/support/installer-bench.ts';

const caller: Caller = { class: 'root', proof: 'socket' };
const call: Call = { caller, signal: new AbortController().signal, requestId: 'r', dryRun: false };

function bench(profile: 'beos' | 'olares' = 'beos', refuse = false) {
  const { options, dir } = installerBench(profile);
  const inputs: unknown[] = [];
  const jobs: Jobs = {
    start: <I>(_definition: JobDefinition<I>, { input }: StartOptions<I>) => {
      inputs.push(input);
      return refuse ? Promise.reject(fault('conflict', 'busy')) : Promise.resolve('job-1');
    },
    plan: () => Promise.resolve({ allowed: true, preconditions: [], steps: [] }),
  };
  const handlers = clusterHandlers({
    jobs,
    installer: options,
    install: installDefinition(options),
    uninstall: uninstallDefinition(options),
  });
  const install = async (body: { username: string; password?: string }) =>
    await handlers['command.install']({ params: {}, query: {}, body }, call);
  return { handlers, inputs, install, secrets: join(dir, 'secrets') };
}

test('a password that was left out is generated, told once, and kept from the journal and from a retry', async () => {
  const { install, inputs, secrets } = bench();
  const answer = await install({ username: 'alice' });
  assert.ok('data' in answer);
  const { jobId, initialPassword = '' } = answer.data;
  assert.equal(jobId, 'job-1');
  assert.match(initialPassword, /^[A-Za-z2-9]{32}$/);
  assert.deepEqual(answer.kept, { jobId: 'job-1' });
  assert.ok(!JSON.stringify(inputs).includes(initialPassword));
  const [name = ''] = readdirSync(secrets);
  assert.equal(readFileSync(join(secrets, name), 'utf8'), initialPassword);
  assert.deepEqual(
    [statSync(secrets).mode & 0o777, statSync(join(secrets, name)).mode & 0o777],
    [0o700, 0o600],
  );
});

test('a given password is not told back', async () => {
  const { install, inputs } = bench();
  const answer = await install({ username: 'alice', password: 'correct horse' });
  assert.deepEqual(answer, { data: { jobId: 'job-1' } });
  assert.ok(!JSON.stringify(inputs).includes('horse'));
});

test('a refused job leaves no secret behind, and a dry run makes none', async () => {
  const { install, secrets } = bench('beos', true);
  await assert.rejects(install({ username: 'alice' }), { code: 'conflict' });
  assert.deepEqual(readdirSync(secrets), []);
  const dry = bench();
  const answer = await dry.handlers['command.install'](
    { params: {}, query: {}, body: { username: 'alice' } },
    { ...call, dryRun: true },
  );
  assert.ok('plan' in answer);
  assert.throws(() => readdirSync(dry.secrets), /ENOENT/);
});

test('the ancestor takes exactly 32 characters; others are refused with the reason before anything happens', async () => {
  const { install, inputs } = bench('olares');
  await assert.rejects(install({ username: 'alice', password: 'short' }), { code: 'impossible' });
  await assert.rejects(install({ username: 'alice', password: `${'x'.repeat(31)}\n` }), {
    code: 'invalid_input',
  });
  assert.deepEqual(inputs, []);
  await install({ username: 'alice', password: 'd41d8cd98f00b204e9800998ecf8427e' });
  assert.equal(inputs.length, 1);
});

test('generated passwords differ and hold nothing that a shell, YAML or a URL reads', () => {
  const all = new Set(Array.from({ length: 500 }, generatePassword));
  assert.equal(all.size, 500);
  fc.assert(fc.property(fc.constantFrom(...all), (password) => /^[A-HJ-NP-Za-km-z2-9]{32}$/.test(password)));
});
