/**
 * A body passed straight on to one client, which never completes unless its digest is right.
 *
 * @module
 */
import type { Hash } from "node:crypto";
import { createHasher, parseDigest } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import type { Part } from "../transforms/range.ts";
import { readWithin } from "./body.ts";

/** Options for {@linkcode verifiedStream}. */
export interface VerifiedOptions {
  /** A storable digest. */
  readonly digest: string;
  /** The hash of the `offset` bytes before `body`. @default {a new one} */
  readonly hash?: Hash;
  /** @default {0} */
  readonly offset?: number;
  /** Of the whole content in bytes, where it is known. */
  readonly size?: number;
  /** What of the content is delivered; what of `body` is outside of it is read and hashed only. */
  readonly part?: Part;
  /** How long the body may stand still, ms. */
  readonly idle: number;
  /** Called once, with the bytes delivered and whether that was all. */
  readonly onEnd?: (sent: number, complete: boolean) => void;
}

/**
 * The bytes of `body`, whose last chunk is held back until the whole agrees with the digest; otherwise
 * the stream errors. A part that ends before the last byte is delivered without waiting for the rest.
 */
export function verifiedStream(
  body: ReadableStream<Uint8Array>,
  options: VerifiedOptions,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const { digest, size, idle } = options;
  const start = options.part?.start ?? 0;
  const end = options.part ? options.part.end + 1 : Infinity;
  const hash = options.hash ?? createHasher(digest);
  const reader = body.getReader();
  let offset = options.offset ?? 0;
  let held: Uint8Array | undefined;
  let sent = 0;
  let isDone = false;
  let ended = false;
  const finish = (complete: boolean) => {
    if (!ended) options.onEnd?.(sent, complete);
    ended = true;
  };
  const mismatch = (reason: string) =>
    new OciError("UNAVAILABLE", "Upstream sent other content than the digest says", {
      detail: { digest, reason },
    });
  /** The next bytes to deliver; undefined when all are. */
  const next = async (): Promise<Uint8Array | undefined> => {
    while (!isDone) {
      if (size !== undefined && end < size && offset >= end) {
        isDone = true;
        reader.cancel().catch(() => {}); // the rest is not this client's
        break;
      }
      const { done, value } = await readWithin(reader, idle);
      if (done) {
        if (size !== undefined && offset !== size) throw mismatch(`${offset} of ${size} bytes`);
        if (hash.digest("hex") !== parseDigest(digest).encoded) throw mismatch("digest");
        isDone = true;
        return held;
      }
      hash.update(value);
      const from = Math.max(0, start - offset);
      const to = Math.min(value.byteLength, end - offset);
      offset += value.byteLength;
      if (size !== undefined && offset > size) throw mismatch(`more than ${size} bytes`);
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
        finish(false);
        reader.cancel(error).catch(() => {}); // broken already
        controller.error(error);
      }
    },
    async cancel(reason) {
      finish(false);
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
