import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SystemDisks } from '#host/disks.ts';
import { ExecError, SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';

function world() {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-disks-'));
  const lock = join(folder, 'disks.lock');
  const image = join(folder, 'disk');
  writeFileSync(image, Buffer.alloc(2 * 1024 * 1024, 1));
  return { lock, image, disks: new SystemDisks(new SystemExec(), new Files(), lock) };
}

/** A program that holds the lock as one does that outlives its daemon; it ends when its input does. */
async function survivor(lock: string) {
  const child = spawn('flock', ['--no-fork', lock, 'sh', '-c', 'echo writing; cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

test('what writes to a disk is waited for, also when the daemon that started it has gone', async () => {
  const { lock, disks } = world();
  await disks.quiet();
  const child = await survivor(lock);
  let over = false;
  const quiet = disks.quiet().then(() => {
    over = true;
  });
  assert.equal(
    await Promise.race([
      quiet,
      once(child, 'exit', { signal: AbortSignal.timeout(300) }).catch(() => 'pending'),
    ]),
    'pending',
  );
  assert.equal(over, false);
  child.stdin.end();
  await quiet;
});

test('a program that writes to a disk holds the lock itself', async () => {
  const { lock, image, disks } = world();
  const child = await survivor(lock);
  const wiped = disks.wipe(image, 2 * 1024 * 1024);
  assert.equal(readFileSync(image).at(-1), 1, 'nothing is written beside the survivor');
  child.stdin.end();
  await wiped;
  assert.ok(readFileSync(image).every((byte) => byte === 0));
});

test('a folder is given away without what is in it, and a link in its place without what it leads to', {
  skip: process.getuid?.() === 0 ? false : 'needs root',
}, async () => {
  const { image, disks } = world();
  const folder = mkdtempSync(join(tmpdir(), 'beosd-given-'));
  mkdirSync(join(folder, 'inside'));
  symlinkSync(image, join(folder, 'link'));
  await disks.give(folder, { uid: 1234, gid: 1235 });
  await disks.give(join(folder, 'link'), { uid: 1234, gid: 1235 });
  const ownerOf = (path: string) => {
    const { uid, gid } = lstatSync(path);
    return [uid, gid];
  };
  assert.deepEqual([folder, join(folder, 'link')].map(ownerOf), [
    [1234, 1235],
    [1234, 1235],
  ]);
  assert.deepEqual([join(folder, 'inside'), image].map(ownerOf), [
    [0, 0],
    [0, 0],
  ]);
});

/** A USB device as sysfs shows it, with a disk that is taken out; `slots` are the sizes of its other units. */
function usbDevice(removable: string | undefined, slots: readonly number[], under = 'host3') {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-usb-'));
  const usb = join(folder, 'usb1', '1-1', '1-1.4');
  const blocks = [2048, ...slots].map((size, lun) => {
    const scsi = `${under}/target3:0:0/3:0:0:${lun}`;
    const block = join(usb, '1-1.4:1.0', scsi, 'block', `sd${'abc'[lun]}`);
    mkdirSync(block, { recursive: true });
    writeFileSync(join(block, 'size'), `${size}\n`);
    return block;
  });
  writeFileSync(join(usb, 'remove'), '');
  if (removable !== undefined) writeFileSync(join(usb, 'removable'), `${removable}\n`);
  return { usb, sysPath: blocks[0] ?? '' };
}

/** Notes the programs instead of running them. */
function noting() {
  const ran: string[] = [];
  const exec = new SystemExec();
  exec.run = async (file, args) => {
    ran.push([file, ...args].join(' '));
    return { stdout: '', stderr: '', exitCode: 0 };
  };
  return { ran, disks: new SystemDisks(exec, new Files(), '/nowhere') };
}

for (const [what, removable, slots, under, isStopped] of [
  ['a stick', 'removable', [], 'host3', true],
  ['a disk of which nobody can say whether it is built in', 'unknown', [], 'host3', true],
  ['a disk on a machine that says nothing of its ports', undefined, [], 'host3', true],
  ['a dock with two disks', 'removable', [4096], 'host3', true],
  ['a card in a reader that is built in', 'fixed', [], 'host3', false],
  ['a card in a reader with an empty slot', 'removable', [0], 'host3', false],
  ['a card in a reader with a full and an empty slot', 'unknown', [4096, 0], 'host3', false],
  ['a card that the kernel drives itself', 'removable', [], 'mmc_host/mmc0', false],
] as const) {
  test(`${what} is ${isStopped ? 'taken off the bus' : 'left on the bus, for the next one'}`, async () => {
    const { usb, sysPath } = usbDevice(removable, slots, under);
    const { ran, disks } = noting();
    assert.equal(await disks.powerDown('/dev/sda', sysPath), isStopped);
    assert.deepEqual(ran, isStopped ? ['blockdev --flushbufs /dev/sda', `tee ${usb}/remove`] : []);
  });
}

const healthy = { passed: true, message: 'SMART: passed' };
const failing = { passed: false, message: 'SMART: the disk expects to fail' };

/** As smartctl(8) --json answers; it ends with bits that tell of the disk, so every exit code is one to read. */
for (const [what, stdout, expected] of [
  ['a disk that is well', '{"smart_status":{"passed":true}}', healthy],
  ['a disk that expects to fail', '{"smart_status":{"passed":false}}', failing],
  ['a disk without SMART', '{"smartctl":{"exit_status":4}}', undefined],
  [
    'a disk that sleeps',
    '{"smartctl":{"exit_status":2,"messages":[{"string":"in STANDBY mode"}]}}',
    undefined,
  ],
  ['a verdict in words', '{"smart_status":{"passed":"true"}}', undefined],
  ['a smartctl that speaks no JSON', 'smartctl 6.6 2017-11-05', undefined],
  ['nothing', '', undefined],
] as const) {
  test(`of ${what}, the health is ${expected?.message ?? 'unknown'}`, async () => {
    const exec = new SystemExec();
    exec.run = async () => ({ stdout, stderr: '', exitCode: 8 });
    assert.deepEqual(await new SystemDisks(exec, new Files(), '/nowhere').health('/dev/sda'), expected);
  });
}

test('on a machine without smartctl no health is known', async () => {
  const exec = new SystemExec();
  const absent = {
    file: 'smartctl',
    args: [],
    reason: 'start',
    exitCode: null,
    stdout: '',
    stderr: '',
  } as const;
  exec.run = () => Promise.reject(new ExecError(absent));
  assert.equal(await new SystemDisks(exec, new Files(), '/nowhere').health('/dev/sda'), undefined);
});
