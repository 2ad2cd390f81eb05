import assert from 'node:assert/strict';
import type { MountedPath } from '#api/storage.ts';
import { SseReader } from '../support/sse.ts';
import type { Guest } from './guest.ts';
import { httpOver } from './http.ts';

const socket = '/run/beosd/beosd.sock';
export const shareRoot = '/beos/share';

/** The daemon in the guest, driven by its API alone. */
export class BeosNode {
  readonly vm: Guest;
  readonly #socket: string;

  constructor(vm: Guest, socketPath: string) {
    this.vm = vm;
    this.#socket = socketPath;
  }

  async call(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; data: unknown; message: string }> {
    const answer = await httpOver(this.#socket, path, {
      method,
      timeoutMs: 60_000,
      ...(body === undefined ? {} : { body }),
    });
    const { data, message } = answer.json() as { data: unknown; message: string };
    return { status: answer.status, data, message };
  }

  /** What the daemon tells while it is connected. */
  events(): SseReader {
    return new SseReader(this.#socket);
  }

  async paths(): Promise<readonly MountedPath[]> {
    const { status, data, message } = await this.call('GET', '/system/mounted-path');
    assert.equal(status, 200, message);
    return data as readonly MountedPath[];
  }

  /** Asks until the answer is as wanted; how long that took, ms. The deadline is what may fail, not the pace. */
  async until(
    what: string,
    timeoutMs: number,
    wanted: (paths: readonly MountedPath[]) => boolean,
  ): Promise<number> {
    const began = performance.now();
    for (;;) {
      const paths = await this.paths();
      const took = performance.now() - began;
      if (wanted(paths)) return took;
      assert.ok(took < timeoutMs, `${what} within ${timeoutMs} ms: ${JSON.stringify(paths)}`);
    }
  }
}

/** Waits in the guest until nothing is at a path any more. */
export async function untilRemoved(vm: Guest, path: string): Promise<void> {
  await vm.run(['sh', '-c', 'while [ -e "$1" ]; do sleep 0.2; done', 'sh', path], { timeoutMs: 60_000 });
}

/** Starts the daemon and waits until it answers. */
export async function startNode(vm: Guest): Promise<BeosNode> {
  const said = async () => (await vm.run(['journalctl', '-u', 'beosd', '--no-pager', '-n', '200'])).stdout;
  await vm.run(['systemctl', 'start', 'beosd'], { timeoutMs: 180_000 }).catch(async (error: unknown) => {
    throw new Error(`the daemon does not start: ${await said()}`, { cause: error });
  });
  const path = await vm.apiSocket({ path: socket });
  const node = new BeosNode(vm, path);
  const began = performance.now();
  for (;;) {
    try {
      await node.call('GET', '/livez');
      return node;
    } catch (error) {
      if (performance.now() - began > 120_000) {
        throw new Error(`the daemon does not answer: ${await said()}`, { cause: error });
      }
    }
  }
}
