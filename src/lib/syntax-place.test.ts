import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse as parseToml } from 'smol-toml';
import { parse as parseYaml } from 'yaml';
import { syntaxProblem } from '#lib/syntax-place.ts';

function thrownBy(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return assert.fail('it was parsed');
}

test('what a parser complains of is told by its place, without a letter of the text', () => {
  const toml = thrownBy(() => parseToml('[auth]\npassword = "s3cret" more\n'));
  assert.equal(syntaxProblem(toml, 'TOML'), 'not TOML (line 2, column 21)');
  const yaml = thrownBy(() => parseYaml('a: 1\npassword: "s3cret" more\n'));
  assert.equal(syntaxProblem(yaml, 'YAML'), 'not YAML (line 2, column 20)');
  const alias = thrownBy(() => parseYaml('password: *s3cret'));
  assert.equal(syntaxProblem(alias, 'YAML'), 'not YAML');
  assert.equal(syntaxProblem('thrown', 'YAML'), 'not YAML');
});
