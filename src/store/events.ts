import type { Row, Store } from '#store/store.ts';

export interface EventRow {
  readonly id: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** How many events are kept for readers that come back. */
export const keptEvents = 10_000;

/** The log of events: appended, read from an id on, trimmed from the old end. Ids only grow, also across restarts. */
export class EventLog {
  readonly #store: Store;
  #sinceTrim = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  append(event: Omit<EventRow, 'id'>): EventRow {
    const id = this.#store.write((db) => {
      db.run('INSERT INTO events (type, data) VALUES (?, ?)', event.type, JSON.stringify(event.data));
      const added = Number(db.get('SELECT last_insert_rowid() AS id')?.['id']);
      if (++this.#sinceTrim >= 500) {
        this.#sinceTrim = 0;
        db.run('DELETE FROM events WHERE id <= ?', added - keptEvents);
      }
      return added;
    });
    return { id, ...event };
  }

  /** Events after `id`, oldest first. */
  after(id: number, limit: number): EventRow[] {
    const rows = this.#store.read((db) =>
      db.all('SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?', id, limit),
    );
    return rows.map(toEvent);
  }

  /** The oldest event that is still kept, and the newest that was ever given out. */
  range(): { readonly oldest: number | undefined; readonly newest: number } {
    return this.#store.read((db) => {
      const oldest = db.get('SELECT min(id) AS id FROM events')?.['id'];
      const newest = db.get("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?.['seq'];
      return { oldest: typeof oldest === 'number' ? oldest : undefined, newest: Number(newest ?? 0) };
    });
  }
}

function toEvent(row: Row): EventRow {
  return {
    id: Number(row['id']),
    type: String(row['type']),
    data: JSON.parse(String(row['data'])) as Record<string, unknown>,
  };
}
