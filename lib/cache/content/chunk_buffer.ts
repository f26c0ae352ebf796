/**
 * The memory of one fill: what came and is not written yet, and what was written last. Upstream is read into
 * it, the disk and clients that keep up are given it as it is, and it is used over and over.
 *
 * @module
 */

import type { Memory } from "../../upstream/download/chunks.ts";

/** A piece that clients may be reading from. */
interface Written {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where in the content it begins. */
  readonly start: number;
  holders: number;
  /** Whether somebody may still be sending from it without holding it. */
  isLost: boolean;
}

/** Some of what was written last, in memory that is not used again before it is let go. */
export interface BufferRef {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Called once; `isFree`: nobody sends from it any more, it may be used again. Otherwise it never is. */
  letGo(isFree: boolean): void;
}

/** What is written no more and lent still, by the slow: a number of pieces. */
const MOST_OUT = 4;
/** How many that nobody uses are kept. */
const MOST_FREE = 2;

/** What came of one content, in order. */
export class ChunkBuffer implements Memory {
  readonly #size: number;
  readonly #free: ArrayBuffer[] = [];
  /** What the next chunk is received into, or was the last. */
  #spare: ArrayBuffer | undefined;
  readonly #waiting: Uint8Array<ArrayBuffer>[] = [];
  /** How many of them wait. */
  #bytes = 0;
  #last: Written | undefined;
  /** Pieces before the last that are lent still. */
  #out = 0;

  /** `size`: of each piece at most, bytes. */
  constructor(size: number) {
    this.#size = size;
  }

  take(): ArrayBuffer {
    const memory = this.#spare ?? this.#new();
    this.#spare = undefined;
    return memory;
  }

  giveBack(memory: ArrayBuffer): void {
    this.#spare = memory;
  }

  /** Whether as much waits for being written as should. */
  get isFull(): boolean {
    return this.#bytes >= this.#size;
  }

  /**
   * Adds `chunk`: to what waits already where there is room, or else without copying it, if it is in memory
   * that was taken here.
   */
  push(chunk: Uint8Array): void {
    this.#bytes += chunk.byteLength;
    const tail = this.#waiting.at(-1);
    const fits = tail !== undefined && tail.byteLength + chunk.byteLength <= this.#size;
    if (chunk.buffer === this.#spare && !fits) {
      this.#waiting.push(chunk as Uint8Array<ArrayBuffer>);
      this.#spare = undefined;
      return;
    }
    for (let done = 0; done < chunk.byteLength;) done += this.#copy(chunk.subarray(done));
  }

  /** Copies as much of `chunk` as one piece takes. */
  #copy(chunk: Uint8Array): number {
    let tail = this.#waiting.at(-1);
    if (!tail || tail.byteLength === this.#size) {
      tail = new Uint8Array(this.#new(), 0, 0);
      this.#waiting.push(tail);
    }
    const part = chunk.subarray(0, this.#size - tail.byteLength);
    const longer = new Uint8Array(tail.buffer, 0, tail.byteLength + part.byteLength);
    longer.set(part, tail.byteLength);
    this.#waiting[this.#waiting.length - 1] = longer;
    return part.byteLength;
  }

  /** The next to be written; undefined when nothing waits. */
  next(): Uint8Array<ArrayBuffer> | undefined {
    const piece = this.#waiting.shift();
    this.#bytes -= piece?.byteLength ?? 0;
    return piece;
  }

  /** `bytes`, which {@linkcode next} gave, are written at `start`: they can be lent until the next are. */
  written(bytes: Uint8Array<ArrayBuffer>, start: number): void {
    const last = this.#last;
    if (last && last.holders > 0) this.#out++;
    else if (last) this.#recycle(last);
    this.#last = { bytes, start, holders: 0, isLost: false };
  }

  /** At most `most` bytes from `position` on, where they were written last. */
  lend(position: number, most: number): BufferRef | undefined {
    const piece = this.#last;
    const from = piece ? position - piece.start : -1;
    if (!piece || from < 0 || from >= piece.bytes.byteLength) return undefined;
    // Whoever is slow reads from the disk, or memory would grow with how many are.
    if (piece.holders === 0 && this.#out >= MOST_OUT) return undefined;
    piece.holders++;
    return {
      bytes: piece.bytes.subarray(from, from + most),
      letGo: (isFree) => {
        piece.isLost ||= !isFree;
        if (--piece.holders > 0 || piece === this.#last) return;
        this.#out--;
        this.#recycle(piece);
      },
    };
  }

  #recycle({ bytes: { buffer }, isLost }: Written): void {
    if (!isLost && this.#free.length < MOST_FREE) this.#free.push(buffer);
  }

  #new(): ArrayBuffer {
    return this.#free.pop() ?? new ArrayBuffer(this.#size);
  }
}
