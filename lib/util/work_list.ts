/**
 * Work that makes more work, a bounded number of pieces of it at a time.
 *
 * @module
 */

/** A piece of work; it handles its own failures. */
export type Work = () => Promise<void>;

/** Pieces of work in the order they were added. */
export class WorkList {
  readonly #limit: number;
  readonly #waiting: Work[] = [];
  readonly #finished = Promise.withResolvers<void>();
  #running = 0;

  /** At most `limit` pieces run at once. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Adds a piece; it starts at once where there is room. */
  add(work: Work): void {
    this.#waiting.push(work);
    this.#next();
  }

  /** Forgets what has not started. */
  clear(): void {
    this.#waiting.length = 0;
  }

  /** Settles when nothing is left to do. Rejects with what a piece failed to handle. */
  async done(): Promise<void> {
    if (this.#running > 0 || this.#waiting.length > 0) await this.#finished.promise;
  }

  #next(): void {
    while (this.#running < this.#limit) {
      const work = this.#waiting.shift();
      if (!work) break;
      this.#running++;
      work().then(() => {
        this.#running--;
        this.#next();
        if (this.#running === 0) this.#finished.resolve();
      }, (error) => {
        this.#running--;
        this.clear();
        this.#finished.reject(error);
      });
    }
  }
}
