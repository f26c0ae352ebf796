/**
 * A store in memory whose operations can be made to fail, and that tells what was asked of it.
 *
 * @module
 */
import type {
  BlobStore,
  BlobWriter,
  ByteReader,
  StoredBlob,
  StoredEntry,
} from "../../lib/cache/store/blob_store.ts";

/** What a store is asked to do. */
export type StoreOperation =
  | "open"
  | "read"
  | "begin"
  | "write"
  | "commit"
  | "remove"
  | "quarantine";

/** An error as Deno gives one for a full disk. */
export function diskFull(): Error {
  return Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });
}

/** {@linkcode BlobStore} in memory. */
export class MemoryStore implements BlobStore {
  /** Committed content. A test may change it behind everybody's back. */
  readonly content = new Map<string, { bytes: Uint8Array; storedAt: number }>();
  readonly aside = new Map<string, { size: number; at: number }>();
  /** Every operation so far, as `commit sha256:…`. */
  readonly log: string[] = [];
  /** Throws what it returns; called before each operation. */
  fail: (operation: StoreOperation, digest: string) => Error | undefined = () => undefined;
  /** Waited for before each operation. */
  before: (operation: StoreOperation, digest: string) => Promise<void> | void = () => {};
  now: () => number = Date.now;

  async #do(operation: StoreOperation, digest: string): Promise<void> {
    await this.before(operation, digest);
    this.log.push(`${operation} ${digest}`);
    const error = this.fail(operation, digest);
    if (error) throw error;
  }

  /** Bytes of all content. */
  get bytes(): number {
    return [...this.content.values()].reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  }

  #reader(digest: string, bytes: () => Uint8Array): ByteReader {
    return {
      read: async (offset, buffer) => {
        await this.#do("read", digest);
        const piece = bytes().subarray(offset, offset + buffer.byteLength);
        buffer.set(piece);
        return piece.byteLength;
      },
      close() {},
    };
  }

  async open(digest: string): Promise<StoredBlob | undefined> {
    await this.#do("open", digest);
    const found = this.content.get(digest);
    if (!found) return undefined;
    const { bytes } = found;
    return { size: bytes.byteLength, ...this.#reader(digest, () => bytes) };
  }

  async begin(digest: string): Promise<BlobWriter> {
    await this.#do("begin", digest);
    let bytes = new Uint8Array();
    return {
      write: async (chunk) => {
        await this.#do("write", digest);
        const longer = new Uint8Array(bytes.byteLength + chunk.byteLength);
        longer.set(bytes);
        longer.set(chunk, bytes.byteLength);
        bytes = longer;
      },
      reader: () => Promise.resolve(this.#reader(digest, () => bytes)),
      commit: async () => {
        await this.#do("commit", digest);
        this.content.set(digest, { bytes, storedAt: this.now() });
      },
      discard: () => Promise.resolve(),
    };
  }

  async remove(digest: string): Promise<void> {
    await this.#do("remove", digest);
    this.content.delete(digest);
  }

  stat(digest: string): Promise<StoredEntry | undefined> {
    const found = this.content.get(digest);
    return Promise.resolve(
      found && { digest, size: found.bytes.byteLength, storedAt: found.storedAt },
    );
  }

  async *list(): AsyncIterable<StoredEntry> {
    for (const [digest, { bytes, storedAt }] of [...this.content]) {
      yield { digest, size: bytes.byteLength, storedAt };
    }
  }

  async quarantine(digest: string): Promise<boolean> {
    await this.#do("quarantine", digest);
    const found = this.content.get(digest);
    this.content.delete(digest);
    if (found) this.aside.set(digest, { size: found.bytes.byteLength, at: this.now() });
    return true;
  }

  purge(before: number): Promise<number> {
    for (const [digest, { at }] of this.aside) if (at < before) this.aside.delete(digest);
    return Promise.resolve([...this.aside.values()].reduce((sum, { size }) => sum + size, 0));
  }

  sweep(): Promise<void> {
    return Promise.resolve();
  }
}
