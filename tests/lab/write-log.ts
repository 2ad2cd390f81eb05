import { type FileHandle, open, truncate, writeFile } from 'node:fs/promises';

/** Format of the log: drivers/md/dm-log-writes.c of Linux, which QEMU's blklogwrites writes too. */
const magic = 0x6a736677736872n;
const discarded = 4n;
const entryLength = 32;

/** A log with room for what a small disk is sent; it takes no space until it is written. */
export async function makeWriteLog(path: string): Promise<void> {
  await writeFile(path, '');
  await truncate(path, 2 * 1024 ** 3);
}

interface Head {
  /** Up to the last flush: QEMU counts them on when the disk is told to flush. */
  readonly entries: number;
  readonly sector: number;
}

/**
 * How much of the log has been flushed. Asked before the power is cut: QEMU itself flushes when it quits, which a disk
 * does not.
 */
export async function flushedSoFar(log: string): Promise<Head> {
  await using file = await open(log, 'r');
  const head = await bytesAt(file, 0, 28);
  if (head.readBigUInt64LE(0) !== magic) return { entries: 0, sector: 512 };
  return { entries: Number(head.readBigUInt64LE(16)), sector: head.readUInt32LE(24) };
}

/**
 * Makes an image what a disk holds that was blank when the machine was switched on, and has lost its cache with the
 * power: only what it had been told to flush. How many writes that are.
 */
export async function loseCache(image: string, log: string, { entries, sector }: Head): Promise<number> {
  await using from = await open(log, 'r');
  await using to = await open(image, 'r+');
  const { size } = await to.stat();
  await to.truncate(0);
  await to.truncate(size);
  let at = sector;
  let writes = 0;
  for (let n = 0; n < entries; n++) {
    const entry = await bytesAt(from, at, entryLength);
    at += sector;
    const isDiscard = (entry.readBigUInt64LE(16) & discarded) !== 0n;
    const length = isDiscard ? 0 : Number(entry.readBigUInt64LE(8)) * sector;
    if (length > 0) {
      await to.write(await bytesAt(from, at, length), 0, length, Number(entry.readBigUInt64LE(0)) * sector);
      writes++;
    }
    at += length;
  }
  return writes;
}

async function bytesAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
  if (bytesRead !== length) throw new Error('lab: the log of writes ends too soon');
  return buffer;
}
