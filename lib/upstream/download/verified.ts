/**
 * A body passed straight on to one client, which never completes unless its digest is right.
 *
 * @module
 */
import type { Hash } from "node:crypto";
import { createHasher, parseDigest } from "../../oci/digest.ts";
import type { Part } from "../../transforms/range.ts";
import type { Chunks } from "./chunks.ts";
import { MismatchError } from "./download.ts";

/** Options for {@linkcode verifiedStream}. */
export interface VerifiedOptions {
  /** A storable digest. */
  readonly digest: string;
  /** The hash of the `offset` bytes before the first chunk. @default {a new one} */
  readonly hash?: Hash;
  /** @default {0} */
  readonly offset?: number;
  /** Of the whole content in bytes, where it is known. */
  readonly size?: number;
  /** What of the content is delivered; what is outside of it is read and hashed only. */
  readonly part?: Part;
  /**
   * What the client has had from elsewhere, of the same content: the hash of its first `length` bytes. Others make the
   * stream error. Only with `offset` 0.
   */
  readonly before?: { readonly length: number; readonly hash: Hash };
  /** Called when the bytes are not the digest's, or not as many as `size` says. */
  readonly onMismatch?: (reason: string) => void;
  /** Called once, with the bytes delivered and whether that was all. */
  readonly onEnd?: (sent: number, complete: boolean) => void;
}

/**
 * The bytes of `chunks`, the last of which is held back until the whole agrees with the digest, and with what the client
 * had `before`; otherwise the stream errors. A part that ends before the last byte is delivered without waiting for the
 * rest.
 */
export function verifiedStream(
  chunks: Chunks,
  options: VerifiedOptions,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const { digest, size } = options;
  const start = options.part?.start ?? 0;
  const end = options.part ? options.part.end + 1 : Infinity;
  const hash = options.hash ?? createHasher(digest);
  let offset = options.offset ?? 0;
  let held: Uint8Array | undefined;
  let sent = 0;
  let isDone = false;
  let ended = false;
  let before = options.before;
  const update = (chunk: Uint8Array) => {
    const left = before ? before.length - offset : Infinity;
    hash.update(left < chunk.byteLength ? chunk.subarray(0, left) : chunk);
    if (!before || chunk.byteLength < left) return;
    if (hash.copy().digest("hex") !== before.hash.copy().digest("hex")) {
      throw new MismatchError(`The first ${before.length} bytes are not what they were before`);
    }
    before = undefined;
    if (left < chunk.byteLength) hash.update(chunk.subarray(left));
  };
  const finish = (complete: boolean) => {
    if (!ended) options.onEnd?.(sent, complete);
    ended = true;
  };
  /** The next bytes to deliver; undefined when all are. */
  const next = async (): Promise<Uint8Array | undefined> => {
    while (!isDone) {
      if (size !== undefined && end < size && offset >= end) {
        isDone = true;
        chunks.cancel(); // the rest is not this client's
        break;
      }
      const value = await chunks.read();
      if (!value) {
        if (size !== undefined && offset !== size) {
          throw new MismatchError(`Body has ${offset} of ${size} bytes`);
        }
        const actual = hash.digest("hex");
        if (actual !== parseDigest(digest).encoded) {
          throw new MismatchError(`Digest of the body is ${actual}`);
        }
        isDone = true;
        return held;
      }
      update(value);
      const from = Math.max(0, start - offset);
      const to = Math.min(value.byteLength, end - offset);
      offset += value.byteLength;
      if (size !== undefined && offset > size) {
        throw new MismatchError(`Body is longer than ${size} bytes`);
      }
      if (to <= from) continue;
      const ready = held;
      const chunk = value.subarray(from, to);
      // Where the length is known, only what holds the last byte has to wait.
      if (size !== undefined && offset < size) return chunk;
      held = chunk;
      if (ready) return ready;
    }
  };
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const chunk = await next();
        if (!chunk) {
          finish(true);
          return controller.close();
        }
        sent += chunk.byteLength;
        controller.enqueue(chunk as Uint8Array<ArrayBuffer>);
      } catch (error) {
        if (!ended && error instanceof MismatchError) options.onMismatch?.(error.message);
        finish(false);
        chunks.cancel(error);
        controller.error(error);
      }
    },
    cancel(reason) {
      finish(false);
      chunks.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
