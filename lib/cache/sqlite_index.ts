/**
 * The embedded {@linkcode Index}: one SQLite file in WAL mode, owned by one process.
 *
 * @module
 */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { RepositoryKey } from "../access.ts";
import type { BlobRow, Index, LinkKey, LinkRow, TagEntry, TagRow } from "./index.ts";

const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX blobs_by_use ON blobs (used_at);
  CREATE TABLE links (
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY (registry, repository, digest, kind)
  ) WITHOUT ROWID;
  CREATE INDEX links_by_digest ON links (digest);
  CREATE TABLE tags (
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT NOT NULL,
    checked_at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag)
  ) WITHOUT ROWID;
  CREATE INDEX tags_by_digest ON tags (digest);
  CREATE TABLE public_repositories (
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    proved_at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository)
  ) WITHOUT ROWID;
  CREATE TABLE unsettled (digest TEXT PRIMARY KEY) WITHOUT ROWID;
  -- Kept by triggers, so that knowing the total costs the same at any number of entries.
  CREATE TABLE totals (id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL, entries INTEGER NOT NULL);
  INSERT INTO totals VALUES (1, 0, 0);
  CREATE TRIGGER blob_added AFTER INSERT ON blobs BEGIN
    UPDATE totals SET bytes = bytes + NEW.size, entries = entries + 1;
  END;
  CREATE TRIGGER blob_removed AFTER DELETE ON blobs BEGIN
    UPDATE totals SET bytes = bytes - OLD.size, entries = entries - 1;
  END;
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

/** Another process has the index open. */
export class IndexLockedError extends Error {
  override readonly name = "IndexLockedError";
}

/** The file is no index of this version, or damaged. */
export class IndexCorruptError extends Error {
  override readonly name = "IndexCorruptError";
}

/** Deno's node:sqlite gives no result codes; these are SQLite's own fixed words for them. */
const BUSY = /database is locked/;
const DAMAGED = /file is not a database|malformed|unsupported file format/;

function open(path: string): { db: DatabaseSync; isNew: boolean } {
  const db = new DatabaseSync(path);
  try {
    // Exclusive: the lock file of this cache directory is the index itself, and it goes with the process.
    db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA busy_timeout = 0");
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -8192");
    db.exec("BEGIN EXCLUSIVE");
    const version = Number(db.prepare("PRAGMA user_version").get()!["user_version"]);
    if (version === 0) db.exec(SCHEMA);
    else if (version !== SCHEMA_VERSION) {
      throw new IndexCorruptError(`Index has version ${version}, expected ${SCHEMA_VERSION}`);
    }
    db.exec("COMMIT");
    return { db, isNew: version === 0 };
  } catch (error) {
    db.close();
    const { message } = error as Error;
    if (BUSY.test(message)) throw new IndexLockedError(`Another process is using ${path}`);
    if (DAMAGED.test(message)) {
      throw new IndexCorruptError(`Index is damaged: ${message}`, { cause: error });
    }
    throw error;
  }
}

/** {@linkcode Index} on `node:sqlite`. All methods answer at once. */
export class SqliteIndex implements Index {
  /** Whether the file was made just now. */
  readonly isNew: boolean;
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * Opens or creates the index in the file `path`. Throws an {@linkcode IndexLockedError} when another
   * process has it, an {@linkcode IndexCorruptError} when it cannot be read.
   */
  constructor(path: string) {
    const { db, isNew } = open(path);
    this.#db = db;
    this.isNew = isNew;
  }

