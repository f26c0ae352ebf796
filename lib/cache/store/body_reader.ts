/**
 * A body of somebody else's, read as a file is.
 *
 * @module
 */
import { IdleError, readWithin } from "../../upstream/download/body.ts";

/** In the time that a body may stand still, at least so many bytes have to come: a trickle is a stall. */
const LEAST = 64 * 1024;

/** Reads a body at rising positions into buffers of the reader's own size. */
export class BodyReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #idle: number;
  #left: Uint8Array = new Uint8Array();
  /** How long bytes were waited for, ms, and how many came meanwhile. */
  #waited = 0;
  #came = 0;
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
        const value = await this.#next();
        if (!value) break;
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

  async #next(): Promise<Uint8Array | undefined> {
    const since = performance.now();
    const { value } = await readWithin(this.#reader, this.#idle);
    this.#waited += performance.now() - since;
    this.#came += value?.byteLength ?? 0;
    if (this.#waited >= this.#idle) {
      if (value && this.#came < LEAST) {
        throw new IdleError(`${this.#came} bytes in ${Math.round(this.#waited / 1000)} s`);
      }
      this.#waited = this.#came = 0;
    }
    return value;
  }

  close(): void {
    this.#reader.cancel().catch(() => {}); // nobody reads it any more
  }
}
