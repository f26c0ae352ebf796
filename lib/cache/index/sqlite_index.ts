/**
 * The embedded {@linkcode Index}: one SQLite file in WAL mode, owned by one process.
 *
 * @module
 */
import type { SQLOutputValue } from "node:sqlite";
import type { RepositoryKey } from "../../oci/registry.ts";
import { nextTurn, TimeSlice } from "../../util/time_slice.ts";
import {
  type Budgets,
  budgetsOf,
  FACT_KINDS,
  type FactKind,
  INDEX_SIZE,
  isNearlyFull,
  ROW_BYTES,
  rowsToLeave,
  type Usage,
} from "./budgets.ts";
import {
  type Awaitable,
  type BlobRow,
  type Index,
  type LeastRecentOptions,
  type LinkKey,
  type LinkRow,
  type Reservation,
  type TagEntry,
  type TagPage,
  type TagPageOptions,
  tagPosition,
  type TagRow,
  type Totals,
} from "./index.ts";
import { NOTES } from "./referrers_note.ts";
import { SqliteFile } from "./sqlite_file.ts";

const SCHEMA_VERSION = 2;

/** Bytes of text: lengths in SQL are in characters. */
function bytesOf(...columns: string[]): string {
  return columns.map((column) => `length(CAST(${column} AS BLOB))`).join(" + ");
}

/** What a row of each table counts for: its names are in the table and in the index by digest. */
const TAG_BYTES = (row: string) =>
  `2 * (${
    bytesOf(...["registry", "repository", "tag", "digest"].map((name) => `${row}.${name}`))
  }) + ${ROW_BYTES}`;
const LINK_BYTES = (row: string) =>
  `2 * (${
    bytesOf(...["registry", "repository", "digest", "kind"].map((name) => `${row}.${name}`))
  }) + ${bytesOf(`${row}.media_type`)} + ${ROW_BYTES}`;
const MARK_BYTES = (row: string) =>
  `${bytesOf(`${row}.registry`, `${row}.repository`)} + ${ROW_BYTES}`;
const TAG_KIND = (row: string) =>
  `CASE WHEN substr(${row}.tag, 1, ${NOTES.length}) = '${NOTES}' THEN 'referrers' ELSE 'tags' END`;

/** What keeps `usage` for a table, so that knowing it costs the same at any number of rows. */
function usageTriggers(
  table: string,
  { bytes, kind }: { bytes: (row: string) => string; kind: (row: string) => string },
): string {
  const add = (registry: string, repository: string) => `
    INSERT INTO usage VALUES (${kind("NEW")}, ${registry}, ${repository}, 1, ${bytes("NEW")})
      ON CONFLICT (kind, registry, repository)
      DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;`;
  const change = (by: string, registry: string, repository: string, row: string) => `
    UPDATE usage SET ${by}
      WHERE kind = ${kind(row)} AND registry = ${registry} AND repository = ${repository};`;
  const less = `rows = rows - 1, bytes = bytes - (${bytes("OLD")})`;
  const other = `bytes = bytes - (${bytes("OLD")}) + (${bytes("NEW")})`;
  return `
    CREATE TRIGGER ${table}_row_added AFTER INSERT ON ${table} BEGIN
      ${add("''", "''")}
      ${add("NEW.registry", "NEW.repository")}
    END;
    CREATE TRIGGER ${table}_row_removed AFTER DELETE ON ${table} BEGIN
      ${change(less, "''", "''", "OLD")}
      ${change(less, "OLD.registry", "OLD.repository", "OLD")}
      DELETE FROM usage WHERE kind = ${kind("OLD")} AND registry = OLD.registry
        AND repository = OLD.repository AND rows <= 0;
    END;
    CREATE TRIGGER ${table}_row_changed AFTER UPDATE ON ${table}
      WHEN (${bytes("OLD")}) <> (${bytes("NEW")}) BEGIN
      ${change(other, "''", "''", "OLD")}
      ${change(other, "OLD.registry", "OLD.repository", "OLD")}
    END;`;
}

const COUNTED = {
  tags: { bytes: TAG_BYTES, kind: TAG_KIND },
  links: { bytes: LINK_BYTES, kind: () => "'links'" },
  public_repositories: { bytes: MARK_BYTES, kind: () => "'marks'" },
} as const;

