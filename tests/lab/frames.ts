// The language of harness and agent over the virtio-serial port; also copied into the guest, so it imports nothing.

/** What a frame says; the number is on the wire. Requests go to the guest, answers come from it. */
export const frame = {
  ping: 1, // → hello
  exec: 2, // ExecRequest as JSON → output, errors, exit
  input: 3, // bytes for the command's standard input → ack
  inputEnd: 4,
  kill: 5, // ends the command's process group
  open: 6, // OpenRequest as JSON → data, close
  data: 7, // bytes of a connection, both ways
  end: 8, // no more bytes from this side of the connection
  close: 9, // the connection is gone; from the guest with a reason
  hello: 16, // Hello as JSON
  output: 17,
  errors: 18,
  exit: 19, // ExitAnswer as JSON
  ack: 20,
} as const;

export type FrameType = (typeof frame)[keyof typeof frame];

export interface Frame {
  readonly type: number;
  /** Which command or connection; chosen by the harness, 0 for ping and hello. */
  readonly id: number;
  readonly payload: Buffer;
}

export interface Hello {
  readonly bootId: string;
  readonly pid: number;
}

export interface ExecRequest {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

export interface ExitAnswer {
  readonly code: number | null;
  readonly signal: string | null;
  /** Set when the command could not be started or ran out of time. */
  readonly reason?: 'start' | 'timeout';
  readonly message?: string;
}

export type OpenRequest = { readonly port: number } | { readonly path: string };

const magic = Buffer.from('bf1ab0f1', 'hex');
const headerBytes = magic.length + 9;
/** Comes before every hello: whatever half frame of a former life is in the pipe ends here. */
const freshStart = Buffer.from('00ff5ac3e1d2b4968778695a4b3c2d1e', 'hex');

/** The bytes of one frame. */
export function encodeFrame(type: FrameType, id: number, payload: Uint8Array | string = ''): Buffer {
  const body = Buffer.from(payload);
  const header = Buffer.alloc(headerBytes);
  magic.copy(header);
  header.writeUInt32BE(body.length, magic.length);
  header.writeUInt8(type, magic.length + 4);
  header.writeUInt32BE(id, magic.length + 5);
  return Buffer.concat(type === frame.hello ? [freshStart, header, body] : [header, body]);
}

/** Cuts a stream of bytes into frames and finds back into step after bytes were lost. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** The frames that are complete with this chunk. */
  push(chunk: Buffer): Frame[] {
    const before = Math.max(0, this.#rest.length - freshStart.length);
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const fresh = this.#rest.lastIndexOf(freshStart);
    if (fresh >= before) this.#rest = this.#rest.subarray(fresh + freshStart.length);
    const frames: Frame[] = [];
    for (let next = this.#take(); next !== undefined; next = this.#take()) frames.push(next);
    return frames;
  }

  #take(): Frame | undefined {
    const start = this.#rest.indexOf(magic);
    if (start === -1) {
      // Kept: a magic may have begun in the last bytes.
      this.#rest = this.#rest.subarray(Math.max(0, this.#rest.length - freshStart.length));
      return undefined;
    }
    const at = this.#rest.subarray(start);
    this.#rest = at;
    if (at.length < headerBytes) return undefined;
    const end = headerBytes + at.readUInt32BE(magic.length);
    if (at.length < end) return undefined;
    this.#rest = at.subarray(end);
    const id = at.readUInt32BE(magic.length + 5);
    return { type: at.readUInt8(magic.length + 4), id, payload: at.subarray(headerBytes, end) };
  }
}
