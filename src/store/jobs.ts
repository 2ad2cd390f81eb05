import type { Row } from '#store/database.ts';
import type { Store } from '#store/store.ts';

export interface JobRow {
  readonly id: string;
  readonly operation: string;
  readonly lane: string;
  readonly state: 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled' | 'interrupted';
  readonly phase: string | null;
  readonly percent: number | null;
  /** JSON of the phases as the wire shows them. */
  readonly phases: string;
  readonly input: string;
  readonly checkpoint: string;
  readonly error: string | null;
  /** JSON of the caller. */
  readonly caller: string;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
}

/** Finished jobs that are kept, beside the newest of each operation: what the state is derived from does not age out. */
const keptJobs = 1000;

/**
 * The journal of jobs: written before each step, read after a crash.
 *
 * INVARIANTS: what is newer is told by the order in which the rows came, never by the clock: a clock that was years ahead and
 * is put right must not make an old failure the newest job for years.
 */
export class JobJournal {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Durable or it throws {@link StoreUnavailable}. */
  insert(job: JobRow, durable: boolean): void {
    const put = durable ? this.#store.commit.bind(this.#store) : this.#store.write.bind(this.#store);
    put((db) => {
      db.run(
        `INSERT INTO jobs (id, operation, lane, state, phase, percent, phases, input, checkpoint, error, caller,
                           created_at, started_at, finished_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
        ...columnsOf(job),
      );
      db.run(
        `DELETE FROM jobs WHERE finished_at IS NOT NULL AND rowid NOT IN (SELECT max(rowid) FROM jobs GROUP BY operation)
           AND id NOT IN (SELECT id FROM jobs ORDER BY rowid DESC LIMIT ?)`,
        keptJobs,
      );
    });
  }

  /**
   * Also of a job that a store without its disk has forgotten: when that is back, it would be open there for ever. `durable`:
   * durable or it throws {@link StoreUnavailable}.
   */
  update(job: JobRow, durable: boolean): void {
    const put = durable ? this.#store.commit.bind(this.#store) : this.#store.write.bind(this.#store);
    put((db) =>
      db.run(
        `INSERT INTO jobs (id, operation, lane, state, phase, percent, phases, input, checkpoint, error, caller,
                           created_at, started_at, finished_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)
         ON CONFLICT (id) DO UPDATE SET operation = excluded.operation, lane = excluded.lane, state = excluded.state,
           phase = excluded.phase, percent = excluded.percent, phases = excluded.phases, input = excluded.input,
           checkpoint = excluded.checkpoint, error = excluded.error, caller = excluded.caller,
           created_at = excluded.created_at, started_at = excluded.started_at, finished_at = excluded.finished_at`,
        ...columnsOf(job),
      ),
    );
  }

  get(id: string): JobRow | undefined {
    const row = this.#store.read((db) => db.get('SELECT * FROM jobs WHERE id = ?', id));
    return row === undefined ? undefined : toJob(row);
  }

  /** Jobs that have not ended, oldest first. */
  open(): JobRow[] {
    return this.#store
      .read((db) => db.all("SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY rowid"))
      .map(toJob);
  }

  /** Newest first, strictly older than the job `before`. */
  list(limit: number, before: string | undefined): JobRow[] {
    return this.#store
      .read((db) => {
        if (before === undefined) return db.all('SELECT * FROM jobs ORDER BY rowid DESC LIMIT ?', limit);
        return db.all(
          'SELECT * FROM jobs WHERE rowid < (SELECT rowid FROM jobs WHERE id = ?) ORDER BY rowid DESC LIMIT ?',
          before,
          limit,
        );
      })
      .map(toJob);
  }

  /** The newest job of each operation: what the state is derived from. */
  newestOfEach(): JobRow[] {
    return this.#store
      .read((db) =>
        db.all(
          'SELECT * FROM jobs WHERE rowid IN (SELECT max(rowid) FROM jobs GROUP BY operation) ORDER BY rowid',
        ),
      )
      .map(toJob);
  }
}

function columnsOf(job: JobRow): (string | number | null)[] {
  return [
    job.id,
    job.operation,
    job.lane,
    job.state,
    job.phase,
    job.percent,
    job.phases,
    job.input,
    job.checkpoint,
    job.error,
    job.caller,
    job.createdAt,
    job.startedAt,
    job.finishedAt,
  ];
}

const text = (value: Row[string] | undefined): string | null => (typeof value === 'string' ? value : null);
const number = (value: Row[string] | undefined): number | null => (typeof value === 'number' ? value : null);

function toJob(row: Row): JobRow {
  return {
    id: String(row['id']),
    operation: String(row['operation']),
    lane: String(row['lane']),
    state: row['state'] as JobRow['state'],
    phase: text(row['phase']),
    percent: number(row['percent']),
    phases: String(row['phases']),
    input: String(row['input']),
    checkpoint: String(row['checkpoint']),
    error: text(row['error']),
    caller: String(row['caller']),
    createdAt: Number(row['created_at']),
    startedAt: number(row['started_at']),
    finishedAt: number(row['finished_at']),
  };
}
