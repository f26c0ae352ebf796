/**
 * A draft in memory, whose disk a test controls.
 *
 * @module
 */
import type { BlobWriter } from "../../lib/cache/store/blob_store.ts";

/** A draft and what was done with it. */
export interface MemoryDraft extends BlobWriter {
  readonly written: Uint8Array<ArrayBuffer>;
  /** Reads of all readers so far. */
  readonly reads: number;
  /** Readers that are open. */
  readonly open: number;
}

/** Options for {@linkcode memoryDraft}. */
export interface MemoryDraftOptions {
  /** Bytes after which a write fails. @default {Infinity} */
  readonly room?: number;
  /** Awaited before each write. */
  readonly beforeWrite?: () => Promise<void> | void;
  /** Awaited before a reader is opened. */
  readonly beforeOpen?: () => Promise<void> | void;
  /** Awaited in each read, before the reader is found open or closed. */
  readonly beforeRead?: () => Promise<void> | void;
}

/** Makes an empty draft. */
export function memoryDraft(options: MemoryDraftOptions = {}): MemoryDraft {
  const { room = Infinity, beforeWrite, beforeOpen, beforeRead } = options;
  let memory = new Uint8Array(1024);
  let size = 0;
  let reads = 0;
  let open = 0;
  return {
    get written() {
      return memory.slice(0, size);
    },
    get reads() {
      return reads;
    },
    get open() {
      return open;
    },
    async write(chunk) {
      await beforeWrite?.();
      if (size + chunk.byteLength > room) throw new Error("No space left on device");
      if (size + chunk.byteLength > memory.byteLength) {
        const grown = new Uint8Array(2 * (size + chunk.byteLength));
        grown.set(memory.subarray(0, size));
        memory = grown;
      }
      memory.set(chunk, size);
      size += chunk.byteLength;
    },
    async reader() {
      await beforeOpen?.();
      open++;
      let isOpen = true;
      return {
        async read(offset, buffer) {
          reads++;
          await beforeRead?.();
          if (!isOpen) throw new Error("Bad resource ID");
          const bytes = memory.subarray(offset, Math.min(size, offset + buffer.byteLength));
          buffer.set(bytes);
          return bytes.byteLength;
        },
        close() {
          if (isOpen) open--;
          isOpen = false;
        },
      };
    },
    async commit() {},
    async discard() {},
  };
}
