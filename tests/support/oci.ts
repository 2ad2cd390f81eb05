import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';

/** An image made by hand, in the parts that a registry serves and an archive holds. */
export interface MadeImage {
  /** Digest of the manifest, `sha256:…`. */
  readonly digest: string;
  /** Digest of the configuration: what Kubernetes calls the image's id. */
  readonly id: string;
  readonly manifest: Buffer;
  /** What `manifest` is. Left out: one manifest; else an index of several. */
  readonly mediaType?: string;
  /** By digest: the configuration and the layer. */
  readonly blobs: ReadonlyMap<string, Buffer>;
  /** Bytes of manifest, configuration and layers together. */
  readonly size: number;
}

const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const indexType = 'application/vnd.oci.image.index.v1+json';
const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

const thisPlatform = architectures[process.arch] ?? process.arch;

/** An image for this machine's processor and one for another, behind one digest. Id and size are those of this machine's. */
export function makeIndex(content: string): MadeImage {
  const own = makeImage(content);
  const other = makeImage(`${content} for another`, 'riscv64');
  const index = json({
    schemaVersion: 2,
    mediaType: indexType,
    manifests: [
      {
        mediaType: manifestType,
        ...descriptor(other.manifest),
        platform: { architecture: 'riscv64', os: 'linux' },
      },
      {
        mediaType: manifestType,
        ...descriptor(own.manifest),
        platform: { architecture: thisPlatform, os: 'linux' },
      },
    ],
  });
  const manifests = [own, other].map((each) => [each.digest, each.manifest] as const);
  return {
    digest: digestOf(index),
    id: own.id,
    manifest: index,
    mediaType: indexType,
    blobs: new Map([...own.blobs, ...other.blobs, ...manifests]),
    size: index.length + own.size,
  };
}

/** One layer with one executable file, `/wait`. Different content makes a different image. */
export function makeImage(content: Buffer | string, architecture = thisPlatform): MadeImage {
  const layer = tar([{ name: 'wait', content: Buffer.from(content), mode: 0o755 }]);
  const zipped = gzipSync(layer);
  const config = json({
    architecture,
    os: 'linux',
    config: { Cmd: ['/wait'] },
    rootfs: { type: 'layers', diff_ids: [digestOf(layer)] },
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: manifestType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...descriptor(config) },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', ...descriptor(zipped) }],
  });
  return {
    digest: digestOf(manifest),
    id: digestOf(config),
    manifest,
    blobs: new Map([
      [digestOf(config), config],
      [digestOf(zipped), zipped],
    ]),
    size: manifest.length + config.length + zipped.length,
  };
}

/** An OCI archive that `ctr images import` takes, with the images under these names. */
export function makeArchive(images: Readonly<Record<string, MadeImage>>): Buffer {
  const manifests = Object.entries(images).map(([name, image]) => ({
    mediaType: image.mediaType ?? manifestType,
    ...descriptor(image.manifest),
    annotations: { 'io.containerd.image.name': name },
  }));
  const blobs = new Map<string, Buffer>();
  for (const image of Object.values(images)) {
    blobs.set(image.digest, image.manifest);
    for (const [digest, blob] of image.blobs) blobs.set(digest, blob);
  }
  return tar([
    { name: 'oci-layout', content: json({ imageLayoutVersion: '1.0.0' }), mode: 0o644 },
    { name: 'index.json', content: json({ schemaVersion: 2, manifests }), mode: 0o644 },
    ...[...blobs].map(([digest, content]) => ({
      name: `blobs/sha256/${digest.slice(7)}`,
      content,
      mode: 0o644,
    })),
  ]);
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function descriptor(bytes: Buffer) {
  return { digest: digestOf(bytes), size: bytes.length };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

interface Entry {
  readonly name: string;
  readonly content: Buffer;
  readonly mode: number;
}

/** A ustar archive (POSIX.1-1988 header layout). */
function tar(entries: readonly Entry[]): Buffer {
  const parts = entries.flatMap(({ name, content, mode }) => {
    const header = Buffer.alloc(512);
    header.write(name, 0);
    header.write(`${octal(mode, 7)}\0${octal(0, 7)}\0${octal(0, 7)}\0`, 100);
    header.write(`${octal(content.length, 11)}\0${octal(0, 11)}\0        0`, 124);
    header.write('ustar\x0000', 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${octal(sum, 6)}\0 `, 148);
    return [header, content, Buffer.alloc((512 - (content.length % 512)) % 512)];
  });
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

function octal(value: number, width: number): string {
  return value.toString(8).padStart(width, '0');
}

/** A static program for this machine that only waits (`pause(2)` in a loop), in 132 bytes; undefined: not this CPU. */
export function waitingProgram(): Buffer | undefined {
  if (process.arch !== 'x64') return undefined;
  const code = Buffer.from([0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]); // mov eax,34; syscall; jmp back
  const base = 0x400000n;
  const header = Buffer.alloc(120);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // 64 bit, little endian
  header.writeUInt16LE(2, 16); // executable
  header.writeUInt16LE(62, 18); // x86-64
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(base + 120n, 24); // entry
  header.writeBigUInt64LE(64n, 32); // program headers
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(1, 56);
  header.writeUInt32LE(1, 64); // PT_LOAD
  header.writeUInt32LE(5, 68); // readable, executable
  header.writeBigUInt64LE(base, 80);
  header.writeBigUInt64LE(base, 88);
  header.writeBigUInt64LE(BigInt(120 + code.length), 96);
  header.writeBigUInt64LE(BigInt(120 + code.length), 104);
  header.writeBigUInt64LE(0x1000n, 112);
  return Buffer.concat([header, code]);
}
