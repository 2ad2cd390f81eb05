import type { IncomingMessage } from 'node:http';
import { createParser } from 'eventsource-parser';
import { eventTypes, type StoredEvent } from '#api/events.ts';
import { ApiError } from '#client/api-error.ts';

/** What the stream loop tells: `open` each time that a connection stands, then its events. */
export type StreamItem = { readonly kind: 'open' } | { readonly kind: 'event'; readonly event: StoredEvent };

export interface StreamDeps {
  /** Opens GET /events after this id; throws ApiError or Unreachable. */
  readonly connect: (lastEventId: number | undefined, signal: AbortSignal) => Promise<IncomingMessage>;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  /** In [0, 1). */
  readonly random: () => number;
}

export interface StreamOptions {
  /** Resume after this event; absent: from now on. */
  readonly lastEventId?: number;
  readonly signal?: AbortSignal;
  /** Called when the connection was lost, with the ms until the next try. */
  readonly onInterrupted?: (error: unknown, retryMs: number) => void;
}

const firstRetryMs = 250;
const longestRetryMs = 15_000;

/**
 * Events from a node, over any number of connections.
 *
 * INVARIANTS: ids only grow, except after a `reset`, so nothing comes twice; the next connection asks for what follows
 * the last event that was handed out, so nothing is left out. Ends only by the signal, by the reader, or by a refusal
 * that waiting does not mend.
 */
export async function* streamEvents(deps: StreamDeps, options: StreamOptions): AsyncGenerator<StreamItem> {
  const reader = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, reader.signal]) : reader.signal;
  const cursor: Cursor = { last: options.lastEventId, failures: 0, retryMs: undefined };
  try {
    for (;;) {
      let lost: unknown;
      try {
        const response = await deps.connect(cursor.last, signal);
        yield { kind: 'open' };
        yield* readConnection(response, cursor);
        lost = new Error('the stream ended');
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof ApiError && !isTemporary(error)) throw error;
        lost = error;
      }
      const wait = nextWait(cursor, lost, deps.random());
      options.onInterrupted?.(lost, wait);
      await deps.sleep(wait, signal);
    }
  } finally {
    reader.abort();
  }
}

interface Cursor {
  last: number | undefined;
  /** Connections in a row that brought nothing. */
  failures: number;
  /** What the server asked for by `retry:`. */
  retryMs: number | undefined;
}

/** Full jitter, so that a hundred clients do not come back at the same moment. */
function nextWait(cursor: Cursor, lost: unknown, random: number): number {
  const ceiling = Math.min(
    longestRetryMs,
    (cursor.retryMs ?? firstRetryMs) * 2 ** Math.min(cursor.failures, 10),
  );
  cursor.failures++;
  const asked = lost instanceof ApiError ? (lost.details.retryAfter ?? 0) * 1000 : 0;
  return Math.max(asked, Math.round(ceiling * (0.5 + random / 2)));
}

function isTemporary(error: ApiError): boolean {
  return error.status === 429 || error.status >= 500;
}

async function* readConnection(response: IncomingMessage, cursor: Cursor): AsyncGenerator<StreamItem> {
  const queue: StoredEvent[] = [];
  let announced: number | undefined;
  const parser = createParser({
    onEvent: (message) => {
      const event = toEvent(message);
      if (event !== undefined) queue.push(event);
    },
    // An id without data says where a new stream begins: a reader that loses it before the first event resumes there.
    onId: (id) => {
      announced = toId(id) ?? announced;
    },
    onRetry: (ms) => {
      cursor.retryMs = ms;
    },
  });
  try {
    for await (const chunk of response) {
      parser.feed(String(chunk));
      cursor.failures = 0;
      for (const event of queue.splice(0)) {
        if (event.type !== 'reset' && cursor.last !== undefined && event.id <= cursor.last) continue;
        cursor.last = event.id;
        yield { kind: 'event', event };
      }
      cursor.last ??= announced;
    }
  } finally {
    response.destroy();
  }
}

function toEvent(message: { id?: string | undefined; event?: string | undefined; data: string }) {
  const id = toId(message.id);
  const type = eventTypes.find((each) => each === message.event);
  const data = parseObject(message.data);
  // A type that a newer daemon has added is skipped; the id after it still moves on.
  return id === undefined || type === undefined || data === undefined ? undefined : { id, type, data };
}

function toId(text: string | undefined): number | undefined {
  const id = text === undefined || text === '' ? Number.NaN : Number(text);
  return Number.isSafeInteger(id) && id >= 0 ? id : undefined;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
