import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { closeSync, constants, fsyncSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Exec, ExecError } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { SecretFiles } from '#host/secrets.ts';

/** Keeps what must not be read by others: at rest sealed to this machine, in use in files on tmpfs. */
export interface Secrets {
  /** Text that only this machine can open again, and only under the same name. */
  seal(name: string, secret: string): Promise<string>;
  open(name: string, sealed: string): Promise<string>;
  /** Runs `use` with the path of a file (0600, tmpfs) that holds the secret; the file is gone afterwards. */
  withFile<T>(secret: string, use: (path: string) => Promise<T>): Promise<T>;
}

interface Places {
  /** Key for machines without systemd-creds: /etc/beosd/secret.key. */
  readonly keyFile: string;
  /** A folder on tmpfs: /run/beosd/secrets. */
  readonly runDir: string;
  /** False in a sandbox: systemd-creds would make a key of the whole machine. */
  readonly useSystemd: boolean;
}

/** `systemd-creds --with-key=host` where the machine has it, else AES-256-GCM with a key file (0600). */
export class SystemSecrets implements Secrets {
  readonly #exec: Exec;
  readonly #files: Files;
  readonly #places: Places;

  constructor(exec: Exec, files: Files, places: Places) {
    this.#exec = exec;
    this.#files = files;
    this.#places = places;
  }

  async seal(name: string, secret: string): Promise<string> {
    if (this.#places.useSystemd) {
      try {
        const args = ['encrypt', '--with-key=host', `--name=${credentialName(name)}`, '-', '-'];
        const { stdout } = await this.#exec.run('systemd-creds', args, { stdin: secret, timeoutMs: 20_000 });
        return `systemd:${stdout.replaceAll(/\s/g, '')}`;
      } catch {
        // An older systemd (< 250), or none: our own key does.
      }
    }
    return `key:${this.#encrypt(name, secret)}`;
  }

  async open(name: string, sealed: string): Promise<string> {
    if (sealed.startsWith('key:')) return this.#decrypt(name, sealed.slice(4));
    const args = ['decrypt', `--name=${credentialName(name)}`, '-', '-'];
    const stdin = sealed.replace(/^systemd:/, '');
    try {
      const { stdout } = await this.#exec.run('systemd-creds', args, { stdin, timeoutMs: 20_000 });
      return stdout;
    } catch (error) {
      // What it printed before it failed may be the secret: only what it complained of is told, and no cause is kept.
      const { reason, stderr } = error instanceof ExecError ? error : { reason: 'start', stderr: '' };
      throw new Error(`systemd-creds cannot open it: ${stderr.trim() || `ended by ${reason}`}`);
    }
  }

  async withFile<T>(secret: string, use: (path: string) => Promise<T>): Promise<T> {
    mkdirSync(this.#places.runDir, { recursive: true, mode: 0o700 });
    const path = join(this.#places.runDir, randomBytes(12).toString('hex'));
    try {
      writeNew(path, secret);
      return await use(path);
    } finally {
      this.#files.remove(path);
    }
  }

  /** Files that a crash left on tmpfs, or beside the key; called once at start. What cannot go keeps no other. */
  sweep(): void {
    this.#files.sweepTemps(this.#places.keyFile);
    new SecretFiles(this.#places.runDir, this.#files).sweep(new Set());
  }

  #encrypt(name: string, secret: string): string {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', this.#key() ?? this.#newKey(), nonce).setAAD(
      Buffer.from(name),
    );
    const body = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()]);
    return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64');
  }

  #decrypt(name: string, sealed: string): string {
    const key = this.#key();
    // A new key would open nothing, and stand in the way of the old one when that is put back.
    if (key === undefined)
      throw new Error(`the key that it was sealed with is gone (${this.#places.keyFile})`);
    const bytes = Buffer.from(sealed, 'base64');
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12));
    decipher.setAAD(Buffer.from(name)).setAuthTag(bytes.subarray(12, 28));
    return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString('utf8');
  }

  #key(): Buffer | undefined {
    const kept = this.#files.readBytes(this.#places.keyFile);
    if (kept !== undefined && kept.length !== 32)
      throw new Error(`${this.#places.keyFile} is not a key (${kept.length} bytes, not 32)`);
    return kept;
  }

  /** Whole or not at all: half a key, left by a full disk or a power cut, would be in the way for good. */
  #newKey(): Buffer {
    mkdirSync(dirname(this.#places.keyFile), { recursive: true, mode: 0o755 });
    const key = randomBytes(32);
    this.#files.replace(this.#places.keyFile, key, { mode: 0o600 });
    return key;
  }
}

/** systemd wants a name without slashes, at most 255 bytes. */
function credentialName(name: string): string {
  return `beosd.${createHash('sha256').update(name).digest('hex')}`;
}

function writeNew(path: string, content: string | Uint8Array): void {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const fd = openSync(path, flags, 0o600);
  try {
    const bytes = Buffer.from(content);
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
