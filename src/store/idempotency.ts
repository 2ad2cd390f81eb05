import type { Store } from '#store/store.ts';

/** How long a key is remembered, ms (contract §10). */
export const idempotencyWindow = 24 * 60 * 60 * 1000;

export type Earlier =
  | { readonly kind: 'none' }
  | { readonly kind: 'other-body' }
  /** Begun, and no answer known: the first request still runs, or the daemon died under it. */
  | { readonly kind: 'unanswered'; readonly at: number }
  | { readonly kind: 'answered'; readonly status: number; readonly answer: string };

/** First answers by Idempotency-Key. The scope holds caller, method, path and key; of the body only a keyed hash is kept. */
export class Idempotency {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /**
   * Claims the key, or tells what came of it before. Durable where the disk allows it: a retry after a power cut must find
   * it. Without a disk the key counts in memory (docs/adr/2026-11-25-keys-without-a-disk.md).
   */
  begin(scope: string, bodyMac: string, now: number): Earlier {
    return this.#store.write((db) => {
      db.run('DELETE FROM idempotency WHERE at < ?', now - idempotencyWindow);
      const row = db.get('SELECT * FROM idempotency WHERE scope = ?', scope);
      if (row === undefined) {
        db.run('INSERT INTO idempotency (scope, body_mac, at) VALUES (?, ?, ?)', scope, bodyMac, now);
        return { kind: 'none' };
      }
      if (row['body_mac'] !== bodyMac) return { kind: 'other-body' };
      if (row['status'] === null) return { kind: 'unanswered', at: Number(row['at']) };
      return { kind: 'answered', status: Number(row['status']), answer: String(row['answer']) };
    });
  }

  finish(scope: string, status: number, answer: string): void {
    this.#store.write((db) =>
      db.run('UPDATE idempotency SET status = ?, answer = ? WHERE scope = ?', status, answer, scope),
    );
  }

  /** The request did nothing (a refusal that a later try may not get): the key is free again. */
  forget(scope: string): void {
    this.#store.write((db) => db.run('DELETE FROM idempotency WHERE scope = ?', scope));
  }
}
