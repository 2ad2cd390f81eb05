import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { bootIdentity } from '#host/boot.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import type { MachineFacts } from '#state/facts.ts';
import { Machine } from '#system/machine.ts';
import { heard } from '../../tests/support/heard.ts';

const files = new Files();
const folder = () => mkdtempSync(join(tmpdir(), 'beosd-machine-'));

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** A machine under a folder, with the files that it needs to be read. */
function recordedMachine(more: Record<string, string>): string {
  const root = folder();
  const all = {
    '/proc/sys/kernel/hostname': 'pi\n',
    '/proc/sys/kernel/osrelease': '6.6.31-v8\n',
    '/proc/sys/kernel/random/boot_id': 'b00t\n',
    '/proc/stat': 'cpu 1 2 3\nbtime 1764000000\n',
    '/proc/1/stat': `1 (sys temd) S ${Array.from({ length: 18 }, () => '0').join(' ')} 250 0`,
    '/proc/meminfo': 'MemTotal:        8000000 kB\n',
    ...more,
  };
  for (const [path, text] of Object.entries(all)) write(join(root, path), text);
  return root;
}

function readMachine(root: string): MachineFacts {
  const machine = heard<MachineFacts>();
  new Machine({
    files,
    clock: new FakeClock(),
    root,
    defaultDeviceName: 'Selfhosted',
    onFacts: machine.onFacts,
  }).start();
  return machine.last();
}

test('a Raspberry Pi is read without a child: board, ARM core, boot', () => {
  const facts = readMachine(
    recordedMachine({
      '/etc/os-release':
        'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\n',
      '/proc/cpuinfo':
        'processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nModel\t: Raspberry Pi 5\n',
      '/proc/device-tree/model': 'Raspberry Pi 5 Model B Rev 1.0\0',
    }),
  );
  assert.deepEqual(
    [
      facts.hostName,
      facts.deviceName,
      facts.cpu,
      facts.osInfo,
      facts.osVersion,
      facts.memoryBytes,
      facts.gpu,
    ],
    [
      'pi',
      'Raspberry Pi 5 Model B Rev 1.0',
      'ARM Cortex-A76',
      'Debian GNU/Linux 12 (bookworm)',
      '12',
      8_192_000_000,
      undefined,
    ],
  );
  assert.deepEqual([facts.bootId, facts.bootedAt], ['b00t-250', 1764000000_000 + 2500]);
});

test('a PC: the graphics card that says most, a DMI name only when its maker gave one', () => {
  const pci = (slot: string, kind: string, vendor: string, device: string) => ({
    [`/sys/bus/pci/devices/${slot}/class`]: kind,
    [`/sys/bus/pci/devices/${slot}/vendor`]: vendor,
    [`/sys/bus/pci/devices/${slot}/device`]: device,
  });
  const common = { '/proc/cpuinfo': 'model name\t: Intel(R)  Core(TM) i5\n' };
  const facts = readMachine(
    recordedMachine({
      ...common,
      ...pci('0000:00:1f.0', '0x060100', '0x8086', '0x1'),
      ...pci('0000:01:00.0', '0x030000', '0x1a03', '0x2000'),
      ...pci('0000:02:00.0', '0x030200', '0x1002', '0x744c'),
      '/sys/class/dmi/id/product_name': 'To Be Filled By O.E.M.\n',
    }),
  );
  assert.deepEqual(
    [facts.gpu, facts.deviceName, facts.cpu],
    ['AMD 744c', 'Selfhosted', 'Intel(R) Core(TM) i5'],
  );
  const named = readMachine(
    recordedMachine({
      ...common,
      '/sys/class/dmi/id/product_name': 'NUC13ANHi5\n',
      '/proc/driver/nvidia/gpus/0/information': 'Model: \t NVIDIA GeForce RTX 4090\n',
    }),
  );
  assert.deepEqual([named.deviceName, named.gpu], ['NUC13ANHi5', 'NVIDIA GeForce RTX 4090']);
  const installer = readMachine(
    recordedMachine({
      ...common,
      '/etc/machine.info': 'beOS One\n',
      '/sys/class/dmi/id/product_name': 'NUC\n',
    }),
  );
  assert.equal(installer.deviceName, 'beOS One');
});

test('this very machine can be read, and its start is the one that jobs remember', () => {
  const facts = readMachine('');
  assert.equal(facts.bootId, bootIdentity());
  assert.ok(
    facts.memoryBytes > 0 && facts.diskBytes > 0 && facts.bootedAt < Date.now() && facts.hostName !== '',
  );
});

test('a machine whose boot cannot be told is unknown and says why', () => {
  const machine = heard<MachineFacts>();
  const source = new Machine({
    files,
    clock: new FakeClock(),
    root: folder(),
    defaultDeviceName: 'x',
    onFacts: machine.onFacts,
  });
  source.start();
  assert.match(JSON.stringify(machine.said), /"known":false.*when the machine started/);
});
