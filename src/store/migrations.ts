/**
 * The schema, as numbered steps. A step that has landed is never edited; a change is a new step at the end.
 * Times are ms since the epoch. JSON columns hold what only their owner reads.
 */
export const migrations: readonly string[] = [
  `CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
   CREATE TABLE jobs (
     id TEXT PRIMARY KEY, operation TEXT NOT NULL, lane TEXT NOT NULL, state TEXT NOT NULL,
     phase TEXT, percent REAL, phases TEXT NOT NULL, input TEXT NOT NULL, checkpoint TEXT NOT NULL,
     error TEXT, caller TEXT NOT NULL, created_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER
   );
   CREATE INDEX jobs_by_age ON jobs (created_at DESC, id DESC);
   CREATE INDEX jobs_open ON jobs (state) WHERE state IN ('queued', 'running');
   CREATE TABLE events (
     id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, data TEXT NOT NULL
   );
   CREATE TABLE audit (
     id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, caller TEXT NOT NULL, proof TEXT NOT NULL,
     operation TEXT NOT NULL, outcome TEXT NOT NULL, job_id TEXT, detail TEXT
   );
   CREATE TABLE replay_marks (mark BLOB PRIMARY KEY, time INTEGER NOT NULL) WITHOUT ROWID;
   CREATE INDEX replay_marks_by_time ON replay_marks (time);
   CREATE TABLE did_cache (
     name TEXT PRIMARY KEY, document TEXT, fetched_at INTEGER NOT NULL
   ) WITHOUT ROWID;
   CREATE TABLE idempotency (
     scope TEXT PRIMARY KEY, body_mac TEXT NOT NULL, status INTEGER, answer TEXT, at INTEGER NOT NULL
   ) WITHOUT ROWID;
   CREATE TABLE sessions (
     token_hash TEXT PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL, expires_at INTEGER NOT NULL
   ) WITHOUT ROWID;`,
  `CREATE TABLE image_use (image_id TEXT PRIMARY KEY, last_used_at INTEGER NOT NULL) WITHOUT ROWID;`,
  `CREATE TABLE mounts (
     identity TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL UNIQUE, disk TEXT NOT NULL, source TEXT NOT NULL,
     fstype TEXT NOT NULL, wanted INTEGER NOT NULL, phase TEXT NOT NULL, dev TEXT, mount_id INTEGER, boot_id TEXT,
     folder TEXT, folder_token TEXT, held_off TEXT, sealed TEXT, extra TEXT NOT NULL, changed_at INTEGER NOT NULL
   ) WITHOUT ROWID;
   CREATE TABLE disk_policies (disk TEXT PRIMARY KEY, policy TEXT NOT NULL) WITHOUT ROWID;`,
];

/** Tables that move to memory and back while the disk cannot be written; a new table is added here with its step. */
export const tables = [
  'kv',
  'jobs',
  'events',
  'audit',
  'replay_marks',
  'did_cache',
  'idempotency',
  'sessions',
  'image_use',
  'mounts',
  'disk_policies',
] as const;