  /** Prepared once per text. */
  #sql(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (!statement) this.#statements.set(text, statement = this.#db.prepare(text));
    return statement;
  }

  #transaction(work: () => void): void {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      work();
      this.#db.exec("COMMIT");
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  blob(digest: string): BlobRow | undefined {
    return this.#sql(
      `SELECT digest, size, created_at AS "createdAt", used_at AS "usedAt" FROM blobs WHERE digest = ?`,
    ).get(digest) as BlobRow | undefined;
  }

  addBlob(digest: string, size: number, at: number): void {
    this.#transaction(() => {
      // Replaced by hand: REPLACE would not fire the trigger that subtracts the old size.
      this.#sql("DELETE FROM blobs WHERE digest = ?").run(digest);
      this.#sql("INSERT INTO blobs VALUES (?, ?, ?, ?)").run(digest, size, at, at);
      this.#sql("DELETE FROM unsettled WHERE digest = ?").run(digest);
    });
  }

  removeBlob(digest: string): void {
    this.#transaction(() => {
      this.#sql("DELETE FROM blobs WHERE digest = ?").run(digest);
      this.#sql("DELETE FROM links WHERE digest = ?").run(digest);
      this.#sql("DELETE FROM tags WHERE digest = ?").run(digest);
    });
  }

  touch(uses: ReadonlyMap<string, number>): void {
    if (uses.size === 0) return;
    this.#transaction(() => {
      const statement = this.#sql("UPDATE blobs SET used_at = ? WHERE digest = ?");
      for (const [digest, at] of uses) statement.run(at, digest);
    });
  }

  leastRecent(limit: number, before = Number.MAX_SAFE_INTEGER): BlobRow[] {
    return this.#sql(
      `SELECT digest, size, created_at AS "createdAt", used_at AS "usedAt" FROM blobs
       WHERE used_at < ? ORDER BY used_at LIMIT ?`,
    ).all(before, limit) as unknown as BlobRow[];
  }

  *blobs(): Iterable<BlobRow> {
    // In pages, so that content may come and go while somebody reads.
    const page = this.#sql(
      `SELECT digest, size, created_at AS "createdAt", used_at AS "usedAt" FROM blobs
       WHERE digest > ? ORDER BY digest LIMIT 500`,
    );
    for (let last = "";;) {
      const rows = page.all(last) as unknown as BlobRow[];
      yield* rows;
      if (rows.length === 0) return;
      last = rows.at(-1)!.digest;
    }
  }

  totals(): { bytes: number; entries: number } {
    return this.#sql("SELECT bytes, entries FROM totals").get() as {
      bytes: number;
      entries: number;
    };
  }

  link(key: LinkKey): LinkRow | undefined {
    return this.#sql(
      `SELECT media_type AS "mediaType" FROM links
       WHERE registry = ? AND repository = ? AND digest = ? AND kind = ?`,
    ).get(key.registry, key.repository, key.digest, key.kind) as LinkRow | undefined;
  }

  addLink(key: LinkKey, row: LinkRow): void {
    this.#sql("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?)")
      .run(key.registry, key.repository, key.digest, key.kind, row.mediaType);
  }

  tag(key: RepositoryKey, tag: string): TagRow | undefined {
    return this.#sql(
      `SELECT digest, checked_at AS "checkedAt" FROM tags
       WHERE registry = ? AND repository = ? AND tag = ?`,
    ).get(key.registry, key.repository, tag) as TagRow | undefined;
  }

  setTag(key: RepositoryKey, tag: string, row: TagRow): void {
    this.#sql("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?)")
      .run(key.registry, key.repository, tag, row.digest, row.checkedAt);
  }

  removeTag(key: RepositoryKey, tag: string): void {
    this.#sql("DELETE FROM tags WHERE registry = ? AND repository = ? AND tag = ?")
      .run(key.registry, key.repository, tag);
  }

  tags(): TagEntry[] {
    return this.#sql(
      `SELECT registry, repository, tag, digest, checked_at AS "checkedAt" FROM tags
       ORDER BY registry, repository, tag`,
    ).all() as unknown as TagEntry[];
  }

  publicSince(key: RepositoryKey): number | undefined {
    const row = this.#sql(
      `SELECT proved_at AS "provedAt" FROM public_repositories WHERE registry = ? AND repository = ?`,
    ).get(key.registry, key.repository);
    return row?.["provedAt"] as number | undefined;
  }

  setPublic(key: RepositoryKey, at: number | undefined): void {
    if (at === undefined) {
      this.#sql("DELETE FROM public_repositories WHERE registry = ? AND repository = ?")
        .run(key.registry, key.repository);
    } else {
      this.#sql("INSERT OR REPLACE INTO public_repositories VALUES (?, ?, ?)")
        .run(key.registry, key.repository, at);
    }
  }

  unsettle(digest: string): void {
    this.#sql("INSERT OR IGNORE INTO unsettled VALUES (?)").run(digest);
  }

  settle(digest: string): void {
    this.#sql("DELETE FROM unsettled WHERE digest = ?").run(digest);
  }

  unsettled(): string[] {
    return this.#sql("SELECT digest FROM unsettled").all().map((row) => row["digest"] as string);
  }

  close(): void {
    this.#statements.clear();
    this.#db.close();
  }
}
