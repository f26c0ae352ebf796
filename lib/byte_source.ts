/**
 * A body that whoever sends it reads piece by piece, into memory of its own: nothing is allocated per
 * piece, and a slow client holds one buffer.
 *
 * @module
 */

/** Bytes of known or unknown number, read once. */
export interface ByteSource {
  /** Reads the next bytes into `buffer`; returns how many, 0 at the end. Throws where the body breaks off. */
  read(buffer: Uint8Array<ArrayBuffer>): Promise<number>;
  /**
   * Ends it, once: `sent` bytes of it were sent. A read that is waiting then settles soon, however; there
   * is none after it.
   */
  end(sent: number): void;
}

/** How much a stream reads at a time, bytes. */
const PIECE = 2 ** 20;

/** `source` as a stream, for who wants one; `length` is what is expected of it, where that is known. */
export function streamOf(
  source: ByteSource,
  length = Infinity,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  let sent = 0;
  let isEnded = false;
  const end = () => {
    if (!isEnded) source.end(sent);
    isEnded = true;
  };
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const buffer = new Uint8Array(Math.max(1, Math.min(PIECE, length - sent)));
        const n = sent < length ? await source.read(buffer) : 0;
        if (isEnded) return;
        if (n === 0) {
          end();
          return controller.close();
        }
        sent += n;
        controller.enqueue(n === buffer.byteLength ? buffer : buffer.subarray(0, n));
      } catch (error) {
        end();
        controller.error(error);
      }
    },
    cancel: end,
  }, { highWaterMark: 0 });
}
