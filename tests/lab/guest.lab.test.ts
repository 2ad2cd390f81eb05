import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { labAvailable } from './available.ts';
import { deferred, within } from './deadline.ts';
import { bootGuest, type Guest } from './guest.ts';
import { ownRuns } from './runs.ts';
import { makeStick } from './sticks.ts';

const reason = await labAvailable('guest');
const stickPath = '/dev/disk/by-label/LABSTICK';

describe('a guest of the lab', { skip: reason ?? false, timeout: 20 * 60_000 }, () => {
  let vm: Guest;
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lab-guest-'));
    vm = await bootGuest();
  });
  after(async () => {
    await vm[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  it('goes on from a booted machine, with the right time', async (t) => {
    const start = performance.now();
    await using other = await bootGuest();
    t.diagnostic(`restored in ${Math.round(performance.now() - start)} ms`);
    assert.match((await other.run(['systemctl', 'is-system-running'])).stdout, /running/);
    const asked = Date.now() / 1000;
    const { stdout } = await other.run(['date', '+%s']);
    // It looked at its clock between the question and the answer, which takes as long as it takes.
    const [early, late] = [asked - Number(stdout), Number(stdout) - Date.now() / 1000];
    assert.ok(early < 5 && late < 5, `the guest says ${stdout}`);
  });

  it("runs the distribution's kernel with what the machine of the tests may lack", async () => {
    const { stdout } = await vm.run([
      'modprobe',
      '--all',
      '--verbose',
      'usb-storage',
      'uas',
      'cifs',
      'nfs',
      'vfat',
      'exfat',
    ]);
    assert.match(stdout, /cifs\.ko/);
    assert.equal((await vm.run(['node', '--version'])).stdout.trim(), process.version);
  });

  it('reports the exit code and the words of a command that fails, and ends one that hangs', async () => {
    const failed = { name: 'ExecError', exitCode: 3, stderr: 'no\n' };
    await assert.rejects(vm.run(['sh', '-c', 'echo no >&2; exit 3']), failed);
    await assert.rejects(vm.run(['sleep', '100'], { timeoutMs: 300 }), { reason: 'timeout' });
    await assert.rejects(vm.run(['/nothing']), { reason: 'start' });
  });

  it('puts a file in, byte for byte', async () => {
    const bytes = Buffer.from(Array.from({ length: 1_000_000 }, (_, at) => (at * at) % 251));
    await vm.put('/root/deep/file', bytes, 0o600);
    const { stdout } = await vm.run(['stat', '--format=%a %s', '/root/deep/file']);
    assert.equal(stdout, '600 1000000\n');
    const same =
      'console.log((await import("node:fs")).readFileSync("/root/deep/file").every((b, at) => b === (at * at) % 251))';
    assert.equal((await vm.run(['node', '--input-type=module', '-e', same])).stdout, 'true\n');
  });

  it('copies a folder in with its modes', async (t) => {
    const source = join(folder, 'source');
    await mkdir(source);
    await writeFile(join(source, 'secret'), 'x', { mode: 0o600 });
    await writeFile(join(source, 'big'), Buffer.alloc(20_000_000, 7));
    const start = performance.now();
    await vm.copyIn(source, '/opt/copied');
    t.diagnostic(`20 MB in ${Math.round(performance.now() - start)} ms`);
    const { stdout } = await vm.run(['stat', '--format=%a %s', '/opt/copied/secret', '/opt/copied/big']);
    assert.equal(stdout, '600 1\n644 20000000\n');
  });

  it('reaches a server inside', async () => {
    const source = `require('node:http').createServer((q, a) => q.pipe(a)).listen(18088, '127.0.0.1', () => console.log('up'))`;
    const up = deferred<void>();
    const server = vm.follow(['node', '-e', source], () => up.resolve());
    await within(30_000, 'the server', up.promise);
    const answer = await vm.http('/', { method: 'POST', body: { a: 'ä'.repeat(10_000) } });
    assert.deepEqual(answer.json(), { a: 'ä'.repeat(10_000) });
    server.stop();
    await server.ended;
    await assert.rejects(vm.http('/'));
  });

  it('sees a stick come with a udev event, keeps its files, and sees it go', async (t) => {
    const image = join(folder, 'stick');
    await makeStick({ image, filesystem: 'vfat', label: 'LABSTICK' });
    const events = await blockEvents(vm);
    let start = performance.now();
    const first = await vm.plugUsb({ image, serial: 'LAB0001' });
    await events.next(/^UDEV .* add .*\/sda\/sda1 /);
    t.diagnostic(`udev's event ${Math.round(performance.now() - start)} ms after the plug`);
    const { stdout } = await vm.run(['udevadm', 'info', '--query=property', '--name', stickPath]);
    assert.match(stdout, /^ID_BUS=usb$/m);
    assert.match(stdout, /^ID_SERIAL_SHORT=LAB0001$/m);
    await vm.run(['sh', '-c', `mount ${stickPath} /mnt && echo kept > /mnt/file && umount /mnt`]);
    start = performance.now();
    await vm.unplugUsb(first);
    await events.next(/^UDEV .* remove .*\/sda\/sda1 /);
    t.diagnostic(`udev's event ${Math.round(performance.now() - start)} ms after the unplug`);
    const second = await vm.plugUsb({ image, serial: 'LAB0001', vendor: 'ACME', product: 'Stick' });
    await events.next(/^UDEV .* add .*1 \(block\)$/);
    const read = await vm.run(['sh', '-c', `mount -o ro ${stickPath} /mnt && cat /mnt/file && umount /mnt`]);
    assert.equal(read.stdout, 'kept\n');
    await vm.unplugUsb(second);
    events.stop();
  });

  it('boots again after a power cut, with what was synced and the stick that was in', async (t) => {
    const image = join(folder, 'left-in');
    await makeStick({ image, filesystem: 'exfat', label: 'LABSTICK', table: 'gpt' });
    await vm.plugUsb({ image, serial: 'LAB0002' });
    await vm.run(['sh', '-c', 'echo kept > /root/synced && sync && echo lost > /root/unsynced']);
    await vm.powerCut();
    assert.throws(() => vm.run(['true']), /the guest is off/);
    const start = performance.now();
    await vm.powerOn();
    t.diagnostic(`booted in ${Math.round(performance.now() - start)} ms`);
    assert.equal((await vm.run(['cat', '/root/synced'])).stdout, 'kept\n');
    assert.equal((await vm.run(['sh', '-c', 'cat /root/unsynced || true'])).stdout, '');
    await vm.run(['udevadm', 'wait', '--timeout=30', stickPath]);
  });

  it('reboots when it is asked to', async (t) => {
    const before = (await vm.run(['cat', '/proc/sys/kernel/random/boot_id'])).stdout;
    const start = performance.now();
    await vm.reboot();
    t.diagnostic(`rebooted in ${Math.round(performance.now() - start)} ms`);
    assert.notEqual((await vm.run(['cat', '/proc/sys/kernel/random/boot_id'])).stdout, before);
  });

  it('sets a machine up once and starts every other one from there', async () => {
    let setUps = 0;
    const prepare = {
      recipe: 'smoke test',
      async setUp(machine: Guest) {
        setUps++;
        await machine.put('/root/prepared', 'yes');
      },
    };
    await (await bootGuest({ prepare }))[Symbol.asyncDispose]();
    const first = setUps; // 0 when an earlier run has left its state in the cache
    await using other = await bootGuest({ prepare });
    assert.equal((await other.run(['cat', '/root/prepared'])).stdout, 'yes');
    assert.equal(setUps, first);
  });

  it('leaves nothing behind', async () => {
    const other = await bootGuest();
    const before = await ownRuns();
    await other[Symbol.asyncDispose]();
    assert.equal((await ownRuns()).length, before.length - 1);
  });
});

interface Events {
  /** Settles with the first line later than the last one returned that matches. */
  next(match: RegExp): Promise<string>;
  stop(): void;
}

/** Listens for udev's events of block devices; returns when it does. */
async function blockEvents(vm: Guest): Promise<Events> {
  const lines: string[] = [];
  let arrived = deferred<void>();
  const monitor = vm.follow(['udevadm', 'monitor', '--udev', '--subsystem-match=block'], (line) => {
    lines.push(line);
    arrived.resolve();
    arrived = deferred();
  });
  const search = async (match: RegExp) => {
    for (;;) {
      for (let line = lines.shift(); line !== undefined; line = lines.shift())
        if (match.test(line)) return line;
      await arrived.promise;
    }
  };
  const next = (match: RegExp) => within(60_000, `udev's ${match}`, search(match));
  await next(/^UDEV - /);
  return { next, stop: () => monitor.stop() };
}
