/**
 * A body of somebody else's, read as a file is.
 *
 * @module
 */
import { readWithin } from "../upstream/body.ts";

/** Reads a body at rising positions into buffers of the reader's own size. */
export class BodyReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #idle: number;
  #left: Uint8Array = new Uint8Array();
  /** The byte of the object that comes next. */
  position: number;

  constructor(
    body: ReadableStream<Uint8Array>,
    { position, idle }: { position: number; idle: number },
  ) {
    this.#reader = body.getReader();
    this.position = position;
    this.#idle = idle;
  }

  /** Reads into `buffer`; returns how many bytes, 0 at the end. */
  async read(buffer: Uint8Array): Promise<number> {
    let n = 0;
    while (n < buffer.byteLength) {
      if (this.#left.byteLength === 0) {
        if (n > 0) break; // what is here goes out before more is waited for
        const { done, value } = await readWithin(this.#reader, this.#idle);
        if (done) break;
        this.#left = value;
      }
      const take = this.#left.subarray(0, buffer.byteLength - n);
      buffer.set(take, n);
      n += take.byteLength;
      this.#left = this.#left.subarray(take.byteLength);
    }
    this.position += n;
    return n;
  }

  close(): void {
    this.#reader.cancel().catch(() => {}); // nobody reads it any more
  }
}
