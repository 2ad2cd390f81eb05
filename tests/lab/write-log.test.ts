import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { flushedSoFar, loseCache, makeWriteLog } from './write-log.ts';

const sector = 512;
const discard = 4n;

function head(entries: number): Buffer {
  const bytes = Buffer.alloc(sector);
  bytes.writeBigUInt64LE(0x6a736677736872n, 0);
  bytes.writeBigUInt64LE(1n, 8);
  bytes.writeBigUInt64LE(BigInt(entries), 16);
  bytes.writeUInt32LE(sector, 24);
  return bytes;
}

function entry(at: number, sectors: number, flags = 0n): Buffer {
  const bytes = Buffer.alloc(sector);
  bytes.writeBigUInt64LE(BigInt(at), 0);
  bytes.writeBigUInt64LE(BigInt(sectors), 8);
  bytes.writeBigUInt64LE(flags, 16);
  return bytes;
}

test('a disk that loses its cache keeps what was flushed, in the order in which it was written', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'write-log-'));
  const [image, log] = [join(folder, 'image'), join(folder, 'log')];
  writeFileSync(image, Buffer.alloc(8 * sector, 'x'));
  const flushed = [
    ...[entry(1, 2), Buffer.alloc(2 * sector, 'a')],
    ...[entry(2, 1), Buffer.alloc(sector, 'b')],
    ...[entry(5, 1, discard), entry(0, 0, 1n)],
  ];
  const late = [entry(6, 1), Buffer.alloc(sector, 'c')];
  writeFileSync(log, Buffer.concat([head(4), ...flushed, ...late]));
  assert.equal(await loseCache(image, log, await flushedSoFar(log)), 2);
  const expected = Buffer.alloc(8 * sector);
  expected.fill('a', sector, 2 * sector).fill('b', 2 * sector, 3 * sector);
  assert.ok(readFileSync(image).equals(expected));
});

test('a disk that was never flushed is blank', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'write-log-'));
  const [image, log] = [join(folder, 'image'), join(folder, 'log')];
  writeFileSync(image, 'something');
  await makeWriteLog(log);
  assert.equal(await loseCache(image, log, await flushedSoFar(log)), 0);
  assert.ok(readFileSync(image).equals(Buffer.alloc(9)));
});
