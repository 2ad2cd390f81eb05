import type { Row } from '#store/database.ts';
import type { Store } from '#store/store.ts';

export interface AuditEntry {
  /** ms since the epoch. */
  readonly at: number;
  readonly caller: string;
  readonly proof: string;
  readonly operation: string;
  /** `done`, `accepted`, or the code of the refusal. */
  readonly outcome: string;
  readonly jobId?: string;
  readonly detail?: string;
}

export interface AuditRow extends AuditEntry {
  readonly id: number;
}

/** Entries kept; older ones go, so that nobody can fill the disk by asking. */
const keptEntries = 100_000;
/** Of those, refusals of callers who have proved nothing: they push out nothing of anybody else. */
const keptOfStrangers = 10_000;
/** Between two looks at how many of them there are. */
const strangersBetweenTrims = 100;

/** Who did what, when, with which proof, and how it ended. Rows are added and aged out, never changed. */
export class AuditLog {
  readonly #store: Store;
  #strangersSinceTrim = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  append(entry: AuditEntry): void {
    this.#store.write((db) => {
      db.run(
        'INSERT INTO audit (at, caller, proof, operation, outcome, job_id, detail) VALUES (?, ?, ?, ?, ?, ?, ?)',
        entry.at,
        entry.caller,
        entry.proof,
        entry.operation,
        entry.outcome,
        entry.jobId ?? null,
        entry.detail ?? null,
      );
      db.run('DELETE FROM audit WHERE id <= last_insert_rowid() - ?', keptEntries);
      if (isOfStranger(entry) && ++this.#strangersSinceTrim >= strangersBetweenTrims) {
        this.#strangersSinceTrim = 0;
        db.run(
          `DELETE FROM audit WHERE id IN (
             SELECT id FROM audit WHERE proof = 'none' AND operation <> 'owner' ORDER BY id DESC LIMIT -1 OFFSET ?)`,
          keptOfStrangers,
        );
      }
    });
  }

  /** Newest first, strictly older than `before`. */
  list(limit: number, before: number | undefined): AuditRow[] {
    const rows = this.#store.read((db) =>
      db.all(
        'SELECT * FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?',
        before ?? Number.MAX_SAFE_INTEGER,
        limit,
      ),
    );
    return rows.map(toEntry);
  }
}

/** Changes of the owner have no proof of their own; the request that made them has. */
function isOfStranger({ proof, operation }: AuditEntry): boolean {
  return proof === 'none' && operation !== 'owner';
}

function toEntry(row: Row): AuditRow {
  return {
    id: Number(row['id']),
    at: Number(row['at']),
    caller: String(row['caller']),
    proof: String(row['proof']),
    operation: String(row['operation']),
    outcome: String(row['outcome']),
    ...(row['job_id'] === null ? {} : { jobId: String(row['job_id']) }),
    ...(row['detail'] === null ? {} : { detail: String(row['detail']) }),
  };
}
