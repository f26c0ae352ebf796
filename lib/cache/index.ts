/**
 * The interface to everything small and mutable: which content is here, who links to it, what tags mean,
 * what is public. One implementation per file: `sqlite_index.ts`.
 *
 * @module
 */
import type { RepositoryKey } from "../access.ts";

/** A value that an embedded implementation gives at once and a remote one later. */
export type Awaitable<T> = T | Promise<T>;

/** What a digest is in a repository. The same bytes may be a manifest here and a blob there. */
export type ContentKind = "manifest" | "blob";

/**
 * The key of a link. It must tell apart registries and repositories (names do not collide, and knowing a
 * digest proves nothing), and a manifest from a blob of the same bytes.
 */
export interface LinkKey extends RepositoryKey {
  readonly digest: string;
  readonly kind: ContentKind;
}

/** Content that is in the store, and whole. Times in ms since the epoch. */
export interface BlobRow {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly createdAt: number;
  readonly usedAt: number;
}

/** What a tag meant when upstream was last asked. */
export interface TagRow {
  readonly digest: string;
  readonly checkedAt: number;
}

/** What a link knows. */
export interface LinkRow {
  /** The Content-Type upstream gave a manifest; empty for a blob. */
  readonly mediaType: string;
}

/** A tag with its name. */
export interface TagEntry extends RepositoryKey, TagRow {
  readonly tag: string;
}

/** The index. Every method may throw when the engine behind it fails. */
export interface Index {
  blob(digest: string): Awaitable<BlobRow | undefined>;
  /** Enters content that has just been published. */
  addBlob(digest: string, size: number, at: number): Awaitable<void>;
  /** Removes content with its links, and the tags that mean it. */
  removeBlob(digest: string): Awaitable<void>;
  /** Notes last uses, by digest. */
  touch(uses: ReadonlyMap<string, number>): Awaitable<void>;
  /** The content used longest ago, at most `limit` rows; with `before`, only what was last used earlier. */
  leastRecent(limit: number, before?: number): Awaitable<readonly BlobRow[]>;
  /** All content, in no order. */
  blobs(): Iterable<BlobRow> | AsyncIterable<BlobRow>;
  /** How much is here. */
  totals(): Awaitable<{ readonly bytes: number; readonly entries: number }>;

  link(key: LinkKey): Awaitable<LinkRow | undefined>;
  addLink(key: LinkKey, row: LinkRow): Awaitable<void>;

  tag(key: RepositoryKey, tag: string): Awaitable<TagRow | undefined>;
  setTag(key: RepositoryKey, tag: string, row: TagRow): Awaitable<void>;
  removeTag(key: RepositoryKey, tag: string): Awaitable<void>;
  tags(): Awaitable<readonly TagEntry[]>;

  /** When the repository was last proved public. */
  publicSince(key: RepositoryKey): Awaitable<number | undefined>;
  /** Marks it public at `at`, or, with undefined, no longer. */
  setPublic(key: RepositoryKey, at: number | undefined): Awaitable<void>;

  /**
   * Notes that the file of `digest` is about to appear or to go. After a crash, the digests noted and not
   * cleared (by `addBlob`, `settle`) are the only ones whose file and row may disagree.
   */
  unsettle(digest: string): Awaitable<void>;
  settle(digest: string): Awaitable<void>;
  unsettled(): Awaitable<readonly string[]>;

  close(): Awaitable<void>;
}
