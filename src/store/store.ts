import { closeSync, mkdirSync, openSync, readSync, renameSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { causeChain, errnoOf, Fault } from '#lib/fault.ts';
import { Database } from '#store/database.ts';
import { migrations, tables } from '#store/migrations.ts';

/** The store cannot keep what it is told: the disk is full, read-only or broken. */
export class StoreUnavailable extends Fault<'store_unavailable'> {
  constructor(reason: string, cause?: unknown) {
    super(
      'store_unavailable',
      `The daemon cannot remember anything now (${reason}), so it does not begin this.`,
      { cause },
    );
  }
}

export interface StoreHealth {
  /** What is written now survives a power cut. */
  readonly durable: boolean;
  readonly reason: string | undefined;
  /** When a damaged or missing store was replaced by an empty one, ms; replay protection restarts its window from here. */
  readonly historyLostAt: number | undefined;
  /** Where the damaged file was set aside. */
  readonly setAside: string | undefined;
}

/**
 * The embedded database (SQLite, WAL, synchronous=FULL).
 *
 * INVARIANTS: opening never throws: a damaged file is set aside, an unwritable place is replaced by memory, and
 * `health` says so. While in memory, `commit` refuses, `write` goes on without a promise of durability, and
 * `recover` moves everything back to disk once that works again.
 */
export class Store {
  readonly #folder: string;
  readonly #now: () => number;
  #db: Database;
  #health: StoreHealth;
  /** While in memory: it began with all that the disk holds, so that what is missing in it was removed on purpose. */
  #knowsAll = false;
  #closed = false;

  constructor(folder: string, now: () => number) {
    this.#folder = folder;
    this.#now = now;
    this.#health = { durable: true, reason: undefined, historyLostAt: undefined, setAside: undefined };
    try {
      this.#db = this.#openFile();
    } catch (error) {
      this.#db = this.#openMemory(causeChain(error), now());
    }
  }

  get health(): StoreHealth {
    return this.#health;
  }

  read<T>(work: (db: Database) => T): T {
    return work(this.#db);
  }

  /** Best effort: durable where the disk allows it, else in memory until it does. For progress and audit. */
  write<T>(work: (db: Database) => T): T {
    return this.#bestEffort(() => this.#db.transaction(work));
  }

  /** As {@link write}, and never waits for the disk: durable when a {@link settle} begun later has resolved. For events. */
  note<T>(work: (db: Database) => T): T {
    return this.#bestEffort(() => this.#db.quickTransaction(work));
  }

  /** Resolves when what was noted until now is durable, or the store in memory; the fsync is not on our thread. */
  async settle(): Promise<void> {
    if (!this.#health.durable) return;
    const db = this.#db;
    try {
      await using log = await open(`${this.#path()}-wal`, 'r');
      await log.datasync();
    } catch (error) {
      if (db === this.#db && !this.#closed) this.#degrade(causeChain(error));
    }
  }

  #bestEffort<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      if (!this.#health.durable || !isDiskTrouble(error)) throw error;
      this.#degrade(causeChain(error));
      return act();
    }
  }

  /** Durable or not at all: throws {@link StoreUnavailable}. For intents, replay marks, the owner. */
  commit<T>(work: (db: Database) => T): T {
    if (!this.#health.durable) throw new StoreUnavailable(this.#health.reason ?? 'the store is not writable');
    try {
      return this.#db.transaction(work);
    } catch (error) {
      if (!isDiskTrouble(error)) throw error;
      this.#degrade(causeChain(error));
      throw new StoreUnavailable(causeChain(error), error);
    }
  }

  /** Tries to get back to disk after trouble; true when what is written from now on is durable. */
  recover(): boolean {
    if (this.#health.durable) return true;
    const memory = this.#db;
    let file: Database | undefined;
    try {
      file = this.#openFile();
      const disk = file;
      disk.transaction(() => (this.#knowsAll ? replaceTables(memory, disk) : mergeTables(memory, disk)));
    } catch (error) {
      file?.close();
      this.#health = { ...this.#health, durable: false, reason: causeChain(error) };
      return false;
    }
    this.#db = file;
    memory.close();
    this.#health = { ...this.#health, durable: true, reason: undefined };
    return true;
  }

  close(): void {
    this.#closed = true;
    this.#db.close();
  }

  #path(): string {
    return join(this.#folder, 'beosd.db');
  }

  #openFile(): Database {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.#path();
    const existed = sizeOf(path) > 0;
    try {
      if (isCutShort(path)) throw new DamagedStore('the file is shorter than its header says');
      return openDatabase(path);
    } catch (error) {
      if (!existed || !isDamage(error)) throw error;
      this.#setAside(path, causeChain(error));
      const empty = openDatabase(path);
      this.#countOn(empty);
      return empty;
    }
  }

  /** Event ids only grow: without the last one at hand, start above any that the lost store can have given out. */
  #countOn(empty: Database): void {
    empty.run("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", this.#now() * 1000);
  }

  /** A damaged store is kept for whoever mends it; we go on with an empty one. */
  #setAside(path: string, reason: string): void {
    const aside = `${path}.damaged-${this.#now()}`;
    for (const suffix of ['', '-wal', '-shm']) {
      if (sizeOf(path + suffix) >= 0) renameSync(path + suffix, aside + suffix);
    }
    this.#health = { ...this.#health, reason, historyLostAt: this.#now(), setAside: aside };
  }

  #openMemory(reason: string, historyLostAt: number): Database {
    const db = prepared(new DatabaseSync(':memory:'));
    this.#knowsAll = this.#readInto(db);
    if (this.#knowsAll) {
      this.#health = { ...this.#health, durable: false, reason };
      return db;
    }
    this.#countOn(db);
    this.#health = { ...this.#health, durable: false, reason, historyLostAt };
    return db;
  }

  /** What cannot be written may still be readable: a read-only disk is no reason to forget. False when it is not. */
  #readInto(memory: Database): boolean {
    const path = this.#path();
    if (!looksWhole(path)) return false;
    // Without its -shm a WAL database opens on a read-only disk only as immutable (https://www.sqlite.org/wal.html#readonly).
    const immutable = pathToFileURL(path);
    immutable.searchParams.set('immutable', '1');
    // Immutable means without the log beside it: what was committed last may stand only there.
    for (const place of sizeOf(`${path}-wal`) > 0 ? [path] : [path, immutable]) {
      try {
        const disk = new Database(new DatabaseSync(place, { readOnly: true }));
        try {
          memory.transaction(() => replaceTables(disk, memory));
          return true;
        } finally {
          disk.close();
        }
      } catch {
        // the next way, or none
      }
    }
    return false;
  }

  #degrade(reason: string): void {
    const disk = this.#db;
    const memory = prepared(new DatabaseSync(':memory:'));
    try {
      memory.transaction(() => replaceTables(disk, memory));
      this.#db = memory;
      this.#knowsAll = true;
      this.#health = { ...this.#health, durable: false, reason };
    } catch {
      // Not even readable any more: what was known is gone until the disk is back.
      memory.close();
      this.#db = this.#openMemory(reason, this.#now());
    }
    disk.close();
  }
}

class DamagedStore extends Error {}

function openDatabase(path: string): Database {
  // Everything waits with us, the answer to the phone included: who keeps the store locked for longer is a disk trouble.
  const sqlite = new DatabaseSync(path, { timeout: 250 });
  try {
    sqlite.exec(
      'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-512; PRAGMA wal_autocheckpoint=256',
    );
    const verdict = sqlite.prepare('PRAGMA quick_check(1)').get() as Record<string, unknown> | undefined;
    if (verdict?.['quick_check'] !== 'ok')
      throw new DamagedStore(`quick_check: ${String(verdict?.['quick_check'])}`);
    return prepared(sqlite);
  } catch (error) {
    sqlite.close();
    throw error;
  }
}

/** Brings the schema up to date, and proves that the place can be written. */
function prepared(sqlite: DatabaseSync): Database {
  const db = new Database(sqlite);
  const version = Number(db.get('PRAGMA user_version')?.['user_version'] ?? 0);
  if (version > migrations.length) {
    throw new Error(`the store is of a newer beosd (schema ${version}, this one knows ${migrations.length})`);
  }
  db.transaction(() => {
    for (const step of migrations.slice(version)) db.exec(step);
    db.exec(`PRAGMA user_version=${migrations.length}`);
    db.run("INSERT OR REPLACE INTO kv (key, value) VALUES ('opened', '1')");
  });
  return db;
}

/** `to` becomes what `from` is: what was removed there (a session that was ended) must not come back. */
function replaceTables(from: Database, to: Database): void {
  for (const table of tables) to.run(`DELETE FROM ${table}`);
  for (const table of tables) copyRows(from, to, table, []);
  keepSequences(from, to);
}

/** `from` knew nothing of what `to` holds: both count. Its audit comes last, under new numbers, and overwrites nothing. */
function mergeTables(from: Database, to: Database): void {
  for (const table of tables) copyRows(from, to, table, table === 'audit' ? ['id'] : []);
  keepSequences(from, to, ['audit']);
}

function copyRows(from: Database, to: Database, table: string, without: readonly string[]): void {
  for (const row of from.all(`SELECT * FROM ${table}`)) {
    const columns = Object.keys(row).filter((column) => !without.includes(column));
    const marks = columns.map(() => '?').join(', ');
    to.run(
      `INSERT OR REPLACE INTO ${table} (${columns.join(', ')}) VALUES (${marks})`,
      ...columns.map((column) => row[column] ?? null),
    );
  }
}

/** Numbers that were given out in `from` are not given out again in `to`. */
function keepSequences(from: Database, to: Database, without: readonly string[] = []): void {
  for (const row of from.all('SELECT name, seq FROM sqlite_sequence')) {
    const name = String(row['name']);
    if (without.includes(name)) continue;
    to.run('DELETE FROM sqlite_sequence WHERE name = ? AND seq < ?', name, Number(row['seq']));
    if (to.get('SELECT 1 FROM sqlite_sequence WHERE name = ?', name) === undefined) {
      to.run('INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)', name, Number(row['seq']));
    }
  }
}

/** Never throws: what cannot even be looked at is not whole. */
function looksWhole(path: string): boolean {
  try {
    return sizeOf(path) > 0 && !isCutShort(path);
  } catch {
    return false;
  }
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return -1;
    throw error;
  }
}

