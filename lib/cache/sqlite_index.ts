/**
 * The embedded {@linkcode Index}: one SQLite file in WAL mode, owned by one process.
 *
 * @module
 */
import type { SQLOutputValue } from "node:sqlite";
import type { RepositoryKey } from "../access.ts";
import type {
  BlobRow,
  Index,
  LeastRecentOptions,
  LinkKey,
  LinkRow,
  Reservation,
  TagEntry,
  TagRow,
  Totals,
} from "./index.ts";
import { SqliteFile } from "./sqlite_file.ts";

const SCHEMA_VERSION = 1;

/** The tables. Another shape of them is another version. */
const SCHEMA = `
  CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    verified_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX blobs_by_use ON blobs (used_at);
  CREATE INDEX blobs_by_verification ON blobs (verified_at);
  CREATE TABLE links (
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    media_type TEXT NOT NULL,
    noted_at INTEGER NOT NULL,
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
`;

const ROW =
  `digest, size, created_at AS "createdAt", used_at AS "usedAt", verified_at AS "verifiedAt"`;
/** Rows that are read or removed at a time. */
const PAGE = 500;

/** Options for {@linkcode SqliteIndex}. */
export interface SqliteIndexOptions {
  /** Called when the file turns out to be damaged while it is in use, once until it is replaced. */
  readonly onDamaged?: () => void;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** {@linkcode Index} on `node:sqlite`. All methods answer at once. */
export class SqliteIndex implements Index {
  readonly #file: SqliteFile;
  readonly #now: () => number;
  #reserved = 0;

