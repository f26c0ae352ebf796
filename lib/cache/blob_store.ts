/**
 * The interface to immutable bytes by digest. One implementation per file: `file_store.ts`.
 *
 * @module
 */

/** Bytes at positions; one reader is used by one consumer, sequentially. */
export interface ByteReader {
  /** Reads into `buffer` from byte `offset` on; returns how many bytes, 0 at the end. */
  read(offset: number, buffer: Uint8Array): Promise<number>;
  close(): void;
}

/** Stored content, open for reading. Removal of the content does not disturb who has it open. */
export interface StoredBlob extends ByteReader {
  /** Bytes. */
  readonly size: number;
}

/** Content on its way into the store, under no digest yet that anybody could ask for. */
export interface Draft {
  /** Appends all of `chunk`. */
  write(chunk: Uint8Array): Promise<void>;
  /** Opens what has been written and will be. What is open stays readable whatever becomes of it. */
  reader(): Promise<ByteReader>;
  /** Makes it durable and publishes it under its digest. The caller has verified that it is right. */
  commit(): Promise<void>;
  /** Removes it. Never throws. */
  discard(): Promise<void>;
}

/** Content as the store itself lists it. */
export interface StoredEntry {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
}

/** The store. Methods throw what the engine behind it throws. */
export interface BlobStore {
  /** Opens content, or returns undefined when it is not here. */
  open(digest: string): Promise<StoredBlob | undefined>;
  /** Starts content that is to become `digest`. */
  begin(digest: string): Promise<Draft>;
  /** Removes content; what is not here is removed already. */
  remove(digest: string): Promise<void>;
  /** The size of content in bytes, or undefined when it is not here. */
  size(digest: string): Promise<number | undefined>;
  /** Everything that is here, in no order. */
  list(): AsyncIterable<StoredEntry>;
  /** Removes what unfinished drafts of an earlier process left behind. */
  sweep(): Promise<void>;
}
