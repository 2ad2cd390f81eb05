import { fault } from '#api/errors.ts';
import type { EventType } from '#api/events.ts';
import type { Call, RawAnswer } from '#api/operation.ts';
import type { Clock } from '#host/clock.ts';
import type { EventLog, EventRow } from '#store/events.ts';

export interface EventHubOptions {
  readonly log: EventLog;
  readonly clock: Clock;
  /** What a reader that has missed too much starts from: goes out as `reset`. */
  readonly snapshot: (everything: boolean) => Readonly<Record<string, unknown>>;
  readonly maxReaders?: number;
}

interface Reading {
  readonly call: Call;
  readonly everything: boolean;
  /** The address of a stranger. */
  readonly from: string | undefined;
  readonly holds: () => boolean;
}

/** Who has proved nothing shares so many places, and gets so many of them from one address: the owner always finds one. */
const placesOfStrangers = 32;
const placesOfOneAddress = 16;

const batch = 200;
/** A comment this often keeps proxies and the client's timers calm, ms. */
const heartbeatMs = 20_000;

/**
 * The stream of GET /events. The log in the store is the truth; publishing appends to it, which wakes the readers; each
 * of them reads on from its own id: a reader that is slow, or comes back after a restart, misses nothing and sees
 * nothing twice, and nobody's backlog is kept in memory.
 */
export class EventHub {
  readonly #options: EventHubOptions;
  readonly #wakers = new Set<() => void>();
  /** Strangers by address. */
  readonly #strangers = new Map<string, number>();
  #readers = 0;

  constructor(options: EventHubOptions) {
    this.#options = options;
  }

  publish(type: EventType, data: Readonly<Record<string, unknown>>): EventRow {
    const at = new Date(this.#options.clock.now()).toISOString();
    return this.#options.log.append({ type, data: { at, ...data } });
  }

  /** The log has more to read. */
  wake(): void {
    for (const wake of this.#wakers) wake();
  }

  get readers(): number {
    return this.#readers;
  }

  /**
   * The answer to one reader: SSE bytes from after `call.lastEventId`, or from now on, until the call is aborted.
   *
   * @param holds whether the caller's proof still counts; once it does not, the stream ends before the next event
   */
  stream(call: Call, holds: () => boolean = () => true): RawAnswer {
    if (this.#readers >= (this.#options.maxReaders ?? 64)) {
      throw fault('too_many_requests', 'Too many readers of events.', { retryAfter: 10 });
    }
    const everything = ['root', 'owner', 'workload', 'peer'].includes(call.caller.class);
    const from = everything ? undefined : (call.caller.address ?? '');
    if (from !== undefined && !this.#hasPlaceFor(from)) {
      throw fault('too_many_requests', 'Too many readers of events without a proof.', { retryAfter: 10 });
    }
    return {
      raw: this.#read({ call, everything, from, holds }),
      contentType: 'text/event-stream; charset=utf-8',
    };
  }

  #hasPlaceFor(address: string): boolean {
    const all = [...this.#strangers.values()].reduce((sum, count) => sum + count, 0);
    return all < placesOfStrangers && (this.#strangers.get(address) ?? 0) < placesOfOneAddress;
  }

  #count(from: string | undefined, by: 1 | -1): void {
    this.#readers += by;
    if (from === undefined) return;
    const left = (this.#strangers.get(from) ?? 0) + by;
    if (left === 0) this.#strangers.delete(from);
    else this.#strangers.set(from, left);
  }

  async *#read({ call, everything, from, holds }: Reading): AsyncGenerator<string> {
    this.#count(from, 1);
    const reader = new Waiter();
    this.#wakers.add(reader.wake);
    const stop = () => reader.wake();
    call.signal.addEventListener('abort', stop, { once: true });
    const beat = setInterval(() => reader.beat(), heartbeatMs);
    beat.unref();
    try {
      // What it asks for next is newer than every event of before now: none of those may come to it afterwards.
      await this.#options.log.caughtUp();
      let [cursor, greeting] = this.#begin(call.lastEventId, everything);
      yield greeting;
      while (!call.signal.aborted && holds()) {
        const events = this.#options.log.after(cursor, batch);
        if ((events[0]?.id ?? cursor) > cursor + 1 && this.#isLost(cursor)) {
          // It read so slowly that what comes next for it was removed meanwhile, or lost with the store.
          [cursor, greeting] = this.#reset(everything);
          yield greeting;
          continue;
        }
        cursor = events.at(-1)?.id ?? cursor;
        const text = (everything ? events : events.flatMap(publicView)).map(toSse).join('');
        if (text !== '') yield text;
        if (events.length < batch && (await reader.wait()) === 'beat') yield ': still here\n\n';
      }
    } finally {
      clearInterval(beat);
      call.signal.removeEventListener('abort', stop);
      this.#wakers.delete(reader.wake);
      this.#count(from, -1);
    }
  }

  /** Where a reader starts, and the first bytes that it gets. */
  #begin(lastEventId: string | undefined, everything: boolean): [number, string] {
    const { newest } = this.#options.log.range();
    if (lastEventId === undefined) return [newest, `retry: 1000\nid: ${newest}\n\n`];
    const last = /^\d{1,16}$/.test(lastEventId) ? Number(lastEventId) : Number.NaN;
    // From the future: another store, or no id of ours.
    const isOurs = last <= newest;
    return isOurs && !this.#isLost(last) ? [last, 'retry: 1000\n\n'] : this.#reset(everything);
  }

  /** Something that came after this id is not there any more. */
  #isLost(id: number): boolean {
    const { oldest, newest } = this.#options.log.range();
    return id < newest && (oldest === undefined || id < oldest - 1);
  }

  #reset(everything: boolean): [number, string] {
    const { newest } = this.#options.log.range();
    const data = {
      at: new Date(this.#options.clock.now()).toISOString(),
      ...this.#options.snapshot(everything),
    };
    return [newest, `retry: 1000\n${toSse({ id: newest, type: 'reset', data })}`];
  }
}

/** Remembers a wake-up that comes while nobody waits. */
class Waiter {
  #pending = false;
  #resolve: ((why: 'woken' | 'beat') => void) | undefined;

  readonly wake = () => {
    if (this.#resolve === undefined) this.#pending = true;
    this.#resolve?.('woken');
    this.#resolve = undefined;
  };

  beat(): void {
    this.#resolve?.('beat');
    this.#resolve = undefined;
  }

  async wait(): Promise<'woken' | 'beat'> {
    if (this.#pending) {
      this.#pending = false;
      return 'woken';
    }
    return await new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }
}

/** What everybody may see: the state, and how far running jobs are (contract §4); not who asked, nor what went wrong. */
function publicView(event: EventRow): EventRow[] {
  if (event.type === 'state') return [event];
  if (event.type !== 'job') return [];
  const { at, id, operation, state, phase, percent } = event.data;
  return [{ ...event, data: { at, id, operation, state, phase, percent } }];
}

/** Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. */
function toSse(event: EventRow): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event.data)}\n\n`;
}
