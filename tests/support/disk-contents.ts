import { execFileSync } from 'node:child_process';
import type { LoopDisk } from './loop-disk.ts';

// What makes a disk one that is not blank: byte by byte where the tool for it is rarely installed.

const uberblock = Buffer.alloc(1024);
uberblock.writeBigUInt64LE(0x00bab10cn, 0);
uberblock.writeBigUInt64LE(5000n, 8);

/** A file system whose partition table somebody has overwritten: all of it can still be had back. */
export function lost(disk: LoopDisk): void {
  const args = ['-q', '-F', '-E', 'offset=1048576', disk.image, '32M'];
  execFileSync('mkfs.ext4', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

export function luks(disk: LoopDisk, type: string): void {
  const args = [
    'luksFormat',
    '--batch-mode',
    '--type',
    type,
    '--pbkdf',
    'pbkdf2',
    '--pbkdf-force-iterations',
    '1000',
    disk.image,
    '-',
  ];
  execFileSync('cryptsetup', args, { input: 'passphrase', stdio: ['pipe', 'ignore', 'pipe'] });
}

export function table(disk: LoopDisk, script: string): void {
  execFileSync('sfdisk', ['--quiet', disk.image], { input: script, stdio: ['pipe', 'ignore', 'pipe'] });
}

/** "LABELONE", the sector number, its checksum (LVM's own CRC is checked by blkid) and the type. */
export function lvmLabel(): Buffer {
  const sector = Buffer.alloc(512);
  sector.write('LABELONE', 0);
  sector.writeBigUInt64LE(1n, 8);
  sector.writeUInt32LE(32, 20);
  sector.write('LVM2 001', 24);
  sector.write('0123456789ABCDEF0123456789ABCDEF', 32);
  sector.writeUInt32LE(lvmCrc(sector.subarray(20)), 16);
  return sector;
}

function lvmCrc(bytes: Uint8Array): number {
  let crc = 0xf597a6cf;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return crc >>> 0;
}

export function mdSuperblock(at = 4096): Buffer {
  const block = Buffer.alloc(4096);
  block.writeUInt32LE(0xa92b4efc, 0);
  block.writeUInt32LE(1, 4);
  block.fill(7, 16, 32);
  block.writeBigUInt64LE(BigInt(at / 512), 144);
  return block;
}

/** Format 1.0 lies 8 KiB before the end, rounded down to 4 KiB. */
export function mdEnd(size: number): number {
  return Math.floor((size / 512 - 16) / 8) * 8 * 512;
}

export function zfs(disk: LoopDisk): void {
  for (let n = 0; n < 128; n++) disk.write(128 * 1024 + n * 1024, uberblock);
}

export function squashfs(): Buffer {
  const block = Buffer.alloc(96);
  block.write('hsqs', 0);
  block.writeUInt16LE(4, 28);
  return block;
}
