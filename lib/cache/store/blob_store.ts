/**
 * The interface to immutable bytes by digest. One implementation per file: `file_store.ts`.
 *
 * @module
 */

/**
 * An engine cannot be reached, or does not answer, now. Unlike an error of the disk it tells nothing about
 * the content.
 */
export class UnreachableError extends Error {
  override readonly name: string = "UnreachableError";
}

/**
 * One content cannot be read now, while its store answers otherwise. Once may be chance; after twice what is stored is
 * taken for damaged.
 */
export class BlobUnavailableError extends Error {
  override readonly name = "BlobUnavailableError";
}

/**
 * What was opened is no longer what the store has under its digest: it was removed, or replaced. That tells nothing about
 * what is there now.
 */
export class BlobReplacedError extends Error {
  override readonly name = "BlobReplacedError";
}

/** Bytes at positions; one reader is used by one consumer, sequentially. */
export interface ByteReader {
  /** Reads into `buffer` from byte `offset` on; returns how many bytes, 0 at the end. */
  read(offset: number, buffer: Uint8Array): Promise<number>;
  close(): void;
}

/**
 * Stored content, open for reading. Removal of the content does not disturb who has it open, or makes
 * `read` throw: it never gives other bytes.
 */
export interface StoredBlob extends ByteReader {
  /** Bytes. */
  readonly size: number;
  /** Tells what is open from what else is stored under its digest before or after, where the store can. */
  readonly version?: string;
}

/** Content on its way into the store, under no digest yet that anybody could ask for. */
export interface BlobWriter {
  /** Appends all of `chunk`. */
  write(chunk: Uint8Array): Promise<void>;
  /**
   * Opens what has been written and will be, or, after `commit`, what was published. What is open stays
   * readable whatever becomes of it.
   */
  reader(): Promise<ByteReader>;
  /**
   * Makes it durable and publishes it under its digest, in place of what was there. The caller has verified
   * that it is right.
   */
  commit(): Promise<void>;
  /** Removes what is not published. Never throws. */
  discard(): Promise<void>;
}

/** Options for {@linkcode BlobStore.begin}. */
export interface BlobWriterOptions {
  /** Bytes, where they are known. */
  readonly size?: number;
  /** Whether it looks as if it will be committed: a remote store sends it ahead then. @default {true} */
  readonly isOurs?: () => boolean;
}

/** Content as the store itself lists it. */
export interface StoredEntry {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  /** When it was published, ms since the epoch. */
  readonly storedAt: number;
}

/** The store. Methods throw what the engine behind it throws. */
export interface BlobStore {
  /** Opens content, or returns undefined when it is not here. */
  open(digest: string): Promise<StoredBlob | undefined>;
  /** Starts content that is to become `digest`. */
  begin(digest: string, options?: BlobWriterOptions): Promise<BlobWriter>;
  /** Removes content; what is not here is removed already. */
  remove(digest: string): Promise<void>;
  /** What is here of `digest`, or undefined. */
  stat(digest: string): Promise<StoredEntry | undefined>;
  /** Everything that is here, in no order. What comes or goes meanwhile may be told or not. */
  list(): AsyncIterable<StoredEntry>;
  /**
   * Moves content aside, where only an operator finds it, in place of what was aside of the same digest;
   * what is not here is no error. With `version` only if that is what is here. Returns whether nothing is left under
   * the digest.
   */
  quarantine(digest: string, version?: string): Promise<boolean>;
  /** Removes what was moved aside before `before`, ms since the epoch; returns the bytes that stay aside. */
  purge(before: number): Promise<number>;
  /**
   * A URL from which anybody gets the content, of `size` bytes, for at most `lifetime` ms; undefined where the store cannot
   * make one now, or has no such content.
   */
  redirect?(
    digest: string,
    options: { readonly size: number; readonly lifetime: number },
  ): Promise<string | undefined>;
  /** Removes what unfinished drafts of dead processes left behind, except where `isRunning` says otherwise. */
  sweep(isRunning?: (digest: string) => boolean | Promise<boolean>): Promise<void>;
}
