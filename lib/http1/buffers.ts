/**
 * Memory to send bodies from, reused: large pieces while few clients are served, small ones when there are
 * many, so that it stays bounded however many there are and however slow.
 *
 * @module
 */

/** From how many buffers in use on which size, bytes, is given out. Larger ones are not faster. */
const SIZES: readonly (readonly [inUse: number, size: number])[] = [
  [16, 2 ** 16],
  [4, 2 ** 19],
  [0, 2 ** 20],
];
/** Free ones of each size that are kept, bytes. */
const KEPT = 6 * 2 ** 20;

/** Buffers of a server's connections. */
export class Buffers {
  readonly #free = new Map<number, Uint8Array<ArrayBuffer>[]>();
  #inUse = 0;
  #isUsed = false;

  /** A buffer; what is in it is left over from somebody else. */
  take(): Uint8Array<ArrayBuffer> {
    const [, size] = SIZES.find(([inUse]) => this.#inUse >= inUse)!;
    this.#inUse++;
    this.#isUsed = true;
    return this.#free.get(size)?.pop() ?? new Uint8Array(size);
  }

  /** Gives it back. Nobody may be reading into it or writing from it any more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    this.#inUse--;
    const size = buffer.byteLength;
    const free = this.#free.get(size);
    if (!free) this.#free.set(size, [buffer]);
    else if (free.length * size < KEPT) free.push(buffer);
  }

  /** Lets go of what nobody has needed since the last time this was called. */
  trim(): void {
    if (this.#inUse === 0 && !this.#isUsed) this.#free.clear();
    this.#isUsed = false;
  }
}
