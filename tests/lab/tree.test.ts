import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { modulesInOrder } from './image.ts';
import { debianSources } from './tree.ts';

/** A folder like /etc/apt with the given files. */
async function aptFolder(
  files: Readonly<Record<string, string>>,
): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'lab-apt-'));
  await mkdir(join(path, 'sources.list.d'));
  for (const [name, text] of Object.entries(files)) await writeFile(join(path, name), text);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

const stanza = (suites: string, folder = 'debian') =>
  `Types: deb\n# a remark\nURIs: http://mirror.example/${folder}\nSuites: ${suites}\nComponents: main\n`;

test('of stanzas, only those of the suite and its updates are taken', async () => {
  await using apt = await aptFolder({
    'sources.list.d/debian.sources': `${stanza('bookworm bookworm-updates')}\n${stanza('trixie')}`,
    'sources.list.d/other.sources': stanza('bookworm', 'someone-else'),
    'sources.list.d/security.sources': stanza('bookworm-security', 'debian-security'),
  });
  const expected = `${stanza('bookworm bookworm-updates')}\n${stanza('bookworm-security', 'debian-security')}`;
  assert.equal(await debianSources(apt.path), expected);
});

test('of one-line sources, only those of the suite are taken', async () => {
  await using apt = await aptFolder({
    'sources.list':
      'deb http://mirror.example/debian bookworm main\n# deb http://mirror.example/debian bookworm main\n',
    'sources.list.d/tools.list': 'deb https://tools.example/apt tools-bookworm main\n',
  });
  assert.equal(await debianSources(apt.path), 'deb http://mirror.example/debian bookworm main\n');
});

test('a machine without sources of the suite has none', async () => {
  await using apt = await aptFolder({ 'sources.list': 'deb http://mirror.example/ubuntu noble main\n' });
  assert.equal(await debianSources(apt.path), '');
});

test('modules are ordered after what they depend on, each once, and built-in ones are passed over', () => {
  const dep = [
    'kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko',
    'kernel/fs/jbd2/jbd2.ko:',
    'kernel/lib/crc16.ko:',
    'kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko',
    'kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko',
    'kernel/drivers/virtio/virtio.ko:',
  ].join('\n');
  const names = modulesInOrder(dep, ['virtio_blk', 'built_in', 'ext4', 'jbd2']).map((path) =>
    path.split('/').at(-1),
  );
  assert.deepEqual(names, ['virtio.ko', 'virtio_ring.ko', 'virtio_blk.ko', 'crc16.ko', 'jbd2.ko', 'ext4.ko']);
});
