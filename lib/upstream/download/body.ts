/**
 * Upstream bodies under limits: nothing an upstream sends is read without a bound in size and time.
 *
 * @module
 */
import { trackAllocation } from "../../util/gc.ts";
import { OciError } from "../../oci/error.ts";
import { nextTurn } from "../../util/time_slice.ts";
import { startTimeout, withTimeout } from "../../util/timeout.ts";
import { reserveMemory } from "../../response/under_way.ts";
import type { Release } from "../../util/memory_budget.ts";

/** A body did not move for too long. */
export class IdleError extends Error {
  override readonly name = "IdleError";
}

/** The result of `work` on a body, or an {@linkcode IdleError} when there is none within `idle` ms. */
export async function within<T>(work: Promise<T>, idle: number): Promise<T> {
  const error = () => new IdleError(`No data for ${idle / 1000} s`);
  return await withTimeout(work, { ms: idle, error });
}

/** The next chunk of `reader`, or an {@linkcode IdleError} when none comes within `idle` ms. */
export async function readWithin<T>(
  reader: ReadableStreamDefaultReader<T>,
  idle: number,
): Promise<ReadableStreamReadResult<T>> {
  return await within(reader.read(), idle);
}

/** So many chunks a body may come in, however short it is. */
const MOST_CHUNKS = 10_000;
/** And of more than those as many as there are so many bytes: reading one takes longer than its bytes. */
const SMALLEST_CHUNK = 16;
/** Smaller chunks cost more than they bring, bytes. */
const SMALL_CHUNK = 512;
/** So many of them are read without letting others in: those that are here already take no turn of the event loop. */
const SMALL_AT_ONCE = 64;

/** A body came in chunks that are too small to be read; it will be no better another time. */
export class ChunksError extends Error {
  override readonly name = "ChunksError";
}

/** The chunks that a body comes in: a registry that sends byte by byte has others wait, and is broken off. */
export class ChunkCount {
  #count = 0;
  #small = 0;
  #bytes = 0;

  /** Notes a chunk. Returns whether others should have their turn first. Throws where there are too many. */
  note(chunk: Uint8Array): boolean {
    this.#bytes += chunk.byteLength;
    if (++this.#count > MOST_CHUNKS + this.#bytes / SMALLEST_CHUNK) {
      throw new ChunksError("It comes in too many chunks");
    }
    return chunk.byteLength < SMALL_CHUNK && ++this.#small % SMALL_AT_ONCE === 0;
  }
}

