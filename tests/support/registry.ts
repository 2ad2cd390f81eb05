import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { MadeImage } from './oci.ts';

export interface TestRegistryOptions {
  /** Address of this machine to listen on. Default 127.0.0.1. */
  readonly address?: string;
  /** PEM; left out: plain http. */
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** A small image registry on loopback that remembers what it was asked (distribution spec, pull only). */
export class TestRegistry implements AsyncDisposable {
  readonly asked: string[] = [];
  readonly #images = new Map<string, MadeImage>();
  readonly #server: ReturnType<typeof createServer>;
  readonly #address: string;
  #port = 0;

  private constructor({ address = '127.0.0.1', tls }: TestRegistryOptions) {
    const answer = (request: IncomingMessage, response: ServerResponse) => this.#answer(request, response);
    this.#address = address;
    this.#server = tls === undefined ? createServer(answer) : createTlsServer(tls, answer);
  }

  static async start(options: TestRegistryOptions = {}): Promise<TestRegistry> {
    const registry = new TestRegistry(options);
    await new Promise<void>((resolve) => registry.#server.listen(0, registry.#address, resolve));
    const address = registry.#server.address();
    registry.#port = typeof address === 'object' && address !== null ? address.port : 0;
    return registry;
  }

  get host(): string {
    return `${this.#address}:${this.#port}`;
  }

  /** Serves the image as `repository:tag`. */
  add(repository: string, tag: string, image: MadeImage): void {
    this.#images.set(`${repository}/manifests/${tag}`, image);
    this.#images.set(`${repository}/manifests/${image.digest}`, image);
  }

  /** As if the machine were switched off. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.stop();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = new URL(request.url ?? '', 'http://x').pathname;
    this.asked.push(`${request.method} ${path}`);
    const body = this.#content(path.replace(/^\/v2\//, ''));
    if (body === undefined) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      'content-type': body.type,
      'content-length': body.bytes.length,
      ...(body.digest === undefined ? {} : { 'docker-content-digest': body.digest }),
    });
    response.end(request.method === 'HEAD' ? undefined : body.bytes);
  }

  #content(path: string): { type: string; bytes: Buffer; digest?: string } | undefined {
    if (path === '') return { type: 'application/json', bytes: Buffer.from('{}') };
    const image = this.#images.get(path);
    if (image !== undefined) {
      const type = 'application/vnd.oci.image.manifest.v1+json';
      return { type, bytes: image.manifest, digest: image.digest };
    }
    const digest = /\/blobs\/(sha256:[0-9a-f]{64})$/.exec(path)?.[1];
    for (const { blobs } of this.#images.values()) {
      const bytes = digest === undefined ? undefined : blobs.get(digest);
      if (bytes !== undefined) return { type: 'application/octet-stream', bytes };
    }
    return undefined;
  }
}
