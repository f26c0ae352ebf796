/**
 * Memory to send bodies from, reused: large pieces while few clients are served, small ones when there are
 * many, so that it stays bounded however many there are and however slow.
 *
 * @module
 */

/** What a body begins with while few are sent. */
const SMALL = 2 ** 16;
/** What it begins with while many are, bytes. */
const SMALLEST = 2 ** 12;
/** Larger ones are not faster. */
const LARGEST = 2 ** 20;
/** A buffer is at most this part of what its client has taken, so that many who come at once take little. */
const SHARE = 1 / 4;
/** What all in use take together, as long as the smallest will do: bytes. */
const BUDGET = 16 * 2 ** 20;
/** Beyond that a body begins with a buffer of the smallest size: bytes. */
const START_BUDGET = 12 * 2 ** 20;
/** Beyond that nobody who takes what is sent has to do with a smaller one than {@linkcode SMALL}: bytes. */
const READERS_BUDGET = 28 * 2 ** 20;
/** Free ones that are kept, of all sizes together: bytes. */
const KEPT = 8 * 2 ** 20;

/** Buffers of a server's connections. */
export class Buffers {
  readonly #free = new Map<number, Uint8Array<ArrayBuffer>[]>();
  /** Bytes of the free ones. */
  #kept = 0;
  #inUse = 0;
  /** Bytes of those. */
  #bytes = 0;
  #isUsed = false;

  /** Bytes of the buffers in use. */
  get bytes(): number {
    return this.#bytes;
  }

  /** A small buffer; what is in it is left over from somebody else. */
  take(): Uint8Array<ArrayBuffer> {
    return this.#take(this.#bytes < START_BUDGET ? SMALL : SMALLEST);
  }

  #take(size: number): Uint8Array<ArrayBuffer> {
    this.#inUse++;
    this.#bytes += size;
    this.#isUsed = true;
    const free = this.#free.get(size)?.pop();
    if (free) this.#kept -= size;
    return free ?? new Uint8Array(size);
  }

  /**
   * `buffer`, or another one in its place: a larger one for who has taken `sent` bytes already, a smaller one
   * where there are many more in use by now.
   */
  renew(buffer: Uint8Array<ArrayBuffer>, sent: number): Uint8Array<ArrayBuffer> {
    const most = this.#most();
    const wanted = Math.min(most, powerOf2(sent * SHARE));
    if (buffer.byteLength >= wanted && buffer.byteLength <= 2 * most) return buffer;
    this.give(buffer);
    return this.#take(Math.max(SMALLEST, wanted));
  }

  /** The size of each if all in use were the same: a power of two. */
  #most(): number {
    const share = powerOf2(BUDGET / Math.max(1, this.#inUse));
    const least = this.#bytes < READERS_BUDGET ? SMALL : SMALLEST;
    return Math.max(least, Math.min(LARGEST, share));
  }

  /** Gives it back. Nobody may be reading into it or writing from it any more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    this.#inUse--;
    const size = buffer.byteLength;
    this.#bytes -= size;
    if (this.#kept + size > KEPT) return;
    this.#kept += size;
    const free = this.#free.get(size);
    if (free) free.push(buffer);
    else this.#free.set(size, [buffer]);
  }

  /** Lets go of what nobody has needed since the last time this was called. */
  trim(): void {
    if (this.#inUse === 0 && !this.#isUsed) {
      this.#free.clear();
      this.#kept = 0;
    }
    this.#isUsed = false;
  }
}

/** The largest power of two that is not above `n`, 1 at least. */
function powerOf2(n: number): number {
  return 2 ** Math.max(0, Math.floor(Math.log2(n)));
}
