import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { ExecError, type RunResult } from '#host/exec.ts';
import { type Deferred, deferred, within } from './deadline.ts';
import {
  type ExecRequest,
  type ExitAnswer,
  encodeFrame,
  type Frame,
  FrameReader,
  type FrameType,
  frame,
  type Hello,
  type OpenRequest,
} from './frames.ts';

/** What a command of the guest says while it runs. */
export interface ExecEvents {
  onOutput(part: Buffer): void;
  onErrors(part: Buffer): void;
}

interface Command extends ExecEvents {
  readonly exit: Deferred<ExitAnswer>;
  /** Settles the oldest write that the guest has not yet taken. */
  readonly acks: Deferred<void>[];
}

export interface RunningCommand {
  readonly exit: Promise<ExitAnswer>;
  /** Writes to its standard input, at the pace at which the command reads. */
  write(bytes: Uint8Array): Promise<void>;
  endInput(): void;
  /** Ends the command and its children. */
  kill(): void;
}

const chunkBytes = 256 * 1024;
const unacknowledged = 4;

/** The harness's end of the agent's port: commands and connections, each under a number of its own. */
export class AgentLink {
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  readonly #commands = new Map<number, Command>();
  readonly #connections = new Map<number, GuestConnection>();
  #hello: Deferred<Hello> = deferred();
  #last: Hello | undefined;
  #next = 1;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      for (const next of this.#reader.push(chunk)) this.#take(next);
    });
    socket.on('error', () => undefined); // close follows
    socket.once('close', () => {
      this.down('QEMU has gone');
      this.#hello.reject(new Error('lab: QEMU has gone'));
    });
  }

  /** Asks an agent that is already there to say so; one that starts says it by itself. */
  ping(): void {
    this.#send(frame.ping, 0);
  }

  /** Settles when the agent has said hello since the machine was last down. */
  hello(): Promise<Hello> {
    return this.#hello.promise;
  }

  /** Ends everything that is under way: the guest was reset. Whoever waits for the next hello goes on waiting. */
  down(why: string): void {
    if (this.#last !== undefined) this.#hello = deferred();
    this.#last = undefined;
    for (const { exit, acks } of this.#commands.values()) {
      for (const each of [exit, ...acks]) each.reject(new Error(`lab: ${why}`));
    }
    for (const connection of this.#connections.values()) connection.lost(why);
    this.#commands.clear();
    this.#connections.clear();
  }

  /** Starts a command. */
  start(request: ExecRequest, events: ExecEvents): RunningCommand {
    const id = this.#next++;
    const command: Command = { ...events, exit: deferred(), acks: [] };
    this.#commands.set(id, command);
    this.#send(frame.exec, id, JSON.stringify(request));
    return {
      exit: command.exit.promise,
      write: (bytes) => this.#input(id, command, bytes),
      endInput: () => this.#send(frame.inputEnd, id),
      kill: () => this.#send(frame.kill, id),
    };
  }

  /** Runs a command to its end; an exit code outside `okCodes` is an ExecError with its output. */
  async run(
    request: ExecRequest,
    input: Uint8Array | string,
    okCodes: readonly number[],
  ): Promise<RunResult> {
    const out: Buffer[] = [];
    const errors: Buffer[] = [];
    const events = {
      onOutput: (part: Buffer) => out.push(part),
      onErrors: (part: Buffer) => errors.push(part),
    };
    const command = this.start(request, events);
    const fed = command.write(Buffer.from(input)).then(() => command.endInput());
    fed.catch(() => undefined); // the command's own end says what happened
    const what = `the guest's ${request.argv.join(' ').slice(0, 200)}`;
    const exit = await within(request.timeoutMs + 15_000, what, command.exit);
    const stdout = Buffer.concat(out).toString('utf8');
    const stderr = Buffer.concat(errors).toString('utf8');
    if (exit.reason === undefined && exit.code !== null && okCodes.includes(exit.code)) {
      return { exitCode: exit.code, stdout, stderr };
    }
    const [file = '', ...args] = request.argv;
    const reason = exit.reason ?? (exit.code === null ? 'signal' : 'exit');
    throw new ExecError({
      file,
      args,
      reason,
      exitCode: exit.code,
      stdout,
      stderr: stderr || (exit.message ?? ''),
    });
  }

  /** Connects to a server inside the guest. */
  open(request: OpenRequest): Duplex {
    const id = this.#next++;
    const send = (type: FrameType, payload?: Uint8Array) => this.#send(type, id, payload);
    const connection = new GuestConnection(send, () => this.#connections.delete(id));
    this.#connections.set(id, connection);
    this.#send(frame.open, id, JSON.stringify(request));
    return connection;
  }

  async #input(id: number, { acks }: Command, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      while (acks.length >= unacknowledged) await acks[0]?.promise;
      acks.push(deferred());
      this.#send(frame.input, id, bytes.subarray(at, at + chunkBytes));
    }
    await Promise.all(acks.map((each) => each.promise));
  }

  #send(type: FrameType, id: number, payload: Uint8Array | string = ''): void {
    if (!this.#socket.destroyed) this.#socket.write(encodeFrame(type, id, payload));
  }

  #take({ type, id, payload }: Frame): void {
    const command = this.#commands.get(id);
    const connection = this.#connections.get(id);
    if (type === frame.hello) this.#greeted(JSON.parse(payload.toString('utf8')));
    else if (type === frame.output) command?.onOutput(payload);
    else if (type === frame.errors) command?.onErrors(payload);
    else if (type === frame.ack) command?.acks.shift()?.resolve();
    else if (type === frame.exit) this.#exited(id, JSON.parse(payload.toString('utf8')));
    else if (type === frame.data) connection?.push(payload);
    else if (type === frame.end) connection?.push(null);
    else if (type === frame.close) connection?.lost(payload.toString('utf8'));
  }

  #greeted(hello: Hello): void {
    const same = this.#last?.bootId === hello.bootId && this.#last.pid === hello.pid;
    if (this.#last !== undefined && !same) this.down('the agent was started again');
    this.#last = hello;
    this.#hello.resolve(hello);
  }

  #exited(id: number, answer: ExitAnswer): void {
    const command = this.#commands.get(id);
    this.#commands.delete(id);
    for (const ack of command?.acks ?? []) ack.resolve();
    command?.exit.resolve(answer);
  }
}

/** A connection to a server in the guest, as a stream of this process. */
class GuestConnection extends Duplex {
  readonly #out: (type: FrameType, payload?: Uint8Array) => void;
  readonly #forget: () => void;

  constructor(out: (type: FrameType, payload?: Uint8Array) => void, forget: () => void) {
    super({ allowHalfOpen: true });
    this.#out = out;
    this.#forget = forget;
    this.on('error', () => undefined); // whoever uses it listens too; alone it must not end the process
  }

  /** The guest's side is gone; `why` is empty when it closed in order. */
  lost(why: string): void {
    if (why === '') this.destroy();
    else this.destroy(new Error(`lab: ${why}`));
  }

  override _read(): void {
    // Frames come when they come; what is not yet read waits in the stream.
  }

  override _write(bytes: Buffer, _encoding: string, done: () => void): void {
    this.#out(frame.data, bytes);
    done();
  }

  override _final(done: () => void): void {
    this.#out(frame.end);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#out(frame.close);
    this.#forget();
    done(error);
  }
}
