import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { operationNames, specOf } from '#api/operations.ts';
import { fullCommands } from '#cli/commands.ts';
import { kebab } from '#cli/flags.ts';
import { runBeosctl } from '#cli/main.ts';
import { FakeTerminal } from '../../tests/support/fake-terminal.ts';

async function script(shell: string): Promise<string> {
  const terminal = new FakeTerminal();
  assert.equal(await runBeosctl(['completion', shell], terminal, '1'), 0);
  return terminal.stdout;
}

function offered(bashScript: string, ...typed: string[]): string[] {
  const words = ['beosctl', ...typed].map((word) => `'${word}'`).join(' ');
  const run = `${bashScript}\nCOMP_WORDS=(${words}); COMP_CWORD=${typed.length}; _beosctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', run], { encoding: 'utf8' });
  assert.equal(stderr, '');
  return stdout.trim().split('\n');
}

test('bash completes commands, their operations and their flags', async () => {
  const bash = await script('bash');
  assert.deepEqual(offered(bash, 'change'), ['change-host']);
  assert.ok(offered(bash, 'command', '').includes('install'));
  assert.deepEqual(offered(bash, 'install', '--user'), ['--username']);
  assert.deepEqual(offered(bash, 'jobs', 'get', '--fo'), ['--follow']);
});

const without = (shell: string) =>
  spawnSync(shell, ['--version']).status === 0 ? false : `${shell} is not installed`;

test('zsh offers them at the first Tab, when the function has only just been loaded', {
  skip: without('zsh'),
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'beosctl-zsh-'));
  writeFileSync(join(folder, '_beosctl'), await script('zsh'));
  const first = (...typed: string[]) => {
    const words = ['beosctl', ...typed].map((word) => `'${word}'`).join(' ');
    const run = `fpath=(${folder}); autoload -U _beosctl; compadd() { print -l -- "$@" }
words=(${words}); CURRENT=${typed.length + 1}; _beosctl`;
    const { stdout, stderr } = spawnSync('zsh', ['-f', '-c', run], { encoding: 'utf8' });
    assert.equal(stderr, '');
    return stdout.trim().split('\n');
  };
  assert.ok(first('change').includes('change-host'));
  assert.ok(first('jobs', 'get', '--fo').includes('--follow'));
});

test('fish offers them with what they do', { skip: without('fish') }, async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'beosctl-fish-')), 'beosctl.fish');
  writeFileSync(file, await script('fish'));
  const first = (typed: string) => {
    const run = ['--no-config', '-c', `source ${file}; complete -C 'beosctl ${typed}'`];
    const { stdout, stderr } = spawnSync('fish', run, { encoding: 'utf8' });
    assert.equal(stderr, '');
    return stdout.trim().split('\n');
  };
  assert.match(first('change').join(), /^change-host\tBind the name/);
  assert.match(first('jobs g').join(), /^get\tOne job$/);
  assert.match(first('containerd set-mirror --en').join(), /^--endpoint\t/);
});

test('every operation is in the scripts of all shells', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const text = await script(shell);
    for (const { words } of fullCommands())
      assert.ok(text.includes(words.join(' ')) || text.includes(words[1] ?? ''), shell);
  }
});

test('an unknown shell is a wrong command line', async () => {
  const terminal = new FakeTerminal();
  assert.equal(await runBeosctl(['completion', 'tcsh'], terminal, '1'), 2);
});

test('every operation that has a command has it under its dotted name', () => {
  const commands = new Set(fullCommands().map(({ words }) => words.join(' ')));
  for (const name of operationNames) {
    const words = name.split('.').map(kebab).join(' ');
    assert.equal(commands.has(words), specOf(name).cli !== false, name);
  }
});
