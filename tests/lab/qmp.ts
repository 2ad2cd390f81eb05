import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { type Deferred, deferred, within } from './deadline.ts';

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

interface Reply {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

/** QEMU's control connection: commands and their answers, and events. */
export class Qmp {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Deferred<unknown>>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #gone: Deferred<never> = deferred();
  #next = 1;

  /** Takes the socket over which QEMU has just connected. */
  constructor(socket: Socket) {
    this.#socket = socket;
    const lines = createInterface({ input: socket });
    lines.on('line', (line) => this.#take(JSON.parse(line)));
    for (const each of [socket, lines]) each.on('error', () => undefined); // close follows
    socket.once('close', () => {
      const gone = new Error('lab: QEMU has gone');
      this.#gone.reject(gone);
      for (const each of this.#waiting.values()) each.reject(gone);
      this.#waiting.clear();
    });
  }

  /** Runs one command and returns its answer; QEMU's refusal is an error with its own words. */
  async run(command: string, options: object = {}, timeoutMs = 30_000): Promise<unknown> {
    if (this.#socket.destroyed) throw new Error('lab: QEMU has gone');
    const id = this.#next++;
    const answer = deferred<unknown>();
    this.#waiting.set(id, answer);
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: options, id })}\n`);
    return await within(timeoutMs, `QEMU's answer to ${command}`, answer.promise);
  }

  /** Calls `listener` for every event until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Settles with the first event that matches; call it before what causes the event. */
  async event(match: (event: QmpEvent) => boolean, what: string, timeoutMs = 30_000): Promise<QmpEvent> {
    const seen = deferred<QmpEvent>();
    const off = this.onEvent((event) => match(event) && seen.resolve(event));
    return await within(timeoutMs, what, Promise.race([seen.promise, this.#gone.promise])).finally(off);
  }

  #take(message: Reply | QmpEvent | { readonly QMP: unknown }): void {
    if ('event' in message) for (const listener of this.#listeners) listener(message);
    if (!('id' in message) || message.id === undefined) return;
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error) waiting?.reject(new Error(`lab: QEMU refuses: ${message.error.desc}`));
    else waiting?.resolve(message.return);
  }
}
