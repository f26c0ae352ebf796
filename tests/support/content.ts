/**
 * Bytes that a test server can serve at any offset: held in memory, or computed from a seed.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** Immutable bytes with a digest, readable at any offset. */
export interface Content {
  readonly mediaType: string;
  /** `sha256:<hex>` */
  readonly digest: string;
  readonly size: number;
  /** The bytes `[start, end)`; `end` never exceeds `size`. */
  read(start: number, end: number): Uint8Array<ArrayBuffer>;
}

/** How much of a content is made and written at a time, in bytes. */
export const CHUNK = 256 * 1024;

/** `sha256:<hex>` of bytes in memory. */
export function digestOf(bytes: Uint8Array | string): string {
  return "sha256:" + createHash("sha256").update(bytes).digest("hex");
}

/** Bytes in memory as a content. */
export function contentOf(
  bytes: Uint8Array<ArrayBuffer>,
  mediaType = "application/octet-stream",
): Content {
  return {
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
    read: (start, end) => bytes.subarray(start, end),
  };
}

/** All bytes of a content; not for large ones. */
export function bytesOf(content: Content): Uint8Array<ArrayBuffer> {
  return content.read(0, content.size);
}

/** The bytes `[start, end)` of a content as a stream with backpressure. */
export function streamOf(
  content: Content,
  start = 0,
  end: number = content.size,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = start;
  return new ReadableStream({
    pull(controller) {
      if (at >= end) return controller.close();
      const next = Math.min(end, at + CHUNK);
      controller.enqueue(content.read(at, next));
      at = next;
    },
  }, { highWaterMark: 0 });
}

/** A generator of reproducible numbers in [0, 1): the same seed gives the same sequence (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6D2B79F5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `size` reproducible bytes that do not compress. */
export function randomBytes(size: number, seed: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(size / 4));
  let state = (seed ^ 0x9E3779B9) >>> 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, size);
}

const BASE = 1024 * 1024;
const PAGE = 4096;
const digests = new Map<string, string>();

/**
 * `size` reproducible bytes of which no more than one read is ever in memory. One random MiB repeats, and each
 * 4 KiB page begins with its own number, so that a page in the wrong place changes the digest.
 * `head` and `tail` are put before and after them. The digest is computed once per process.
 */
export function generated(options: {
  size: number;
  seed: number;
  head?: Uint8Array;
  tail?: Uint8Array;
  mediaType?: string;
}): Content {
  const { size, seed, head = new Uint8Array(), tail = new Uint8Array() } = options;
  const base = randomBytes(BASE, seed);
  const total = head.length + size + tail.length;

  function fill(out: Uint8Array, from: number) {
    for (let done = 0; done < out.length;) {
      const offset = (from + done) % BASE;
      const length = Math.min(out.length - done, BASE - offset);
      out.set(base.subarray(offset, offset + length), done);
      done += length;
    }
    const stamp = new Uint8Array(8);
    const view = new DataView(stamp.buffer);
    for (
      let page = Math.floor(from / PAGE);
      page * PAGE < from + out.length;
      page++
    ) {
      view.setUint32(0, page);
      view.setUint32(4, seed);
      const at = page * PAGE - from;
      for (let i = Math.max(0, -at); i < 8 && at + i < out.length; i++) out[at + i] = stamp[i]!;
    }
  }

  function read(start: number, end: number): Uint8Array<ArrayBuffer> {
    const stop = Math.min(end, total);
    const out = new Uint8Array(Math.max(0, stop - start));
    let at = start;
    const put = (source: Uint8Array, offset: number) => {
      const from = at - offset;
      if (from < 0 || from >= source.length || at >= stop) return;
      const piece = source.subarray(from, Math.min(source.length, from + stop - at));
      out.set(piece, at - start);
      at += piece.length;
    };
    put(head, 0);
    if (at < stop && at < head.length + size) {
      const until = Math.min(stop, head.length + size);
      fill(out.subarray(at - start, until - start), at - head.length);
      at = until;
    }
    put(tail, head.length + size);
    return out;
  }

  const key = `${size} ${seed} ${digestOf(head)} ${digestOf(tail)}`;
  let digest = digests.get(key);
  if (!digest) {
    const hash = createHash("sha256");
    for (let at = 0; at < total; at += BASE) hash.update(read(at, Math.min(total, at + BASE)));
    digest = "sha256:" + hash.digest("hex");
    digests.set(key, digest);
  }
  return {
    mediaType: options.mediaType ?? "application/octet-stream",
    digest,
    size: total,
    read,
  };
}
