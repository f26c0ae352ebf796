/**
 * A work list with bounded concurrency, to which running work can add more.
 *
 * @module
 */

/** A piece of work. It should handle its own failures. */
export type Work = () => Promise<void>;

/** Runs pieces of work in the order in which they were added. */
export class WorkList {
  readonly #limit: number;
  readonly #waiting: Work[] = [];
  readonly #finished = Promise.withResolvers<void>();
  #running = 0;

  /** Creates a list that runs at most `limit` pieces at once. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Adds a piece. It starts at once if there is room. */
  add(work: Work): void {
    this.#waiting.push(work);
    this.#next();
  }

  /** Drops pieces that have not started. */
  clear(): void {
    this.#waiting.length = 0;
  }

  /** Resolves when all work is done. Rejects with the first unhandled failure of a piece. */
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