  /**
   * Opens or creates the index in the file `path`. Throws an `IndexLockedError` when another process has
   * it, an `IndexCorruptError` when it cannot be read.
   */
  constructor(path: string, options: SqliteIndexOptions = {}) {
    this.#file = new SqliteFile(path, {
      schema: SCHEMA,
      version: SCHEMA_VERSION,
      onDamaged: options.onDamaged,
    });
    this.#now = options.now ?? Date.now;
  }

  /** Whether the file was made just now. */
  get isNew(): boolean {
    return this.#file.isNew;
  }

  blob(digest: string): BlobRow | undefined {
    return this.#file.get(`SELECT ${ROW} FROM blobs WHERE digest = ?`, digest) as
      | BlobRow
      | undefined;
  }

  addBlob(row: BlobRow): void {
    this.#file.transaction(() => {
      // Replaced by hand: REPLACE would not fire the trigger that subtracts the old size.
      this.#file.prepare("DELETE FROM blobs WHERE digest = ?").run(row.digest);
      this.#insert(row);
      this.#file.prepare("DELETE FROM unsettled WHERE digest = ?").run(row.digest);
    });
  }

  restoreBlobs(rows: readonly BlobRow[]): void {
    this.#file.transaction(() => {
      for (const row of rows) this.#insert(row);
    });
  }

  #insert({ digest, size, createdAt, usedAt, verifiedAt }: BlobRow): void {
    this.#file.prepare("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?, ?, ?)")
      .run(digest, size, createdAt, usedAt, verifiedAt);
  }

  removeBlob(digest: string): void {
    this.#file.transaction(() => {
      this.#file.prepare("DELETE FROM blobs WHERE digest = ?").run(digest);
      this.#file.prepare("DELETE FROM links WHERE digest = ?").run(digest);
      this.#file.prepare("DELETE FROM tags WHERE digest = ?").run(digest);
    });
  }

  touch(uses: ReadonlyMap<string, number>): void {
    if (uses.size === 0) return;
    this.#file.transaction(() => {
      const statement = this.#file.prepare(
        "UPDATE blobs SET used_at = ? WHERE digest = ? AND used_at < ?",
      );
      for (const [digest, at] of uses) statement.run(at, digest, at);
    });
  }

  setVerified(digest: string, at: number): void {
    this.#file.run("UPDATE blobs SET verified_at = ? WHERE digest = ?", at, digest);
  }

  leastRecent(limit: number, { before, skip = 0 }: LeastRecentOptions = {}): BlobRow[] {
    const until = before === undefined ? Number.MAX_SAFE_INTEGER : before;
    return this.#file.all(
      `SELECT ${ROW} FROM blobs WHERE used_at < ? ORDER BY used_at LIMIT ? OFFSET ?`,
      until,
      limit,
      skip,
    ) as unknown as BlobRow[];
  }

  leastVerified(limit: number): BlobRow[] {
    return this.#file.all(
      `SELECT ${ROW} FROM blobs ORDER BY verified_at LIMIT ?`,
      limit,
    ) as unknown as BlobRow[];
  }

  *blobs(): Iterable<BlobRow> {
    // In pages, so that content may come and go while somebody reads.
    let last = "";
    while (true) {
      const rows = this.#file.all(
        `SELECT ${ROW} FROM blobs WHERE digest > ? ORDER BY digest LIMIT ${PAGE}`,
        last,
      ) as unknown as BlobRow[];
      yield* rows;
      if (rows.length < PAGE) return;
      last = rows.at(-1)!.digest;
    }
  }

  totals(): Totals {
    const { bytes, entries } = this.#file.get("SELECT bytes, entries FROM totals") as {
      bytes: number;
      entries: number;
    };
    return { bytes, entries, reserved: this.#reserved };
  }

  reserve(bytes: number, limit: number): Reservation | undefined {
    let held = 0;
    const grow = (more: number, limit: number): boolean => {
      if (this.totals().bytes + this.#reserved + more > limit) return false;
      this.#reserved += more;
      held += more;
      return true;
    };
    if (!grow(bytes, limit)) return undefined;
    return {
      grow,
      release: () => {
        this.#reserved -= held;
        held = 0;
      },
    };
  }

  link(key: LinkKey): LinkRow | undefined {
    return this.#file.get(
      `SELECT media_type AS "mediaType" FROM links
       WHERE registry = ? AND repository = ? AND digest = ? AND kind = ?`,
      key.registry,
      key.repository,
      key.digest,
      key.kind,
    ) as LinkRow | undefined;
  }

  addLink(key: LinkKey, row: LinkRow): void {
    this.#file.run(
      "INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?)",
      key.registry,
      key.repository,
      key.digest,
      key.kind,
      row.mediaType,
      this.#now(),
    );
  }

  tag(key: RepositoryKey, tag: string): TagRow | undefined {
    return this.#file.get(
      `SELECT digest, checked_at AS "checkedAt" FROM tags
       WHERE registry = ? AND repository = ? AND tag = ?`,
      key.registry,
      key.repository,
      tag,
    ) as TagRow | undefined;
  }

  setTag(key: RepositoryKey, tag: string, row: TagRow): void {
    this.#file.run(
      "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?, ?)",
      key.registry,
      key.repository,
      tag,
      row.digest,
      row.checkedAt,
    );
  }

  removeTag(key: RepositoryKey, tag: string): void {
    this.#file.run(
      "DELETE FROM tags WHERE registry = ? AND repository = ? AND tag = ?",
      key.registry,
      key.repository,
      tag,
    );
  }

  *tags(): Iterable<TagEntry> {
    let last: TagEntry | undefined;
    while (true) {
      const rows = this.#file.all(
        `SELECT registry, repository, tag, digest, checked_at AS "checkedAt" FROM tags
         WHERE (registry, repository, tag) > (?, ?, ?)
         ORDER BY registry, repository, tag LIMIT ${PAGE}`,
        last?.registry ?? "",
        last?.repository ?? "",
        last?.tag ?? "",
      ) as unknown as TagEntry[];
      yield* rows;
      if (rows.length < PAGE) return;
      last = rows.at(-1)!;
    }
  }

  publicSince(key: RepositoryKey): number | undefined {
    const row = this.#file.get(
      `SELECT proved_at AS "provedAt" FROM public_repositories WHERE registry = ? AND repository = ?`,
      key.registry,
      key.repository,
    );
    return row?.["provedAt"] as number | undefined;
  }

  setPublic(key: RepositoryKey, at: number | undefined): void {
    if (at === undefined) {
      this.#file.run(
        "DELETE FROM public_repositories WHERE registry = ? AND repository = ?",
        key.registry,
        key.repository,
      );
    } else {
      this.#file.run(
        "INSERT OR REPLACE INTO public_repositories VALUES (?, ?, ?)",
        key.registry,
        key.repository,
        at,
      );
    }
  }

  prune(before: number, cursor?: string): string | undefined {
    const [table, ...last] = cursor === undefined
      ? [0]
      : JSON.parse(cursor) as [number, ...string[]];
    const { name, key, stale } = PRUNED[table]!;
    const keys = key.join(", ");
    const rows = this.#file.all(
      `SELECT ${keys}, (${stale}) AS stale FROM ${name}
       WHERE (${keys}) > (${key.map(() => "?").join(", ")}) ORDER BY ${keys} LIMIT ${PAGE}`,
      before,
      ...last.length > 0 ? last : key.map(() => ""),
    );
    const remove = `DELETE FROM ${name} WHERE ${
      key.map((column) => `${column} = ?`).join(" AND ")
    }`;
    const valuesOf = (row: Record<string, SQLOutputValue>) => key.map((k) => row[k] as string);
    const stales = rows.filter((row) => row["stale"] === 1);
    if (stales.length > 0) {
      this.#file.transaction(() => {
        for (const row of stales) this.#file.prepare(remove).run(...valuesOf(row));
      });
    }
    if (rows.length === PAGE) return JSON.stringify([table, ...valuesOf(rows.at(-1)!)]);
    return table + 1 < PRUNED.length ? JSON.stringify([table + 1]) : undefined;
  }

  unsettle(digest: string): void {
    this.#file.run("INSERT OR IGNORE INTO unsettled VALUES (?)", digest);
  }

  settle(digest: string): void {
    this.#file.run("DELETE FROM unsettled WHERE digest = ?", digest);
  }

  unsettled(): string[] {
    return this.#file.all("SELECT digest FROM unsettled").map((row) => row["digest"] as string);
  }

  /**
   * Sets a damaged file aside as `aside` and goes on with an empty one. What is promised stays promised.
   * Throws what the constructor does.
   */
  replace(aside: string): void {
    this.#file.replace(aside);
  }

  close(): void {
    this.#file.close();
  }
}

/** What {@linkcode Index.prune} goes through, and which rows are stale: `?` is `before`. */
const PRUNED: readonly { name: string; key: readonly string[]; stale: string }[] = [
  {
    name: "tags",
    key: ["registry", "repository", "tag"],
    stale: "checked_at < ? AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = tags.digest)",
  },
  {
    name: "links",
    key: ["registry", "repository", "digest", "kind"],
    stale: "noted_at < ? AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = links.digest)",
  },
  {
    name: "public_repositories",
    key: ["registry", "repository"],
    stale: `proved_at < ? AND NOT EXISTS (SELECT 1 FROM links
      WHERE links.registry = public_repositories.registry
        AND links.repository = public_repositories.repository)`,
  },
];
