import { type ErrorCode, fault } from '#api/errors.ts';
import type { OperationName } from '#api/operations.ts';
import { specOf } from '#api/operations.ts';
import type { ParsedJws } from '#auth/jws.ts';
import type { Clock } from '#host/clock.ts';
import { rfc3339 } from '#host/clock.ts';
import type { GapNote } from '#host/gap-note.ts';
import type { Fault } from '#lib/fault.ts';
import { ruleOf } from '#state/policy.ts';
import type { Database } from '#store/database.ts';
import { type Store, StoreUnavailable } from '#store/store.ts';

/** How far the clock of a signer may be off, either way, ms (contract §8). */
export const skewAllowed = 20 * 60_000;
/** How far ahead a bound signature may end, ms (contract §8). */
export const longestLife = 10 * 60_000;

const day = 24 * 60 * 60_000;

export interface ReplayOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Beside the store: what was marked in memory is gone with this process, and the next one has to know. */
  readonly gap: Pick<GapNote, 'isWhole' | 'note' | 'restore'>;
  /** How many marks are kept although they have expired. Default 20,000 (about 1 MB). */
  readonly keep?: number;
}

/**
 * One use of each signature, over all routes. The reasons stand in docs/adr/2026-11-23-replay-marks.md.
 *
 * INVARIANTS: the mark is on disk before the request is acted on; only marks that have expired are ever removed, oldest
 * first, and nothing at or below the newest removed one (`floor`) is accepted again, wherever the clock is set to; after the
 * marks were lost, also those of a process without its disk, only what cannot have been used before the loss is accepted.
 */
export class ReplayGuard {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #keep: number;
  readonly #gap: ReplayOptions['gap'];
  /** Marks are, or were, in memory only, and the next start would know. */
  #gapNoted = false;
  /** Upper bound of the number of marks; counted again when it says that there is something to prune. */
  #count: number;
  #loss: { readonly reported: number; readonly at: number; readonly seen: number } | undefined;

