/**
 * The interface to everything small and mutable: which content is here, who links to it, what tags mean,
 * what is public. One implementation per file: `sqlite_index.ts`.
 *
 * @module
 */
import type { Proofs } from "../../auth/access.ts";
import type { RepositoryKey } from "../../oci/registry.ts";

/** The index does not take the note that content needs: it must not be in the store then. */
export class NoteRefusedError extends Error {
  override readonly name = "NoteRefusedError";
}

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
  /** When its bytes were last hashed; 0: not since they were found in the store without a row. */
  readonly verifiedAt: number;
}

/** How much is here, in bytes and entries, and how many bytes are promised to what is on its way. */
export interface Totals {
  readonly bytes: number;
  readonly entries: number;
  readonly reserved: number;
}

/** Room promised to content that has no row yet. */
export interface Reservation {
  /** Promises `bytes` more under the same condition. Returns whether it does. */
  grow(bytes: number, limit: number): Awaitable<boolean>;
  /** Takes the promise back: the content has a row now, or will not come. */
  release(): Awaitable<void>;
}

/** Which of the content used longest ago to tell. */
export interface LeastRecentOptions {
  /** Only what was last used before, ms since the epoch. @default {Infinity} */
  readonly before?: number;
  /** How many of them to pass over. @default {0} */
  readonly skip?: number;
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

/** What a decision is about: content of a repository, by its digest or by a tag. */
export interface Question extends RepositoryKey {
  readonly kind: ContentKind;
  readonly by: { readonly digest: string } | { readonly tag: string };
  /** The shared grant to look for, if one would prove anything. */
  readonly grant?: string;
}

/** What is known of a {@linkcode Question}, all at one moment. */
export interface Facts extends Proofs {
  readonly tag?: TagRow;
  /** Of the digest, or of the one that the tag means. Without it the rest is not looked up. */
  readonly link?: LinkRow;
  readonly row?: BlobRow;
}

/** A tag with its name. */
export interface TagEntry extends RepositoryKey, TagRow {
  readonly tag: string;
}

/** Which tags to tell. */
export interface TagPageOptions {
  /** How many at most, 1 to 500. */
  readonly limit: number;
  /** The `next` of the page before. Any text is a position. @default {the beginning} */
  readonly after?: string;
  /** Only those of a repository. @default {all} */
  readonly of?: RepositoryKey;
}

/** Some tags, in the order of their names. */
export interface TagPage {
  readonly tags: readonly TagEntry[];
  /** What the next page comes after; undefined at the end. */
  readonly next?: string;
}

/** Returns the text by which {@linkcode TagPage.next} tells a tag. No name contains a space. */
export function tagPosition({ registry, repository }: RepositoryKey, tag: string): string {
  return `${registry} ${repository} ${tag}`;
}

/**
 * The index. Every method may throw when the engine behind it fails, and none leaves its work half done:
 * an embedded engine uses a transaction, a remote one a script.
 *
 * Content, links and tags are separate facts: a link or tag may be noted before its content is here. Links, tags
 * and marks for which their budget has no room are not noted: they can be asked of upstream again.
 */
export interface Index {
  /** The row of content. A remote engine may tell a `usedAt` from before. */
  blob(digest: string): Awaitable<BlobRow | undefined>;
  /** Enters content that has just been published, in place of what was said of it, and settles it. */
  addBlob(row: BlobRow): Awaitable<void>;
  /** Enters content found in the store. What has a row already keeps it. */
  restoreBlobs(rows: readonly BlobRow[]): Awaitable<void>;
  /**
   * Removes content at once, and then its links and the tags that mean it, however many, in slices that let
   * others have their turn. What is cut short is finished by `trim`: without content links and tags open nothing.
   */
  removeBlob(digest: string): Awaitable<void>;
  /**
   * Notes last uses, by digest. What is not here, or was used later, stays as it is. The uses of links and tags,
   * which an index notes in memory when they are looked up, are written with them.
   */
  touch(uses: ReadonlyMap<string, number>): Awaitable<void>;
  /** Notes that the bytes of `digest` were hashed and are right. */
  setVerified(digest: string, at: number): Awaitable<void>;
  /** The content used longest ago, that first; at most `limit` rows. */
  leastRecent(limit: number, options?: LeastRecentOptions): Awaitable<readonly BlobRow[]>;
  /** The content hashed longest ago, that first; at most `limit` rows. */
  leastVerified(limit: number): Awaitable<readonly BlobRow[]>;
  /** All content, in no order. What comes or goes meanwhile may be told or not. */
  blobs(): AsyncIterable<BlobRow>;
  totals(): Awaitable<Totals>;

  /**
   * Promises `bytes` of room if content and promises then stay within `limit` bytes; undefined if not. A
   * promise ends with its process.
   */
  reserve(bytes: number, limit: number): Awaitable<Reservation | undefined>;

  link(key: LinkKey): Awaitable<LinkRow | undefined>;
  addLink(key: LinkKey, row: LinkRow): Awaitable<void>;

  tag(key: RepositoryKey, tag: string): Awaitable<TagRow | undefined>;
  setTag(key: RepositoryKey, tag: string, row: TagRow): Awaitable<void>;
  removeTag(key: RepositoryKey, tag: string): Awaitable<void>;
  /** Removes tags of any repositories, at most 500. */
  removeTags(entries: readonly TagEntry[]): Awaitable<void>;
  /** Some tags, in the order of their names. */
  tagPage(options: TagPageOptions): Awaitable<TagPage>;
  /** All tags, in no order; others have their turn in between. */
  tags(): AsyncIterable<TagEntry>;
  /** How many tags there are, without the notes of referrers. */
  tagCount(): Awaitable<number>;

  /**
   * Everything that a decision needs, where asking for one thing after the other would be a journey each:
   * grants too, since such an engine is shared.
   */
  look?(question: Question): Promise<Facts>;

  /** When the repository was last proved public. */
  publicSince(key: RepositoryKey): Awaitable<number | undefined>;
  /** Marks it public at `at`, or, with undefined, no longer. */
  setPublic(key: RepositoryKey, at: number | undefined): Awaitable<void>;

  /**
   * Goes on tidying from `cursor` (the beginning, without one), a bounded piece at a time: removes links and
   * tags that were noted before `before` (ms since the epoch) and whose content is not here, and public marks
   * as old as that of repositories without any link. Returns where to go on, or undefined at the end.
   */
  prune(before: number, cursor?: string): Awaitable<string | undefined>;

  /**
   * Keeps tags, links, marks and notes of referrers within their budgets, in all and for each repository: those
   * used longest ago leave, in slices. Also finishes removals that were cut short.
   */
  trim(): Awaitable<void>;
  /**
   * Makes room where the engine has none: removes some of what was used longest ago, whatever the budgets say.
   * Returns whether there was anything to remove.
   */
  shed?(): Awaitable<boolean>;

  /**
   * Notes that the content of `digest` is about to appear in the store or to go. After a crash, the digests
   * noted and not cleared (by `addBlob`, `clearPending`) are the only ones whose content and row may disagree.
   */
  markPending(digest: string): Awaitable<void>;
  clearPending(digest: string): Awaitable<void>;
  pending(): Awaitable<readonly string[]>;

  close(): Awaitable<void>;
}
