/**
 * A body that whoever sends it reads piece by piece. A listener of our own reads into memory that it uses
 * again; `Deno.serve` wants a stream.
 *
 * @module
 */
import { trackAllocation } from "../util/gc.ts";

/** Bytes of known or unknown number, read once. */
export interface ByteSource {
  /**
   * The next bytes, at most as many as `buffer` has room for: in it, or in memory that others read too and that
   * is good until the next read. Undefined at the end. Throws where they cannot be had: the client's
   * connection then breaks.
   */
  read(buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /**
   * Ends it, once: `sent` bytes of it were sent. A read that is waiting then settles soon, however; there
   * is none after it.
   */
  end(sent: number): void;
}

/** What one read gives of what is in memory. */
const PIECE = 64 * 1024;

/** The bytes of `bytes`; `onEnd` is called once, with how many were sent and whether those are all. */
export function memorySource(
  bytes: Uint8Array<ArrayBuffer>,
  onEnd: (sent: number, complete: boolean) => void,
): ByteSource {
  let position = 0;
  return {
    read() {
      const piece = bytes.subarray(position, position + PIECE);
      position += piece.byteLength;
      return Promise.resolve(piece.byteLength > 0 ? piece : undefined);
    },
    end: (sent) => onEnd(sent, sent === bytes.byteLength),
  };
}

const SMALLEST = 64 * 1024;
const LARGEST = 1024 * 1024;
/** A read is at most this part of what the client has taken already: 64 KiB up to the first 16 MiB. */
const SHARE = 256;
/** What one read of every stream takes together. */
const BUDGET = 8 * 2 ** 20;

let streams = 0;

/**
 * The most to read next for a stream of which `sent` bytes were taken. What `Deno.serve` has taken and the
 * client has not stays in memory, in the server's queue: some 400 KiB or two reads, whichever is more. So
 * reads are small until a client has taken more than the kernel's buffers could have.
 */
function nextLimit(sent: number): number {
  const most = Math.min(LARGEST, BUDGET / streams, sent / SHARE);
  return Math.max(SMALLEST, Math.floor(most / SMALLEST) * SMALLEST);
}

/** `source` as a stream, for who wants one; `length` is what is expected of it, where that is known. */
export function streamOf(
  source: ByteSource,
  length = Infinity,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let sent = 0;
  let isOpen = true;
  let isRead = false;
  const end = () => {
    if (!isOpen) return;
    isOpen = false;
    if (isRead) streams--;
    source.end(sent);
  };
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      // Not before: a listener of our own reads the source and leaves the stream alone.
      if (!isRead) streams++;
      isRead = true;
      try {
        const limit = Math.min(length - sent, nextLimit(sent));
        let chunk: Uint8Array<ArrayBuffer> | undefined;
        if (limit > 0) {
          trackAllocation(limit);
          chunk = await readOwn(source, new Uint8Array(limit));
        }
        if (!isOpen) return;
        if (!chunk) {
          end();
          return controller.close();
        }
        sent += chunk.byteLength;
        controller.enqueue(chunk);
      } catch (error) {
        if (!isOpen) return;
        end();
        controller.error(error);
      }
    },
    cancel: end,
  }, { highWaterMark: 0 });
}

/** The next bytes in memory that nobody else uses: who takes them keeps them for as long as it likes. */
async function readOwn(
  source: ByteSource,
  buffer: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const bytes = await source.read(buffer);
  if (!bytes || bytes.buffer === buffer.buffer) return bytes;
  const own = bytes.byteLength <= buffer.byteLength
    ? buffer.subarray(0, bytes.byteLength)
    : new Uint8Array(bytes.byteLength);
  own.set(bytes);
  return own;
}