  constructor(options: ReplayOptions) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#keep = options.keep ?? 20_000;
    this.#gap = options.gap;
    this.#count = this.#store.read(countMarks);
    const recorded = this.#store.read((db) => readNumber(db, 'replay.lostAt'));
    if (recorded !== undefined) this.#loss = { reported: 0, at: recorded, seen: Number.NaN };
    // A loss that nobody has asked about yet has to outlive a restart too.
    this.#lostAt();
    this.#lookForGap();
  }

  /**
   * Spends the signature, durably, before it returns.
   *
   * @param jws a verified one, whose window has been checked
   * @param isOwner anybody can make signatures while nobody owns the node; only the owner's are remembered without limit
   * @throws Fault `signature_reused`, `replay_window`, `store_unavailable`, `too_many_requests`
   */
  spend(jws: ParsedJws, operation: OperationName, isOwner: boolean): void {
    this.#refuseAfterLoss(jws);
    if (!isOwner) this.#refuseWhenFull();
    const insert = (db: Database) => this.#insert(db, jws);
    // A mark in memory guards these until it can be written.
    const mayStayInMemory = specOf(operation).method === 'GET' || ruleOf(operation).withoutStore === true;
    try {
      this.#store.commit(insert);
    } catch (error) {
      if (!(error instanceof StoreUnavailable) || !mayStayInMemory) throw error;
      this.#refuseAfterLoss(jws);
      this.#gapNoted ||= this.#gap.note();
      this.#store.write(insert);
    }
    if (this.#gapNoted && this.#store.health.durable) this.#gapNoted = !this.#gap.restore();
    this.#count += 1;
    if (this.#count > this.#keep + this.#keep / 8) this.#prune();
  }

  /** Nothing is added while it is full, so this is also where the marks that have expired since make room. */
  #refuseWhenFull(): void {
    const most = 2 * this.#keep;
    if (this.#count >= most) this.#prune();
    if (this.#count >= most) {
      throw fault('too_many_requests', 'Too many signatures of strangers.', { retryAfter: 60 });
    }
  }

  #insert(db: Database, jws: ParsedJws): void {
    const floor = readNumber(db, 'replay.floor');
    if (floor !== undefined && jws.time <= floor) {
      throw fault('signature_reused', 'The signature is so old that it may have been used before.', {
        serverTime: rfc3339(this.#clock.now()),
      });
    }
    const added = db.run('INSERT OR IGNORE INTO replay_marks (mark, time) VALUES (?, ?)', jws.mark, jws.time);
    if (added === 0) throw fault('signature_reused', 'This signature has been used before.');
  }

  /** Removes the oldest expired marks; never in memory, whose floor would replace the one on disk when that comes back. */
  #prune(): void {
    if (!this.#store.health.durable) return;
    const expired = this.#clock.now() - skewAllowed;
    this.#store.write((db) => {
      const surplus = countMarks(db) - this.#keep;
      const [newest] = db.all(
        `SELECT max(time) AS time FROM
           (SELECT time FROM replay_marks WHERE time < ? ORDER BY time LIMIT max(0, ?))`,
        expired,
        surplus,
      );
      const floor = newest?.['time'];
      if (typeof floor === 'number') {
        db.run('DELETE FROM replay_marks WHERE time <= ?', floor);
        writeNumber(db, 'replay.floor', Math.max(floor, readNumber(db, 'replay.floor') ?? 0));
      }
      this.#count = countMarks(db);
    });
  }

  /** The last process had marks that died with it: as good as a loss. Recorded before the note is taken back. */
  #lookForGap(): void {
    const isKept = this.#store.read((db) => readNumber(db, 'replay.gapNote')) !== undefined;
    if (isKept && this.#gap.isWhole) return;
    if (isKept) {
      const at = Math.max(this.#clock.now(), this.#loss?.at ?? 0);
      this.#remember({ reported: this.#loss?.reported ?? 0, at, seen: this.#clock.monotonic() });
    }
    this.#gapNoted = isKept;
    if (!this.#store.health.durable || !this.#gap.restore()) return;
    this.#gapNoted = false;
    if (!isKept) this.#store.write((db) => writeNumber(db, 'replay.gapNote', 1));
  }

  /** What was used before the loss has `time` at most 20 min, or `expiresAt` at most 10 min, after it: the rest is new. */
  #refuseAfterLoss(jws: ParsedJws): void {
    const lostAt = this.#lostAt();
    if (lostAt === undefined) return;
    const [newest, horizon] =
      jws.bound === undefined
        ? [jws.time, lostAt + skewAllowed]
        : [jws.bound.expiresAt, lostAt + longestLife];
    if (newest > horizon) return;
    throw this.#windowFault(Math.max(1, Math.ceil((horizon - newest) / 1000)));
  }

  #windowFault(retryAfter: number): Fault<ErrorCode> {
    return fault('replay_window', 'The record of used signatures was lost a short while ago.', {
      retryAfter,
      serverTime: rfc3339(this.#clock.now()),
      remedy:
        'Sign again in the bound form with expiresAt 10 minutes ahead, or after `retryAfter` seconds; or use beosctl on the machine itself.',
    });
  }

  /**
   * When the marks were lost, in today's clock. A machine may start with a clock far in the past and learn the time later:
   * the moment of the loss moves along. A clock set back leaves it where it is, but for gross errors (a day and more),
   * where waiting would be a lock-out and the window starts anew instead.
   */
  #lostAt(): number | undefined {
    const now = this.#clock.now();
    const reported = this.#store.health.historyLostAt;
    if (reported !== undefined && reported !== this.#loss?.reported) {
      this.#remember({
        reported,
        at: Math.max(reported, this.#loss?.at ?? 0),
        seen: this.#clock.monotonic(),
      });
    }
    const loss = this.#loss;
    if (loss === undefined) return undefined;
    if (loss.at > now + day) this.#remember({ ...loss, at: now, seen: this.#clock.monotonic() });
    const moved = now - (this.#clock.monotonic() - loss.seen);
    // 1 s: the two clocks drift, and a difference of milliseconds is not worth a write.
    if (moved > loss.at + 1000) this.#remember({ ...loss, at: moved });
    return this.#loss?.at;
  }

  #remember(loss: { readonly reported: number; readonly at: number; readonly seen: number }): void {
    this.#loss = loss;
    this.#store.write((db) => writeNumber(db, 'replay.lostAt', loss.at));
  }
}

function countMarks(db: Database): number {
  return Number(db.get('SELECT count(*) AS count FROM replay_marks')?.['count'] ?? 0);
}

function readNumber(db: Database, key: string): number | undefined {
  const value = db.get('SELECT value FROM kv WHERE key = ?', key)?.['value'];
  return value === undefined ? undefined : Number(value);
}

function writeNumber(db: Database, key: string, value: number): void {
  db.run('INSERT OR REPLACE INTO kv (key, value) VALUES (?, ?)', key, String(value));
}
