import { createHash, randomBytes } from 'node:crypto';
import type { Clock } from '#host/clock.ts';
import type { Store } from '#store/store.ts';

export const sessionPrefix = 'beos_s_';
const lifetime = 15 * 60_000;

export interface Session {
  readonly token: string;
  /** ms since the epoch. */
  readonly expiresAt: number;
}

/** Tokens that stand for the owner's signature while reading: 15 minutes, from one address, stored hashed. */
export class Sessions {
  readonly #store: Store;
  readonly #clock: Clock;

  constructor(options: { readonly store: Store; readonly clock: Clock }) {
    this.#store = options.store;
    this.#clock = options.clock;
  }

  issue(name: string, address: string): Session {
    const token = sessionPrefix + randomBytes(32).toString('base64url');
    const now = this.#clock.now();
    const expiresAt = now + lifetime;
    this.#store.write((db) => {
      db.run('DELETE FROM sessions WHERE expires_at <= ?', now);
      db.run(
        'INSERT INTO sessions (token_hash, name, address, expires_at) VALUES (?, ?, ?, ?)',
        hashOf(token),
        name,
        address,
        expiresAt,
      );
    });
    return { token, expiresAt };
  }

  /** Whose session it is, and when it ends, if the token is good from this address now. A clock set back lengthens none. */
  holderOf(token: string, address: string): { readonly name: string; readonly until: number } | undefined {
    const row = this.#store.read((db) =>
      db.get('SELECT name, address, expires_at FROM sessions WHERE token_hash = ?', hashOf(token)),
    );
    if (row === undefined || row['address'] !== address) return undefined;
    const until = Number(row['expires_at']);
    const left = until - this.#clock.now();
    return left > 0 && left <= lifetime ? { name: String(row['name']), until } : undefined;
  }

  /** Ends every session: the node has changed hands. */
  revokeAll(): void {
    this.#store.write((db) => db.run('DELETE FROM sessions'));
  }
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}
