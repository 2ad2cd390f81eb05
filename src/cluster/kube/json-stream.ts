/** JSON that arrives in pieces. Nothing here keeps more than one object at a time: that is what bounds the memory of a sync. */

const NEWLINE = 0x0a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** An object larger than this is no Kubernetes object (etcd refuses more than 1.5 MiB). */
const maxObjectBytes = 4 * 1024 * 1024;

/** The stream broke the format: not JSON, or larger than any object can be. */
export class StreamFormatError extends Error {
  override readonly name = 'StreamFormatError';
}

/** Bytes of one object, collected over as many chunks as it takes. */
class Pieces {
  #parts: Uint8Array[] = [];
  #size = 0;

  get empty(): boolean {
    return this.#size === 0;
  }

  add(part: Uint8Array): void {
    if (part.length === 0) return;
    this.#size += part.length;
    if (this.#size > maxObjectBytes) throw new StreamFormatError('an object is larger than 4 MiB');
    this.#parts.push(part);
  }

  take(): string {
    const [first] = this.#parts;
    const text =
      this.#parts.length === 1 && first !== undefined
        ? Buffer.from(first.buffer, first.byteOffset, first.length).toString('utf8')
        : Buffer.concat(this.#parts).toString('utf8');
    this.#parts = [];
    this.#size = 0;
    return text;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // No cause: the parser's error quotes what it refuses, and objects hold secrets.
    throw new StreamFormatError('the stream is not JSON');
  }
}

/** One JSON value a line, as a watch sends it. A line may come in any number of chunks. */
export class JsonLines {
  readonly #onValue: (value: unknown) => void;
  readonly #line = new Pieces();

  constructor(onValue: (value: unknown) => void) {
    this.#onValue = onValue;
  }

  /** Throws {@link StreamFormatError} when a whole line is not JSON. */
  push(chunk: Uint8Array): void {
    let from = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, from);
      if (end < 0) break;
      this.#line.add(chunk.subarray(from, end));
      from = end + 1;
      if (!this.#line.empty) this.#onValue(parse(this.#line.take()));
    }
    // A copy: the rest of the chunk must not be kept alive for the sake of half a line.
    this.#line.add(new Uint8Array(chunk.subarray(from)));
  }

  /** True when the stream ended between two lines; half a line is dropped, for the watch resumes before it. */
  end(): boolean {
    const clean = this.#line.empty;
    this.#line.take();
    return clean;
  }
}

/** What a list says beside its items. */
export interface ListEnvelope {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string };
}

/**
 * A Kubernetes list, item by item while it arrives: each element of the top-level `items` array is parsed alone and
 * handed over, the rest is parsed at the end. A page of 500 pods costs the memory of one pod.
 */
export class ListSplitter {
  readonly #onItem: (item: unknown) => void;
  readonly #item = new Pieces();
  readonly #rest = new Pieces();
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** Inside the top-level array called `items`. */
  #inItems = false;
  /** The last bytes before an opening bracket, to know the key of the array. */
  #tail = '';

  constructor(onItem: (item: unknown) => void) {
    this.#onItem = onItem;
  }

  push(chunk: Uint8Array): void {
    let from = 0;
    for (let at = this.#inString ? this.#skipString(chunk, 0) : 0; at < chunk.length; at++) {
      const byte = chunk[at];
      if (byte === QUOTE) {
        this.#inString = true;
        at = this.#skipString(chunk, at + 1) - 1;
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        from = this.#opens(chunk, from, at, byte);
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        from = this.#closes(chunk, from, at);
      }
    }
    this.#keep(chunk.subarray(from));
  }

  /** The list without its items. Throws {@link StreamFormatError} when the body ended early. */
  end(): ListEnvelope {
    if (this.#depth !== 0 || this.#rest.empty) throw new StreamFormatError('the list ended in the middle');
    const envelope = parse(this.#rest.take());
    return typeof envelope === 'object' && envelope !== null ? envelope : {};
  }

  /** The index after the end of the string that `at` is in, or the end of the chunk. Most bytes of a list are in strings. */
  #skipString(chunk: Uint8Array, from: number): number {
    let at = from;
    for (; at < chunk.length && this.#inString; at++) {
      const byte = chunk[at];
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
    }
    return at;
  }

  /** Counts an opening bracket; returns where the pile begins that the next bytes belong to. */
  #opens(chunk: Uint8Array, from: number, at: number, byte: number): number {
    this.#depth++;
    if (this.#inItems) return this.#depth === 3 ? at : from;
    if (byte !== OPEN_BRACKET || this.#depth !== 2) return from;
    this.#keep(chunk.subarray(from, at + 1));
    this.#inItems = /"items"\s*:\s*\[$/.test(this.#tail);
    return at + 1;
  }

  #closes(chunk: Uint8Array, from: number, at: number): number {
    this.#depth--;
    if (!this.#inItems) return from;
    if (this.#depth === 2) {
      this.#item.add(chunk.subarray(from, at + 1));
      this.#onItem(parse(this.#item.take()));
      return at + 1;
    }
    if (this.#depth !== 1) return from;
    this.#inItems = false;
    return at;
  }

  /** Puts bytes on the pile that they belong to; what stands between two items belongs to none. */
  #keep(part: Uint8Array): void {
    if (this.#inItems) {
      if (this.#depth >= 3) this.#item.add(new Uint8Array(part));
      return;
    }
    this.#rest.add(new Uint8Array(part));
    this.#tail = (this.#tail + Buffer.from(part.subarray(-64)).toString('latin1')).slice(-64);
  }
}
