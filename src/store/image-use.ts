import type { Store } from '#store/store.ts';

/** When each image was last seen in use; the runtime does not remember it. */
export class ImageUse {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** By image id, ms since the epoch. */
  lastUsed(): Map<string, number> {
    const rows = this.#store.read((db) => db.all('SELECT image_id, last_used_at FROM image_use'));
    return new Map(rows.map((row) => [String(row['image_id']), Number(row['last_used_at'])]));
  }

  /** Notes the images in use now and forgets those that are gone; best effort, for an order that is never critical. */
  note(used: readonly string[], present: readonly string[], now: number): void {
    this.#store.write((db) => {
      for (const id of used) {
        db.run('INSERT OR REPLACE INTO image_use (image_id, last_used_at) VALUES (?, ?)', id, now);
      }
      const there = new Set(present);
      for (const row of db.all('SELECT image_id FROM image_use')) {
        const id = String(row['image_id']);
        if (!there.has(id)) db.run('DELETE FROM image_use WHERE image_id = ?', id);
      }
    });
  }
}
