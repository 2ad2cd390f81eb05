import type { Row } from '#store/database.ts';
import type { Store } from '#store/store.ts';

export interface EventRow {
  readonly id: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** How many events are kept for readers that come back. */
export const keptEvents = 10_000;
const betweenTrims = 500;

/**
 * The log of events: appended, read from an id on, trimmed from the old end. Ids only grow, also across restarts.
 *
 * INVARIANT: nobody reads an event that a power cut could still take back, so that no id is ever seen for two events.
 * Nor does anybody wait for the disk: events that come while one batch is being made durable are the next batch.
 */
export class EventLog {
  readonly #store: Store;
  readonly #onReadable: () => void;
  /** The first event of each start trims: a daemon that never lives for long would never come to it. */
  #sinceTrim = betweenTrims;
  /** The newest event that may be read. */
  #readable: number;
  /** The newest event; while it is above `#readable` a batch is on its way to the disk, and only one. */
  #newest: number;
  #settling: Promise<void> | undefined;

  /** `onReadable` is told when {@link after} has more. */
  constructor(store: Store, onReadable: () => void) {
    this.#store = store;
    this.#onReadable = onReadable;
    this.#newest = this.#lastGivenOut();
    this.#readable = this.#newest;
  }

  append(event: Omit<EventRow, 'id'>): EventRow {
    const id = this.#store.note((db) => {
      db.run('INSERT INTO events (type, data) VALUES (?, ?)', event.type, JSON.stringify(event.data));
      const added = Number(db.get('SELECT last_insert_rowid() AS id')?.['id']);
      if (++this.#sinceTrim >= betweenTrims) {
        this.#sinceTrim = 0;
        db.run('DELETE FROM events WHERE id <= ?', added - keptEvents);
      }
      return added;
    });
    this.#newest = id;
    if (this.#settling === undefined) void this.#makeReadable();
    return { id, ...event };
  }

  /** Resolves when all that was appended until now may be read, however much is appended meanwhile. */
  async caughtUp(): Promise<void> {
    const newest = this.#newest;
    while (this.#readable < newest) await this.#settling;
  }

  async #makeReadable(): Promise<void> {
    try {
      while (this.#readable < this.#newest) {
        const batch = this.#newest;
        this.#settling = this.#store.settle();
        await this.#settling;
        this.#readable = batch;
        this.#onReadable();
      }
    } finally {
      this.#settling = undefined;
    }
  }

  /** Events after `id`, oldest first. */
  after(id: number, limit: number): EventRow[] {
    const rows = this.#store.read((db) =>
      db.all('SELECT * FROM events WHERE id > ? AND id <= ? ORDER BY id LIMIT ?', id, this.#readable, limit),
    );
    return rows.map(toEvent);
  }

  /** The oldest event that is still kept, and the newest that was ever given out for reading. */
  range(): { readonly oldest: number | undefined; readonly newest: number } {
    const oldest = this.#store.read((db) => db.get('SELECT min(id) AS id FROM events')?.['id']);
    const waiting = this.#newest > this.#readable;
    return {
      oldest: typeof oldest === 'number' ? oldest : undefined,
      newest: waiting ? this.#readable : this.#lastGivenOut(),
    };
  }

  /** A store that was lost and begun anew counts from above all that the old one can have given out. */
  #lastGivenOut(): number {
    const row = this.#store.read((db) => db.get("SELECT seq FROM sqlite_sequence WHERE name = 'events'"));
    return Number(row?.['seq'] ?? 0);
  }
}

function toEvent(row: Row): EventRow {
  return {
    id: Number(row['id']),
    type: String(row['type']),
    data: JSON.parse(String(row['data'])) as Record<string, unknown>,
  };
}
