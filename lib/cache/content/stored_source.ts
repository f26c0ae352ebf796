/**
 * Stored content on its way to a client. Where the store fails in the middle of it, the rest comes from somewhere else,
 * and the client does not notice.
 *
 * @module
 */
import type { Hash } from "node:crypto";
import type { ByteSource } from "../../response/byte_source.ts";
import type { Part } from "../../transforms/range.ts";
import type { OpenedContent } from "./content.ts";

/** Where the store failed, and what is still to be sent. */
export interface Interruption {
  /** The part of the content that the client still waits for. */
  readonly rest: Part;
  /** Whether the client gets all of the content, and not a part that it asked for: then the whole can be verified. */
  readonly isWhole: boolean;
  /** The hash of what was sent before, read again; undefined where that cannot be read any more, or is of no use. */
  readonly hash: Hash | undefined;
  readonly cause: unknown;
}

/** Options for {@linkcode storedSource}. */
export interface StoredSourceOptions {
  /** What of the content the client gets. @default {all} */
  readonly part: Part | undefined;
  /** Called once, with the bytes delivered and whether that was all. */
  readonly onEnd: (sent: number, complete: boolean) => void;
  /** Where the rest comes from. What it throws breaks the client's connection. */
  readonly goOn: (
    interruption: Interruption,
  ) => Promise<ReadableStream<Uint8Array<ArrayBuffer>>>;
}

/** The bytes of `part` of `blob`, which is closed at the end. */
export function storedSource(
  blob: OpenedContent,
  { part, onEnd, goOn }: StoredSourceOptions,
): ByteSource {
  const start = part?.start ?? 0;
  const end = part ? part.end + 1 : blob.size;
  let position = start;
  let isOpen = true;
  let rest: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;

  async function interrupted(cause: unknown): Promise<void> {
    const isWhole = start === 0 && end === blob.size;
    // Before anything is concluded: what is found damaged leaves its place.
    const hash = isWhole ? await blob.hashOfFirst(position, () => isOpen) : undefined;
    await blob.failed(cause);
    if (!isOpen) throw cause;
    const left = { start: position, end: end - 1 };
    const stream = await goOn({ rest: left, isWhole, hash, cause });
    rest = stream.getReader();
    if (!isOpen) rest.cancel().catch(() => {}); // the client left meanwhile
  }

  return {
    async read(buffer) {
      const left = end - position;
      if (left === 0) return undefined;
      if (!rest) {
        const target = left < buffer.byteLength ? buffer.subarray(0, left) : buffer;
        try {
          const n = await blob.tryRead(position, target);
          position += n;
          return n === target.byteLength ? target : target.subarray(0, n);
        } catch (error) {
          await interrupted(error);
        }
      }
      const { done, value } = await rest!.read();
      if (done) throw new Error(`Content ended ${left} bytes early`);
      position += value.byteLength;
      return value;
    },
    end(sent) {
      isOpen = false;
      blob.close();
      rest?.cancel().catch(() => {}); // broken already
      onEnd(sent, start + sent === end);
    },
  };
}
