/**
 * Drafts of a store elsewhere, while they grow: files in a folder here, of so many bytes at most.
 *
 * @module
 */
import type { BlobStore, BlobWriter, BlobWriterOptions, ByteReader } from "./blob_store.ts";

/**
 * A draft cannot be kept here. Of room in the store that tells nothing: nothing has to leave it.
 */
export class BlobWriterError extends Error {
  override readonly name = "DraftError";
}

/** Options for {@linkcode Staging}. */
export interface StagingOptions {
  /** Bytes of all drafts together. */
  readonly maxSize: number;
}

/** The drafts. */
export class Staging implements Pick<BlobStore, "begin" | "sweep"> {
  readonly #files: Pick<BlobStore, "begin" | "sweep">;
  readonly #maxSize: number;
  #held = 0;

  constructor(files: Pick<BlobStore, "begin" | "sweep">, { maxSize }: StagingOptions) {
    this.#files = files;
    this.#maxSize = maxSize;
  }

  /** Bytes that drafts take, or will. */
  get held(): number {
    return this.#held;
  }

  /** Throws a {@linkcode BlobWriterError} where `size`, or what is written beyond it, finds no room. */
  async begin(digest: string, { size = 0 }: BlobWriterOptions = {}): Promise<BlobWriter> {
    this.#take(size);
    try {
      const local = await this.#files.begin(digest);
      return new CountedDraft(local, {
        size,
        take: (bytes) => this.#take(bytes),
        give: (bytes) => void (this.#held -= bytes),
      });
    } catch (error) {
      this.#held -= size;
      throw draftError(error);
    }
  }

  async sweep(): Promise<void> {
    await this.#files.sweep();
  }

  #take(bytes: number): void {
    if (this.#held + bytes > this.#maxSize) {
      throw new BlobWriterError("No room for more downloads under way: CACHE_STAGING_SIZE");
    }
    this.#held += bytes;
  }
}

function draftError(cause: unknown): BlobWriterError {
  const what = cause instanceof Error ? cause.message : String(cause);
  return new BlobWriterError(`Cannot keep a download under way: ${what}`, { cause });
}

interface Budget {
  /** Taken already. */
  readonly size: number;
  take(bytes: number): void;
  give(bytes: number): void;
}

class CountedDraft implements BlobWriter {
  readonly #local: BlobWriter;
  readonly #budget: Budget;
  #taken: number;
  #written = 0;

  constructor(local: BlobWriter, budget: Budget) {
    this.#local = local;
    this.#budget = budget;
    this.#taken = budget.size;
  }

  async write(chunk: Uint8Array): Promise<void> {
    const more = this.#written + chunk.byteLength - this.#taken;
    if (more > 0) {
      this.#budget.take(more);
      this.#taken += more;
    }
    try {
      await this.#local.write(chunk);
    } catch (error) {
      throw draftError(error);
    }
    this.#written += chunk.byteLength;
  }

  async reader(): Promise<ByteReader> {
    return await this.#local.reader();
  }

  async commit(): Promise<void> {
    await this.#local.commit();
    this.#give();
  }

  async discard(): Promise<void> {
    await this.#local.discard();
    this.#give();
  }

  #give(): void {
    this.#budget.give(this.#taken);
    this.#taken = 0;
  }
}
