import assert from 'node:assert/strict';
import { realpath } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { labAvailable } from './available.ts';
import { bootContainer, type Container } from './nspawn.ts';

const reason = await labAvailable('container');
const root = fileURLToPath(new URL('../..', import.meta.url));
const inside = '/opt/beosd/tests/lab/power-inside.ts';

describe('power through the real logind', { skip: reason ?? false, timeout: 15 * 60_000 }, () => {
  let box: Container;
  before(async () => {
    const names = ['src', 'tests', 'package.json', 'node_modules'];
    const binds = await Promise.all(
      names.map(async (name) => ({ from: await realpath(`${root}${name}`), to: `/opt/beosd/${name}` })),
    );
    box = await bootContainer({ binds });
  });
  after(() => box[Symbol.asyncDispose]());

  it('names the program that holds the shutdown back, and leaves the machine up', async () => {
    const hold = [
      'systemd-inhibit',
      '--what=shutdown',
      '--mode=block',
      '--who=Package Manager',
      '--why=writing',
    ];
    const { stdout } = await box.run([...hold, 'node', inside, 'reboot']);
    assert.match(stdout, /refused\. Package Manager \(process \d+\) holds it back: writing/);
    assert.equal((await box.run(['systemctl', 'is-system-running'])).stdout, 'running\n');
  });

  it('reboots the machine', async () => {
    const before = await bootIdentity(box);
    const next = box.nextBoot();
    next.catch(() => undefined); // awaited below, unless the request itself fails
    assert.equal((await box.run(['node', inside, 'reboot'])).stdout, 'accepted\n');
    assert.equal(await next, 'running');
    // The kernel's own boot id stays in a container; what a resumed job compares must not.
    assert.notEqual(await bootIdentity(box), before);
  });

  it('powers the machine off', async () => {
    assert.equal((await box.run(['node', inside, 'shutdown'])).stdout, 'accepted\n');
    assert.equal(await box.ended, 0);
  });
});

async function bootIdentity(box: Container): Promise<string> {
  const print =
    "import('/opt/beosd/src/host/boot.ts').then(({ bootIdentity }) => console.log(bootIdentity()))";
  const { stdout } = await box.run(['node', '--eval', print]);
  return stdout.trim();
}
