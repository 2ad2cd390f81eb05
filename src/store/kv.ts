import type { Store } from '#store/store.ts';

/** Small facts of the daemon itself, by name. */
export class KeyValues {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  get(key: string): string | undefined {
    const value = this.#store.read((db) => db.get('SELECT value FROM kv WHERE key = ?', key)?.['value']);
    return typeof value === 'string' ? value : undefined;
  }

  /** Durable where the disk allows it. */
  set(key: string, value: string): void {
    this.#store.write((db) => db.run('INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)', key, value));
  }

  delete(key: string): void {
    this.#store.write((db) => db.run('DELETE FROM kv WHERE key = ?', key));
  }
}
