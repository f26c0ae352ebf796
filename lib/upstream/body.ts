/**
 * Upstream bodies under limits: nothing an upstream sends is read without a bound in size and time.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";

/** A body did not move for too long. */
export class IdleError extends Error {
  override readonly name = "IdleError";
}

/** The result of `work` on a body, or an {@linkcode IdleError} when there is none within `idle` ms. */
export async function within<T>(work: Promise<T>, idle: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new IdleError(`No data for ${idle / 1000} s`)), idle);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** The next chunk of `reader`, or an {@linkcode IdleError} when none comes within `idle` ms. */
export async function readWithin<T>(
  reader: ReadableStreamDefaultReader<T>,
  idle: number,
): Promise<ReadableStreamReadResult<T>> {
  return await within(reader.read(), idle);
}

/** Options for {@linkcode readBounded}. */
export interface BoundedOptions {
  /** The most bytes that are read. */
  readonly limit: number;
  /** The most milliseconds the whole body may take. */
  readonly deadline: number;
  /** What it is, for messages: `manifest`. */
  readonly what: string;
}

/**
 * The whole body of `response`. Throws an `OciError`: 502 when it is larger than `limit`, 504 when it
 * takes longer than `deadline`, 502 when the connection breaks or the length is not what was announced.
 */
export async function readBounded(
  response: Response,
  options: BoundedOptions,
): Promise<Uint8Array> {
  const { limit, deadline, what } = options;
  const tooLarge = () =>
    new OciError("UNAVAILABLE", `Upstream's ${what} is larger than ${limit} bytes`, {
      status: 502,
    });
  const announced = announcedLength(response.headers);
  if (announced !== undefined && announced > limit) {
    await response.body?.cancel().catch(() => {});
    throw tooLarge();
  }
  if (!response.body) return new Uint8Array();
  const reader = response.body.getReader();
  const until = performance.now() + deadline;
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    while (true) {
      const { done, value } = await readWithin(reader, Math.max(1, until - performance.now()));
      if (done) break;
      length += value.byteLength;
      if (length > limit) throw tooLarge();
      chunks.push(value);
    }
  } catch (error) {
    reader.cancel().catch(() => {}); // the connection is of no further use; its end is not waited for
    if (error instanceof OciError) throw error;
    throw new OciError("UNAVAILABLE", `Upstream's ${what} broke off`, {
      status: error instanceof IdleError ? 504 : 502,
      detail: { cause: (error as Error).message },
      cause: error,
    });
  }
  if (announced !== undefined && length !== announced) {
    throw new OciError("UNAVAILABLE", `Upstream's ${what} broke off`, {
      status: 502,
      detail: { cause: `${length} of ${announced} bytes` },
    });
  }
  return concat(chunks, length);
}

/** The Content-Length that tells how many bytes of body come; absent or unusable: undefined. */
export function announcedLength(headers: Headers): number | undefined {
  if (headers.has("content-encoding")) return undefined;
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
