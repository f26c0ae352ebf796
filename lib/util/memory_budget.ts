/**
 * A number of bytes that many share. Some can wait for theirs or do without, others have taken theirs already: for
 * these there is pressure on whoever holds memory without using it.
 *
 * @module
 */
import { startTimeout } from "./timeout.ts";

/** Releases a reservation. Further calls do nothing. */
export type Release = () => void;

/** Frees memory that is held without being used. Called while more is in use than there should be. */
export type Relief = () => void;

interface Waiter {
  readonly bytes: number;
  start(): void;
}

/** Options for {@linkcode MemoryBudget}. */
export interface MemoryBudgetOptions {
  /** Maximum number of bytes in use. */
  readonly limit: number;
  /** Maximum number of waiters. @default {1_000} */
  readonly maxWaiting?: number;
}

/** The budget. */
export class MemoryBudget {
  readonly limit: number;
  readonly #maxWaiting: number;
  readonly #reliefs = new Set<Relief>();
  /** In the order in which they came: a large one is not passed by for ever. */
  readonly #waiters: Waiter[] = [];
  #used = 0;
  #isRelieving = false;

  constructor({ limit, maxWaiting = 1_000 }: MemoryBudgetOptions) {
    this.limit = limit;
    this.#maxWaiting = maxWaiting;
  }

  /** Number of bytes in use. */
  get used(): number {
    return this.#used;
  }

  /** Adds bytes to those in use, even beyond the limit. */
  add(bytes: number): void {
    this.#used += bytes;
    if (this.#used > this.limit) this.#relieve();
  }

  /** Removes bytes from those in use. */
  remove(bytes: number): void {
    this.#used -= bytes;
    if (this.#waiters.length > 0) this.#startNext();
  }

  /** Adds bytes if they fit. Returns whether they did. */
  take(bytes: number): boolean {
    if (this.#hasRoom(bytes)) {
      this.#used += bytes;
      return true;
    }
    this.#relieve();
    if (!this.#hasRoom(bytes)) return false;
    this.#used += bytes;
    return true;
  }

  /** Waits up to `ms` for room. Returns undefined on timeout, or if too many are waiting. */
  async reserve(bytes: number, ms: number): Promise<Release | undefined> {
    if (this.take(bytes)) return this.#releaseOf(bytes);
    if (this.#waiters.length >= this.#maxWaiting) return undefined;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter: Waiter = { bytes, start: () => resolve(true) };
    this.#waiters.push(waiter);
    const stop = startTimeout(ms, () => {
      const at = this.#waiters.indexOf(waiter);
      if (at >= 0) this.#waiters.splice(at, 1);
      resolve(false);
      this.#startNext();
    });
    const hasRoom = await promise;
    stop();
    return hasRoom ? this.#releaseOf(bytes) : undefined;
  }

  /** Registers `relief` to be called under pressure. Returns a function that unregisters it. */
  onPressure(relief: Relief): () => void {
    this.#reliefs.add(relief);
    return () => this.#reliefs.delete(relief);
  }

  /** To be called once in a while: pressure that lasts makes others give way. */
  check(): void {
    if (this.#used > this.limit || this.#waiters.length > 0) this.#relieve();
  }

  /** Something larger than all of it is let in alone. */
  #hasRoom(bytes: number): boolean {
    return this.#waiters.length === 0 && this.#fits(bytes);
  }

  #fits(bytes: number): boolean {
    return this.#used + bytes <= this.limit || this.#used === 0;
  }

  #startNext(): void {
    for (let first; (first = this.#waiters[0]) && this.#fits(first.bytes);) {
      this.#waiters.shift();
      this.#used += first.bytes;
      first.start();
    }
  }

  #releaseOf(bytes: number): Release {
    let isHeld = true;
    return () => {
      if (isHeld) this.remove(bytes);
      isHeld = false;
    };
  }

  #relieve(): void {
    if (this.#isRelieving) return; // what is freed while relieving may come here again
    this.#isRelieving = true;
    try {
      for (const relief of this.#reliefs) relief();
    } finally {
      this.#isRelieving = false;
    }
  }
}
