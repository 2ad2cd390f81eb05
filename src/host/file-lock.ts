import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Clock } from '#host/clock.ts';

/** Somebody else kept the lock for longer than we wait. */
export class LockBusy extends Error {
  override readonly name = 'LockBusy';
}

/**
 * A lock between processes that the kernel itself releases when its holder dies, `kill -9` included: POSIX record
 * locks, reached through SQLite because Node has no call for them (https://www.sqlite.org/lockingv3.html). No stale
 * lock can remain, so there is no pid to check and nothing to clean up.
 */
export class FileLock {
  readonly #path: string;
  readonly #clock: Clock;

  constructor(path: string, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
  }

  /** Runs `work` while no other process holds the lock; waits for it up to `timeoutMs`, then throws {@link LockBusy}. */
  async run<T>(work: () => T, timeoutMs = 5000): Promise<T> {
    const deadline = this.#clock.monotonic() + timeoutMs;
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o755 });
    const db = new DatabaseSync(this.#path, { timeout: 0 });
    try {
      while (!tryLock(db)) {
        if (this.#clock.monotonic() >= deadline)
          throw new LockBusy(`${this.#path} is held by another process`);
        await this.#clock.sleep(20);
      }
      return work();
    } finally {
      db.close(); // rolls back the empty transaction and with it releases the lock
    }
  }
}

const SQLITE_BUSY = 5;

function tryLock(db: DatabaseSync): boolean {
  try {
    db.exec('BEGIN EXCLUSIVE');
    return true;
  } catch (error) {
    if (error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY) return false;
    throw error;
  }
}
