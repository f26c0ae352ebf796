/**
 * Small buffers for what connections receive, many in one piece of memory: allocated one by one among other things,
 * thousands of them leave holes that an allocator never gives back.
 *
 * @module
 */
import { Buffer } from "node:buffer";

/** What a connection receives into, bytes: most heads are shorter. */
export const SMALL_BUFFER = 2048;
/** Buffers in one piece of memory. */
const PER_SLAB = 128;

interface Slab {
  readonly free: Buffer[];
}

/** The small buffers of a server's connections. */
export class Slabs {
  /** Those with free buffers. */
  readonly #open = new Set<Slab>();
  readonly #slabs = new Map<ArrayBufferLike, Slab>();

  /** How much memory there is, in use or not: bytes. */
  get bytes(): number {
    return this.#slabs.size * PER_SLAB * SMALL_BUFFER;
  }

  /** Returns a buffer. What is in it is left over from somebody else. */
  take(): Buffer {
    let [slab] = this.#open;
    if (!slab) {
      const { buffer } = Buffer.allocUnsafeSlow(PER_SLAB * SMALL_BUFFER);
      const free = Array.from(
        { length: PER_SLAB },
        (_, i) => Buffer.from(buffer, i * SMALL_BUFFER, SMALL_BUFFER),
      );
      slab = { free };
      this.#slabs.set(buffer, slab);
      this.#open.add(slab);
    }
    const buffer = slab.free.pop()!;
    if (slab.free.length === 0) this.#open.delete(slab);
    return buffer;
  }

  /** Gives one back, once. Nobody may be reading into it any more. */
  give(buffer: Buffer): void {
    const slab = this.#slabs.get(buffer.buffer);
    if (!slab) throw new TypeError("Not a buffer from here");
    slab.free.push(buffer);
    this.#open.add(slab);
    // One is kept for the next to come.
    if (slab.free.length < PER_SLAB || this.#open.size === 1) return;
    this.#open.delete(slab);
    this.#slabs.delete(buffer.buffer);
  }
}
