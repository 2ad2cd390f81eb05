import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Job } from '#api/shapes.ts';
import type { Status } from '#api/status.ts';
import { createKey, type SigningKey, signBound, signLegacy } from '#client/sign.ts';
import { ask, type DaemonProcess, type Reply, startDaemonProcess } from './daemon-process.ts';

/** A node of its own: data dir, recorded installer, and the key of the one who will own it. */
export class InstallNode {
  readonly dir = mkdtempSync(join(tmpdir(), 'beosd-node-'));
  readonly key: SigningKey = createKey();
  #daemon: DaemonProcess | undefined;

  constructor() {
    mkdirSync(join(this.dir, 'cli'));
    const program = this.program;
    copyFileSync(join(import.meta.dirname, 'recorded-installer.sh'), program);
    chmodSync(program, 0o755);
  }

  get program(): string {
    return join(this.dir, 'cli', 'node-cli');
  }

  get daemon(): DaemonProcess {
    if (this.#daemon === undefined) throw new Error('the daemon is not running');
    return this.#daemon;
  }

  async start(): Promise<DaemonProcess> {
    const env = { BEOS_CLI: this.program, BASE_DIR: join(this.dir, 'base') };
    this.#daemon = await startDaemonProcess({ dataDir: join(this.dir, 'data'), env });
    await this.#known();
    return this.#daemon;
  }

  /** How the recorded installer shall behave, and how long it pauses between two lines, s. */
  play(mode: string, pause = 0.01): void {
    writeFileSync(join(this.dir, 'cli', 'mode'), mode);
    writeFileSync(join(this.dir, 'cli', 'pause'), String(pause));
  }

  /** Lines of a file that the installer leaves beside itself (`starts`, `seen`). */
  left(name: string): string[] {
    const path = join(this.dir, 'cli', name);
    return existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : [];
  }

  /** The installer has been started so often. */
  async started(times: number): Promise<void> {
    const until = Date.now() + 15_000;
    while (this.left('starts').length < times) {
      if (Date.now() > until) throw new Error(`the installer was not started\n${this.daemon.log()}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async status(): Promise<Status> {
    const { json } = await ask(this.daemon.port, { path: '/system/status' });
    return json.data as Status;
  }

  /** A request in the form that the phone app signs. */
  async signedLegacy(
    method: string,
    path: string,
    body: Record<string, unknown>,
    signed = body,
  ): Promise<Reply> {
    const jws = signLegacy(this.key, {
      now: Date.now(),
      body: signed,
      domain: `http://127.0.0.1:${this.daemon.port}`,
    });
    return await this.#send(method, path, JSON.stringify(body), jws);
  }

  /** A request that is bound to method, path, body and node. */
  async signedBound(method: string, path: string, body?: Record<string, unknown>): Promise<Reply> {
    const { nodeId } = await this.status();
    const text = body === undefined ? '' : JSON.stringify(body);
    const jws = signBound(this.key, { now: Date.now(), method, path, rawBody: text, nodeId });
    return await this.#send(method, path, text, jws);
  }

  /** A daemon that has just started may still be reading the network. */
  async #known(): Promise<void> {
    const until = Date.now() + 15_000;
    while ((await this.status()).terminusState === 'checking' && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async job(id: string): Promise<Job> {
    const { json } = await ask(join(this.daemon.dataDir, 'beosd.sock'), { path: `/jobs/${id}` });
    return json.data as Job;
  }

  /** The job once it has ended. */
  async ended(id: string, withinMs = 30_000): Promise<Job> {
    const until = Date.now() + withinMs;
    for (;;) {
      const job = await this.job(id);
      if (job.finishedAt !== null) return job;
      if (Date.now() > until)
        throw new Error(`job ${id} has not ended: ${JSON.stringify(job)}\n${this.daemon.log()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #send(method: string, path: string, body: string, jws: string): Promise<Reply> {
    const headers = { 'x-signature': jws, ...(body === '' ? {} : { 'content-type': 'application/json' }) };
    return ask(this.daemon.port, { method, path, headers, ...(body === '' ? {} : { body }) });
  }
}
