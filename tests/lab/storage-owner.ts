import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import type { Status } from '#api/status.ts';
import { createKey, signBound, signLegacy } from '#client/sign.ts';
import type { Guest } from './guest.ts';
import type { BeosNode } from './node.ts';

const installer = '/opt/recorded/node-cli';
const baseDir = '/var/lib/beos';
const recorded = fileURLToPath(new URL('../support/recorded-installer.sh', import.meta.url));

export interface Answered {
  readonly status: number;
  readonly message: string;
  readonly data: unknown;
  readonly error: string | undefined;
}

/** Gives a guest whose daemon has not started yet an installer that fails: who tries an install owns the node then. */
export async function bringInstaller(vm: Guest): Promise<void> {
  await vm.copyIn(recorded, installer);
  await vm.run(['sh', '-c', `chmod 755 ${installer}; echo fail > /opt/recorded/mode; mkdir -p ${baseDir}`]);
  // As much room as an install asks for; the memory is only used by what is written.
  await vm.run(['mount', '-t', 'tmpfs', '-o', 'size=16G', 'room', baseDir]);
  const settings = `BEOS_CLI=${installer}\nBASE_DIR=${baseDir}\nINSTALLED_VERSION=0.1.0\n`;
  await vm.put('/etc/beosd/beosd.env', settings, 0o600);
}

/** The person whose node it is, with a phone on the link. */
export class StorageOwner {
  readonly #key = createKey();
  readonly #node: BeosNode;
  readonly #nodeId: string;

  private constructor(node: BeosNode, nodeId: string) {
    this.#node = node;
    this.#nodeId = nodeId;
  }

  /** Claims the node by an install from the phone. */
  static async claim(node: BeosNode): Promise<StorageOwner> {
    const { nodeId } = (await node.call('GET', '/system/status')).data as Status;
    const owner = new StorageOwner(node, nodeId);
    const path = '/command/install';
    const rawBody = JSON.stringify({ username: 'alice', domain: 'example.com', password: 'a-secret-of-12' });
    const signature = signBound(owner.#key, { now: Date.now(), method: 'POST', path, rawBody, nodeId });
    const headers = [`X-Signature: ${signature}`, 'Content-Type: application/json'];
    const curl = ['curl', '--silent', '--show-error', '--max-time', '60', '--data-binary', rawBody];
    const { stdout } = await node.vm.run([
      ...['ip', 'netns', 'exec', 'phone', ...curl],
      ...headers.flatMap((header) => ['--header', header]),
      `http://10.77.0.1:18088${path}`,
    ]);
    assert.equal((JSON.parse(stdout) as { code: number }).code, 200, stdout);
    const status = (await node.call('GET', '/system/status')).data as Status;
    assert.equal(status.owned, true);
    return owner;
  }

  /** A request over TCP, signed in one of the two forms. */
  async post(path: string, body: Readonly<Record<string, unknown>>, form: 'bound' | 'legacy') {
    const rawBody = JSON.stringify(body);
    const common = { now: Date.now(), domain: 'http://127.0.0.1:18088' };
    const signature =
      form === 'bound'
        ? signBound(this.#key, { ...common, method: 'POST', path, rawBody, nodeId: this.#nodeId })
        : signLegacy(this.#key, { ...common, body });
    const headers = { 'x-signature': signature, 'content-type': 'application/json' };
    const answer = await this.#node.vm.http(path, {
      ...{ method: 'POST', headers, body: rawBody, timeoutMs: 60_000 },
    });
    const { message, data, error } = answer.json() as {
      readonly message: string;
      readonly data: unknown;
      readonly error?: { readonly code: string };
    };
    return { status: answer.status, message, data, error: error?.code } satisfies Answered;
  }
}
