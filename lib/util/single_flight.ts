/**
 * Single flight: callers that ask for the same thing at once share one answer, or one failure.
 *
 * @module
 */

/** Work under way by key. */
export class SingleFlight<T> {
  readonly #running = new Map<string, Promise<T>>();

  /** The result of the running work of `key`, or of `start` if there is none. */
  run(key: string, start: () => Promise<T>): Promise<T> {
    const running = this.#running.get(key);
    if (running) return running;
    const work = start().finally(() => this.#running.delete(key));
    this.#running.set(key, work);
    return work;
  }

  /** How many keys have work under way. */
  get size(): number {
    return this.#running.size;
  }
}