/** What version 2 has beside what was there before. */
const BUDGET_SCHEMA = `
  ALTER TABLE tags ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
  CREATE TABLE removals (digest TEXT PRIMARY KEY) WITHOUT ROWID;
  CREATE TABLE usage (
    kind TEXT NOT NULL,
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (kind, registry, repository)
  ) WITHOUT ROWID;
  ${Object.entries(COUNTED).map(([table, counted]) => usageTriggers(table, counted)).join("\n")}
`;

/** From version 1: what is there is counted once. */
const COUNT_ALL = Object.entries(COUNTED).map(([table, { bytes, kind }]) => `
  INSERT INTO usage SELECT ${kind("r")}, r.registry, r.repository, count(*), sum(${bytes("r")})
    FROM ${table} r GROUP BY 1, 2, 3;
`).join("") + `
  INSERT INTO usage SELECT kind, '', '', sum(rows), sum(bytes) FROM usage GROUP BY kind;
`;

/** The tables of version 1. Another shape of them is another version. */
const FIRST_SCHEMA = `
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
/** Rows that are read at a time. */
const PAGE = 500;
/** Rows that are removed at a time. */
const REMOVED_AT_ONCE = 100;
/** Uses of links, and of tags, that are remembered until they are written. */
const USES = 512;
/** A use this soon after the last one that was written, ms, is not written. */
const SAME_USE = 10 * 60_000;
/** Times of use that are looked at to tell which rows leave: with fewer rows it is all of them. */
const SAMPLE = 20_000;

/** Facts that one budget is for. */
interface Scope {
  readonly kind: FactKind;
  /** Absent: all of the kind. */
  readonly of?: RepositoryKey;
}

/** Options for {@linkcode SqliteIndex}. */
export interface SqliteIndexOptions {
  /** Called when the file turns out to be damaged while it is in use, once until it is replaced. */
  readonly onDamaged?: () => void;
  /** What the index may take, bytes: see `budgets.ts`. @default {256 MiB} */
  readonly size?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** {@linkcode Index} on `node:sqlite`. All methods but those that work in slices answer at once. */
export class SqliteIndex implements Index {
  readonly #file: SqliteFile;
  readonly #now: () => number;
  readonly #budgets: Budgets;
  /** What was looked up since uses were written last; of more than these only some. */
  readonly #usedLinks: LinkKey[] = [];
  readonly #usedTags: (RepositoryKey & { readonly tag: string })[] = [];
  #uses = 0;
  /** Repositories whose facts are close to their budget. Undefined: not known yet. */
  #crowded: Map<string, Scope> | undefined;
  #trimming: Promise<void> | undefined;
  #isClosed = false;
  #reserved = 0;

  /**
   * Opens or creates the index in the file `path`. Throws an `IndexLockedError` when another process has
   * it, an `IndexCorruptError` when it cannot be read.
   */
  constructor(path: string, options: SqliteIndexOptions = {}) {
    this.#file = new SqliteFile(path, {
      schema: `${FIRST_SCHEMA} ${BUDGET_SCHEMA}`,
      version: SCHEMA_VERSION,
      migrations: { 1: `${BUDGET_SCHEMA} ${COUNT_ALL}` },
      onDamaged: options.onDamaged,
    });
    this.#now = options.now ?? Date.now;
    this.#budgets = budgetsOf(options.size ?? INDEX_SIZE);
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
      // Links and tags that a crash left of it are what upstream said, and good again.
      this.#file.prepare("DELETE FROM removals WHERE digest = ?").run(row.digest);
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

  removeBlob(digest: string): Awaitable<void> {
    let isMore = false;
    this.#file.transaction(() => {
      this.#file.prepare("DELETE FROM blobs WHERE digest = ?").run(digest);
      isMore = this.#removeFacts(digest);
      if (isMore) this.#file.prepare("INSERT OR IGNORE INTO removals VALUES (?)").run(digest);
    });
    if (isMore) return this.#finishRemoval(digest);
  }

  /** Removes some links and tags of `digest`; returns whether there may be more. For use in a transaction. */
  #removeFacts(digest: string): boolean {
    let isMore = false;
    for (const { name, key } of [TAGS, LINKS]) {
      const found = this.#file.prepare(
        `SELECT ${key.join(", ")} FROM ${name} WHERE digest = ? LIMIT ${REMOVED_AT_ONCE}`,
      ).all(digest);
      const remove = this.#file.prepare(removalFrom(name, key));
      for (const row of found) remove.run(...key.map((column) => row[column] as string));
      isMore ||= found.length === REMOVED_AT_ONCE;
    }
    return isMore;
  }

  /** Goes on with a removal, unless the content comes back meanwhile. */
  #finishRemoval(digest: string): Promise<void> {
    return this.#file.inSlices(() => this.#removeRest(digest));
  }

  async #removeRest(digest: string): Promise<void> {
    const slice = new TimeSlice();
    await nextTurn();
    while (!this.#isClosed) {
      let isMore = false;
      this.#file.transaction(() => {
        const noted = this.#file.prepare("SELECT 1 FROM removals WHERE digest = ?").get(digest);
        if (!noted) return;
        isMore = this.#removeFacts(digest);
        if (!isMore) this.#file.prepare("DELETE FROM removals WHERE digest = ?").run(digest);
      });
      if (!isMore) return;
      await slice.pause();
    }
  }

  touch(uses: ReadonlyMap<string, number>): void {
    const links = this.#usedLinks.splice(0);
    const tags = this.#usedTags.splice(0);
    if (uses.size === 0 && links.length === 0 && tags.length === 0) return;
    const now = this.#now();
    this.#file.transaction(() => {
      const statement = this.#file.prepare(
        "UPDATE blobs SET used_at = ? WHERE digest = ? AND used_at < ?",
      );
      for (const [digest, at] of uses) statement.run(at, digest, at);
      const touchLink = this.#file.prepare(
        `UPDATE links SET noted_at = ? WHERE registry = ? AND repository = ? AND digest = ? AND kind = ?
         AND noted_at < ?`,
      );
      for (const { registry, repository, digest, kind } of new Set(links)) {
        touchLink.run(now, registry, repository, digest, kind, now - SAME_USE);
      }
      const touchTag = this.#file.prepare(
        "UPDATE tags SET used_at = ? WHERE registry = ? AND repository = ? AND tag = ? AND used_at < ?",
      );
      for (const { registry, repository, tag } of tags) {
        touchTag.run(now, registry, repository, tag, now - SAME_USE);
      }
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

  async *blobs(): AsyncIterable<BlobRow> {
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
      await nextTurn();
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
    const row = this.#file.get(
      `SELECT media_type AS "mediaType" FROM links
       WHERE registry = ? AND repository = ? AND digest = ? AND kind = ?`,
      key.registry,
      key.repository,
      key.digest,
      key.kind,
    ) as LinkRow | undefined;
    if (row) this.#noteUse(this.#usedLinks, key);
    return row;
  }

  #noteUse<T>(used: T[], fact: T): void {
    if (used.length < USES) used.push(fact);
    else used[this.#uses++ % USES] = fact;
  }

  addLink(key: LinkKey, row: LinkRow): void {
    if (!this.#hasRoom({ kind: "links", of: key })) {
      if (!this.link(key)) return;
    }
    this.#file.run(
      `INSERT INTO links VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET media_type = excluded.media_type, noted_at = excluded.noted_at`,
      key.registry,
      key.repository,
      key.digest,
      key.kind,
      row.mediaType,
      this.#now(),
    );
  }

  tag(key: RepositoryKey, tag: string): TagRow | undefined {
    const row = this.#file.get(
      `SELECT digest, checked_at AS "checkedAt" FROM tags
       WHERE registry = ? AND repository = ? AND tag = ?`,
      key.registry,
      key.repository,
      tag,
    ) as TagRow | undefined;
    if (row) {
      const { registry, repository } = key;
      this.#noteUse(this.#usedTags, { registry, repository, tag });
    }
    return row;
  }

  setTag(key: RepositoryKey, tag: string, row: TagRow): void {
    const kind = tag.startsWith(NOTES) ? "referrers" : "tags";
    if (!this.#hasRoom({ kind, of: key })) {
      if (!this.tag(key, tag)) return;
    }
    this.#file.run(
      `INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET digest = excluded.digest, checked_at = excluded.checked_at,
         used_at = excluded.used_at`,
      key.registry,
      key.repository,
      tag,
      row.digest,
      row.checkedAt,
      this.#now(),
    );
  }

  removeTag({ registry, repository }: RepositoryKey, tag: string): void {
    this.#file.run(removalFrom(TAGS.name, TAGS.key), registry, repository, tag);
  }

  removeTags(entries: readonly TagEntry[]): void {
    this.#file.slice(() => {
      const remove = this.#file.prepare(removalFrom(TAGS.name, TAGS.key));
      for (const { registry, repository, tag } of entries) remove.run(registry, repository, tag);
    });
  }

  tagPage({ limit, after = "", of }: TagPageOptions): TagPage {
    const [registry = "", repository = "", ...rest] = after.split(" ");
    const from = of && after === ""
      ? [of.registry, of.repository, ""]
      : [registry, repository, rest.join(" ")];
    const tags = this.#file.all(
      `SELECT registry, repository, tag, digest, checked_at AS "checkedAt" FROM tags
       WHERE (registry, repository, tag) > (?, ?, ?)
         ${of ? "AND registry = ? AND repository = ?" : ""}
       ORDER BY registry, repository, tag LIMIT ?`,
      ...from,
      ...of ? [of.registry, of.repository] : [],
      limit,
    ) as unknown as TagEntry[];
    const last = tags.length < limit ? undefined : tags.at(-1)!;
    return { tags, ...last && { next: tagPosition(last, last.tag) } };
  }

  async *tags(): AsyncIterable<TagEntry> {
    let after: string | undefined;
    do {
      const { tags, next } = this.tagPage({ limit: PAGE, after });
      yield* tags;
      if ((after = next) !== undefined) await nextTurn();
    } while (after !== undefined);
  }

  tagCount(): number {
    return this.#usage({ kind: "tags" }).rows;
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
      if (!this.#hasRoom({ kind: "marks" }) && this.publicSince(key) === undefined) return;
      this.#file.run(
        `INSERT INTO public_repositories VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE SET proved_at = excluded.proved_at`,
        key.registry,
        key.repository,
        at,
      );
    }
  }

  #usage({ kind, of }: Scope): Usage {
    const row = this.#file.get(
      "SELECT rows, bytes FROM usage WHERE kind = ? AND registry = ? AND repository = ?",
      kind,
      of?.registry ?? "",
      of?.repository ?? "",
    );
    return (row ?? { rows: 0, bytes: 0 }) as unknown as Usage;
  }

  /** Whether one more fact fits into all of its budgets. Where they are nearly used up, trimming begins. */
  #hasRoom(scope: Scope): boolean {
    const { kind, of } = scope;
    let hasRoom = true;
    let isCrowded = false;
    const all = this.#usage({ kind }).bytes;
    if (isNearlyFull(all, this.#budgets.kind)) {
      isCrowded = true;
      hasRoom = all < this.#budgets.kind;
    }
    const own = of ? this.#usage(scope).bytes : 0;
    if (of && isNearlyFull(own, this.#budgets.repository)) {
      isCrowded = true;
      const { registry, repository } = of;
      this.#crowded?.set(`${kind} ${registry} ${repository}`, {
        kind,
        of: { registry, repository },
      });
      hasRoom &&= own < this.#budgets.repository;
    }
    // The upkeep does it too, and tells of what fails.
    if (isCrowded && !this.#trimming) this.trim().catch(() => {});
    return hasRoom;
  }

  trim(): Promise<void> {
    return this.#trimming ??= this.#file.inSlices(() => this.#trim()).finally(() =>
      this.#trimming = undefined
    );
  }

  async #trim(): Promise<void> {
    await nextTurn();
    if (this.#isClosed) return;
    for (const { digest } of this.#file.all("SELECT digest FROM removals LIMIT ?", PAGE)) {
      await this.#finishRemoval(digest as string);
    }
    if (this.#isClosed) return;
    this.#crowded ??= new Map(this.#readCrowded());
    for (const [name, scope] of this.#crowded) {
      await this.#trimScope(scope, this.#budgets.repository);
      this.#crowded.delete(name);
    }
    for (const kind of FACT_KINDS) await this.#trimScope({ kind }, this.#budgets.kind);
  }

  *#readCrowded(): Iterable<[string, Scope]> {
    const rows = this.#file.all(
      "SELECT kind, registry, repository, bytes FROM usage WHERE bytes > ? AND registry <> ''",
      this.#budgets.repository / 2,
    ) as unknown as (RepositoryKey & { kind: FactKind; bytes: number })[];
    for (const { kind, registry, repository, bytes } of rows) {
      if (kind === "marks" || !isNearlyFull(bytes, this.#budgets.repository)) continue;
      yield [`${kind} ${registry} ${repository}`, { kind, of: { registry, repository } }];
    }
  }

  async #trimScope(scope: Scope, budget: number): Promise<void> {
    if (this.#isClosed) return;
    const usage = this.#usage(scope);
    if (!isNearlyFull(usage.bytes, budget)) return;
    let left = rowsToLeave(usage, budget);
    const cutoff = await this.#cutoff(scope, left / usage.rows);
    // Those used earlier first; of those used at the same moment only as many as have to.
    for (const leaves of [(at: number) => at < cutoff, (at: number) => at === cutoff]) {
      for await (const rows of this.#pages(scope)) {
        const { name, key } = TABLES[scope.kind];
        const leaving = rows.filter((row) => leaves(row["used"] as number)).slice(0, left);
        left -= leaving.length;
        const slice = new TimeSlice();
        for (let i = 0; i < leaving.length && !this.#isClosed; i += REMOVED_AT_ONCE) {
          this.#file.transaction(() => {
            const remove = this.#file.prepare(removalFrom(name, key));
            for (const row of leaving.slice(i, i + REMOVED_AT_ONCE)) {
              remove.run(...key.map((column) => row[column] as string));
            }
          });
          await slice.pause();
        }
        if (left === 0) return;
      }
    }
  }

  /** Before when the `share` of the facts were used that was used longest ago. */
  async #cutoff(scope: Scope, share: number): Promise<number> {
    const sample: number[] = [];
    let seen = 0;
    for await (const rows of this.#pages(scope)) {
      for (const { used } of rows) {
        const place = seen++ < SAMPLE ? sample.length : Math.floor(Math.random() * seen);
        if (place < SAMPLE) sample[place] = used as number;
      }
    }
    const times = Float64Array.from(sample).sort();
    return times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
  }

  /** The facts of a scope with when they were `used`, page by page, others having their turn in between. */
  async *#pages({ kind, of }: Scope): AsyncIterable<Record<string, SQLOutputValue>[]> {
    const { name, key, used } = TABLES[kind];
    const keys = key.join(", ");
    const text = `SELECT ${keys}, ${used} AS used FROM ${name}
      WHERE (${keys}) > (${key.map(() => "?").join(", ")})
        ${of ? "AND registry = ? AND repository = ?" : ""} ORDER BY ${keys} LIMIT ${PAGE}`;
    const scope = of ? [of.registry, of.repository] : [];
    let last = key.map((_column, i) => scope[i] ?? "");
    while (!this.#isClosed) {
      const rows = this.#file.all(text, ...last, ...scope);
      const isNote = (row: Record<string, SQLOutputValue>) =>
        String(row["tag"]).startsWith(NOTES) === (kind === "referrers");
      yield name === "tags" ? rows.filter(isNote) : rows;
      if (rows.length < PAGE) return;
      last = key.map((column) => rows.at(-1)![column] as string);
      await nextTurn();
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
    const remove = removalFrom(name, key);
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

  markPending(digest: string): void {
    this.#file.run("INSERT OR IGNORE INTO unsettled VALUES (?)", digest);
  }

  clearPending(digest: string): void {
    this.#file.run("DELETE FROM unsettled WHERE digest = ?", digest);
  }

  pending(): string[] {
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
    this.#isClosed = true;
    this.#file.close();
  }
}

/** A table of facts. */
interface Table {
  readonly name: string;
  readonly key: readonly string[];
  /** When a row was last used. */
  readonly used: string;
}

const TAGS: Table = {
  name: "tags",
  key: ["registry", "repository", "tag"],
  used: "max(used_at, checked_at)",
};
const LINKS: Table = {
  name: "links",
  key: ["registry", "repository", "digest", "kind"],
  used: "noted_at",
};
const MARKS: Table = {
  name: "public_repositories",
  key: ["registry", "repository"],
  used: "proved_at",
};

const TABLES: Readonly<Record<FactKind, Table>> = {
  tags: TAGS,
  referrers: TAGS,
  links: LINKS,
  marks: MARKS,
};

function removalFrom(name: string, key: readonly string[]): string {
  return `DELETE FROM ${name} WHERE ${key.map((column) => `${column} = ?`).join(" AND ")}`;
}

/** What {@linkcode Index.prune} goes through, and which rows are stale: `?` is `before`. */
const PRUNED: readonly (Table & { stale: string })[] = [
  {
    ...TAGS,
    stale: "checked_at < ? AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = tags.digest)",
  },
  {
    ...LINKS,
    stale: "noted_at < ? AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = links.digest)",
  },
  {
    ...MARKS,
    stale: `proved_at < ? AND NOT EXISTS (SELECT 1 FROM links
      WHERE links.registry = public_repositories.registry
        AND links.repository = public_repositories.repository)`,
  },
];
