/**
 * What of an HTTP/2 connection's bytes is answers, and not what only keeps the connection itself alive.
 *
 * @module
 */

/** RFC 9113 §4.1: a length of 24 bits, a type, flags and a stream. */
const HEAD = 9;
const DATA = 0;
const HEADERS = 1;

/** Reads along with the frames of one direction, however they are cut. */
export class Frames {
  readonly #head = new Uint8Array(HEAD);
  /** Bytes of a frame's head that have been seen. */
  #seen = 0;
  /** Bytes that are left of the frame after its head. */
  #left = 0;
  #type = -1;

  /** Whether any of `bytes` belongs to an answer: its headers, or a body that is not empty. */
  hasAnswer(bytes: Uint8Array): boolean {
    let found = false;
    for (let at = 0; at < bytes.byteLength;) {
      if (this.#left > 0) {
        const n = Math.min(this.#left, bytes.byteLength - at);
        if (this.#type === DATA || this.#type === HEADERS) found = true;
        this.#left -= n;
        at += n;
        continue;
      }
      this.#head[this.#seen++] = bytes[at++]!;
      if (this.#seen < HEAD) continue;
      const [high, middle, low, type] = this.#head;
      this.#left = high! << 16 | middle! << 8 | low!;
      this.#type = type!;
      this.#seen = 0;
    }
    return found;
  }
}
