import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

/** An npm that cannot stand another one beside it, and that says how often it was started. */
const npm = `#!/bin/sh
echo started >> starts
mkdir node_modules.busy || { echo "ENOTEMPTY" >&2; exit 1; }
rm -rf node_modules
sleep 0.3
for arch in x64 arm64; do
  mkdir -p node_modules/node-linux-$arch/bin
  [ -e ../no-node ] || { printf '#!/bin/sh\\n' > node_modules/node-linux-$arch/bin/node; chmod 755 node_modules/node-linux-$arch/bin/node; }
done
rmdir node_modules.busy
`;

/** A checkout, in a path with a space, whose npm is the one above. */
function checkout() {
  const place = mkdtempSync(join(tmpdir(), 'beosd toolchain-'));
  const folder = join(place, 'a checkout');
  mkdirSync(join(place, 'bin'));
  mkdirSync(folder);
  writeFileSync(join(place, 'bin', 'npm'), npm);
  chmodSync(join(place, 'bin', 'npm'), 0o755);
  const lock = (text: string) => writeFileSync(join(folder, 'package-lock.json'), text);
  lock('1');
  const install = async (what: string) => {
    const script = `set -eu; . "${join(import.meta.dirname, 'toolchain.sh')}"; need_packages "${folder}" ${what}`;
    const env = { ...process.env, PATH: `${join(place, 'bin')}:${process.env['PATH']}` };
    const child = spawn('sh', ['-c', script], { env, stdio: ['ignore', 'inherit', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, said };
  };
  const starts = () => {
    const file = join(folder, 'starts');
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').length : 0;
  };
  return { place, install, starts, lock };
}

test('two that start at once install once, and both go on', async () => {
  const { install, starts } = checkout();
  const ends = await Promise.all([install('runtime'), install('runtime'), install('all')]);
  assert.deepEqual(
    ends.map(({ code }) => code),
    [0, 0, 0],
    ends.map(({ said }) => said).join(''),
  );
  assert.ok(starts() <= 2, 'once for running and once for testing');
});

test('what is installed is kept until the lock file changes; what the tests need is enough to run', async () => {
  const { install, starts, lock } = checkout();
  for (const [what, count] of [
    ['runtime', 1],
    ['runtime', 1],
    ['all', 2],
    ['runtime', 2],
  ] as const) {
    assert.equal((await install(what)).code, 0);
    assert.equal(starts(), count, what);
  }
  lock('2');
  await install('runtime');
  assert.equal(starts(), 3);
});

test('an npm that left out the pinned Node is told so, and asked again by the next start', async () => {
  const { place, install, starts } = checkout();
  writeFileSync(join(place, 'no-node'), '');
  const { code, said } = await install('runtime');
  assert.equal(code, 1);
  assert.match(said, /npm has not brought .*bin\/node/);
  await install('runtime');
  assert.equal(starts(), 2);
});

test('beosctl runs through a link, from an installation that has the bundle alone', () => {
  const place = mkdtempSync(join(tmpdir(), 'beosd installed-'));
  const root = join(import.meta.dirname, '..');
  for (const folder of ['scripts', 'dist']) mkdirSync(join(place, 'lib', folder), { recursive: true });
  for (const file of ['scripts/beosctl', 'scripts/node', 'dist/beosctl.cjs'])
    copyFileSync(join(root, file), join(place, 'lib', file));
  symlinkSync(join(root, 'node_modules'), join(place, 'lib', 'node_modules'));
  mkdirSync(join(place, 'usr'));
  symlinkSync(join(place, 'lib/scripts/beosctl'), join(place, 'usr', 'beosctl'));
  const { stdout, stderr } = spawnSync(join(place, 'usr', 'beosctl'), ['--version'], { encoding: 'utf8' });
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/, stderr);
});
