import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Config, ConfigError, readConfig } from '#daemon/config.ts';

const read = (argv: string[], env: NodeJS.ProcessEnv = {}, file?: string): Config => {
  const command = readConfig(argv, env, '/srv', () => file);
  assert.equal(command.kind, 'run');
  return command.kind === 'run' ? command.config : assert.fail();
};

test('without --system everything lives in .beosd of the current folder, on loopback', () => {
  const config = read([]);
  assert.equal(config.sandbox, true);
  assert.deepEqual(config.listen, ['127.0.0.1', '::1']);
  assert.equal(config.dataDir, '/srv/.beosd');
  assert.equal(config.root, '/srv/.beosd/root');
  assert.equal(config.socket, '/srv/.beosd/beosd.sock');
  assert.equal(config.baseDir, '/srv/.beosd/base');
});

test('with --system the defaults are those of the contract', () => {
  const config = read(['--system']);
  assert.deepEqual(config.listen, ['0.0.0.0', '::']);
  assert.equal(config.dataDir, '/var/lib/beosd');
  assert.equal(config.socket, '/run/beosd/beosd.sock');
  assert.equal(config.root, '/');
  assert.equal(config.port, 18088);
});

test('a flag wins over the environment', () => {
  assert.equal(read(['--port', '1'], { BEOSD_PORT: '2' }).port, 1);
  assert.equal(read([], { BEOSD_PORT: '2' }).port, 2);
});

test('a bad value is refused with its name, itself, and what is allowed', () => {
  const cases: [string[], NodeJS.ProcessEnv, string | undefined, RegExp][] = [
    [['--port', 'http'], {}, undefined, /--port.*"http".*0 to 65535/],
    [['--profile', 'x'], {}, undefined, /"x".*beos, olares/],
    [['--listen', '0.0.0.0'], {}, undefined, /only loopback/],
    [[], { DID_GATE_URL: 'http://gate.example' }, undefined, /https/],
    [[], { KUBE_TYPE: 'swarm' }, undefined, /k3s, k8s/],
    [[], { INSTALLED_VERSION: '../x' }, undefined, /INSTALLED_VERSION/],
    [[], {}, '{"hostNames": ["a b"]}', /hostNames has "a b"/],
    [[], {}, '{"hostNmes": []}', /hostNmes/],
    [[], {}, '{', /not JSON/],
    [['--frobnicate'], {}, undefined, /frobnicate/],
    [['--system', '--listen', 'node.local'], {}, undefined, /"node\.local".*addresses/],
    [['--system'], { BEOSD_LISTEN: '0.0.0.0,10.0.0' }, undefined, /"10\.0\.0".*addresses/],
    [['--data-dir', ''], {}, undefined, /--data-dir is "".*a path/],
  ];
  for (const [argv, env, file, expected] of cases) {
    assert.throws(
      () => readConfig(argv, env, '/srv', () => file),
      (error) => error instanceof ConfigError && expected.test(error.message),
      String(expected),
    );
  }
});

test('a folder where config.json should be is a wrong configuration, a disk that hesitates is not', () => {
  const failing = (code: string) => () => {
    throw Object.assign(new Error(code), { code });
  };
  assert.throws(
    () => readConfig(['--check-config'], {}, '/srv', failing('EISDIR')),
    (error) => error instanceof ConfigError && /config\.json is not a JSON file/.test(error.message),
  );
  assert.throws(
    () => readConfig(['--check-config'], {}, '/srv', failing('EIO')),
    (error) => !(error instanceof ConfigError),
  );
});