/** The header tells page size (offset 16) and page count (offset 28): https://www.sqlite.org/fileformat.html §1.3. */
function isCutShort(path: string): boolean {
  const size = sizeOf(path);
  if (size <= 0) return false;
  if (size < 100) return true;
  const header = Buffer.alloc(100);
  const fd = openSync(path, 'r');
  try {
    readSync(fd, header, 0, 100, 0);
  } finally {
    closeSync(fd);
  }
  const pageSize = header.readUInt16BE(16) === 1 ? 65_536 : header.readUInt16BE(16);
  const pages = header.readUInt32BE(28);
  const countIsValid = header.readUInt32BE(24) === header.readUInt32BE(92);
  return countIsValid && sizeOf(`${path}-wal`) <= 0 && size < pageSize * pages;
}

/** Primary result codes of SQLite: https://www.sqlite.org/rescode.html. */
function primaryCode(error: unknown): number | undefined {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined;
  return typeof code === 'number' ? code & 0xff : undefined;
}

const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;
const diskTrouble = new Set([
  5 /* BUSY: another process keeps it locked */,
  6 /* LOCKED */,
  8 /* READONLY */,
  10 /* IOERR */,
  13 /* FULL */,
  14 /* CANTOPEN */,
  SQLITE_CORRUPT,
  SQLITE_NOTADB,
]);

function isDamage(error: unknown): boolean {
  const code = primaryCode(error);
  return error instanceof DamagedStore || code === SQLITE_CORRUPT || code === SQLITE_NOTADB;
}

function isDiskTrouble(error: unknown): boolean {
  const code = primaryCode(error);
  return code !== undefined && diskTrouble.has(code);
}