/** `body`, which errors when it stands still for `idle` ms. */
export function withIdleLimit(
  body: ReadableStream<Uint8Array>,
  idle: number,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const chunks = new ChunkCount();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await readWithin(reader, idle);
        if (value && chunks.note(value)) await nextTurn();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        reader.cancel(error).catch(() => {}); // its end is not waited for
        throw error;
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

/** `body`, when its first bytes are here. Throws what breaks it before that. */
export async function firstByte(
  body: ReadableStream<Uint8Array>,
): Promise<ReadableStream<Uint8Array>> {
  const reader = body.getReader();
  let first: ReadableStreamReadResult<Uint8Array> | undefined = await reader.read();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = first ?? await reader.read();
      first = undefined;
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

/** The codings that are undone, by their names in Content-Encoding (RFC 9110 §8.4.1). */
const DECODERS: Readonly<Record<string, CompressionFormat>> = {
  "gzip": "gzip",
  "x-gzip": "gzip",
  "deflate": "deflate",
};

/**
 * `response` as it would be had upstream not encoded it: `identity` is what it was asked for, and some
 * answer otherwise all the same. Not for blobs: theirs are the bytes of a digest, whatever the header says.
 * Throws an `OciError` (502) for a coding that is not known here.
 */
export function decoded(response: Response, what: string): Response {
  const coding = codingOf(response.headers);
  if (coding === undefined) return response;
  const format = DECODERS[coding];
  if (!format) {
    response.body?.cancel().catch(() => {}); // of no use
    throw new OciError("UNAVAILABLE", `Upstream's ${what} has an unknown encoding`, {
      status: 502,
      detail: { encoding: coding },
    });
  }
  const headers = new Headers(response.headers);
  for (const name of ["content-encoding", "content-length", "content-range"]) headers.delete(name);
  const { status, body } = response;
  const plain = body as ReadableStream<Uint8Array<ArrayBuffer>> | null;
  return new Response(plain?.pipeThrough(new DecompressionStream(format)), { status, headers });
}

/** How upstream has encoded its body, in lower case; undefined where it has not. */
export function codingOf(headers: Headers): string | undefined {
  const coding = headers.get("content-encoding")?.trim().toLowerCase();
  return coding === "" || coding === "identity" ? undefined : coding;
}

/** What is read without waiting for memory, bytes. */
const SMALL = 64 * 1024;
/** What a large body leaves to be collected, by its size: pieces, itself, its text and what that is parsed into. */
const GARBAGE = 4;

/** Options for {@linkcode readBounded}. */
export interface BoundedOptions {
  /** The most bytes that are read. */
  readonly limit: number;
  /** The most milliseconds the whole body may take. */
  readonly deadline: number;
  /** The most milliseconds it may stand still. @default {deadline} */
  readonly idle?: number;
  /** What it is, for messages: `manifest`. */
  readonly what: string;
}

/**
 * The whole body of `response`, decoded. Throws an `OciError`: 502 when it is larger than `limit`, 504 when
 * it takes longer than `deadline` or stands still for `idle`, 502 when the connection breaks or the length is
 * not what was announced, 503 when too much is under way for there to be memory for it.
 */
export async function readBounded(
  encoded: Response,
  options: BoundedOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const response = decoded(encoded, options.what);
  const bytes = Math.min(announcedLength(response.headers) ?? Infinity, options.limit);
  if (bytes <= SMALL) return await readAll(response, options);
  let release: Release;
  try {
    release = await reserveMemory(bytes);
  } catch (error) {
    response.body?.cancel().catch(() => {}); // of no use
    throw error;
  }
  try {
    return await readAll(response, options);
  } finally {
    release();
    trackAllocation(GARBAGE * bytes);
  }
}

async function readAll(
  response: Response,
  options: BoundedOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const { limit, deadline, idle = deadline, what } = options;
  const tooLarge = () =>
    new OciError("UNAVAILABLE", `Upstream's ${what} is larger than ${limit} bytes`, {
      status: 502,
    });
  const announced = announcedLength(response.headers);
  if (announced !== undefined && announced > limit) {
    await response.body?.cancel().catch(() => {});
    throw tooLarge();
  }
  const reader = response.body?.getReader();
  // Where its length is known it is put together as it comes, and is never here twice.
  const whole = announced === undefined ? undefined : new Uint8Array(announced);
  const chunks: Uint8Array[] = [];
  let length = 0;
  const count = new ChunkCount();
  let isLate = false;
  const stop = startTimeout(deadline, () => {
    isLate = true;
    reader?.cancel().catch(() => {}); // ends the read under way, too
  });
  try {
    while (reader) {
      const { done, value } = await readWithin(reader, idle);
      if (isLate) throw new IdleError(`not complete within ${deadline / 1000} s`);
      if (done) break;
      length += value.byteLength;
      if (length > limit) throw tooLarge();
      if (!whole) chunks.push(value);
      else if (length <= whole.byteLength) whole.set(value, length - value.byteLength);
      if (count.note(value)) await nextTurn();
    }
  } catch (error) {
    reader?.cancel().catch(() => {}); // the connection is of no further use; its end is not waited for
    if (error instanceof OciError) throw error;
    throw new OciError("UNAVAILABLE", `Upstream's ${what} broke off`, {
      status: error instanceof IdleError ? 504 : 502,
      detail: { cause: (error as Error).message },
      cause: error,
    });
  } finally {
    stop();
  }
  if (announced !== undefined && length !== announced) {
    throw new OciError("UNAVAILABLE", `Upstream's ${what} broke off`, {
      status: 502,
      detail: { cause: `${length} of ${announced} bytes` },
    });
  }
  return whole ?? concat(chunks, length);
}

/**
 * The beginning of `body`: all of it, or more than `limit` bytes and then `rest`, which is all of it as a stream that
 * errors when it stands still for `idle` ms. Throws an `OciError`, 502 or 504, when it breaks before that.
 */
export async function readStart(
  body: ReadableStream<Uint8Array>,
  { limit, idle, what }: Pick<BoundedOptions, "limit" | "what"> & { readonly idle: number },
): Promise<{ start: Uint8Array<ArrayBuffer>; rest?: ReadableStream<Uint8Array> }> {
  const limited = withIdleLimit(body, idle);
  const reader = limited.getReader();
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    while (length <= limit) {
      const { done, value } = await reader.read();
      if (done) return { start: concat(chunks, length) };
      chunks.push(value);
      length += value.byteLength;
    }
  } catch (error) {
    throw new OciError("UNAVAILABLE", `Upstream's ${what} broke off`, {
      status: error instanceof IdleError ? 504 : 502,
      detail: { cause: (error as Error).message },
      cause: error,
    });
  }
  const start = concat(chunks, length);
  let isFirst = true;
  const rest = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = isFirst ? { done: false, value: start } : await reader.read();
      isFirst = false;
      if (done) controller.close();
      else controller.enqueue(value!);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  return { start, rest };
}

/** The Content-Length that tells how many bytes of body come; absent or unusable: undefined. */
export function announcedLength(headers: Headers): number | undefined {
  if (codingOf(headers) !== undefined) return undefined;
  const text = headers.get("content-length") ?? "";
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** `chunks` as one array; `length` is their sum. */
export function concat(chunks: readonly Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(length);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return whole;
}
