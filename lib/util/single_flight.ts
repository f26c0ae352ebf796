/**
 * Single flight: concurrent callers with the same key share one result or failure.
 *
 * @module
 */

/** Deduplicates concurrent work by key. */
export class SingleFlight<T> {
  readonly #running = new Map<string, Promise<T>>();

  /** Returns the result of the running work of `key`, or calls `start` if there is none. */
  run(key: string, start: () => Promise<T>): Promise<T> {
    const running = this.#running.get(key);
    if (running) return running;
    const work = start().finally(() => this.#running.delete(key));
    this.#running.set(key, work);
    return work;
  }

  /** Number of keys with running work. */
  get size(): number {
    return this.#running.size;
  }
}
