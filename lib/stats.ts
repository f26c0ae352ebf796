/**
 * Counters. They are plain numbers in memory, cheap enough for every request; the operator's listener
 * gives them a format. Label values are bounded: never a repository's name.
 *
 * @module
 */

/** A family of counters by label values. */
export class Counter {
  readonly #values = new Map<string, number>();

  /** Adds `n` to the counter of these label values. */
  add(labels: string, n = 1): void {
    this.#values.set(labels, (this.#values.get(labels) ?? 0) + n);
  }

  /** The value for these label values. */
  get(labels: string): number {
    return this.#values.get(labels) ?? 0;
  }

  /** Every counter, as label values and number. */
  entries(): IterableIterator<[string, number]> {
    return this.#values.entries();
  }

  /** The sum over all label values. */
  get total(): number {
    return [...this.#values.values()].reduce((sum, n) => sum + n, 0);
  }
}

/** What happened since the start. */
export class Stats {
  /** Requests by `registry kind statusClass cache`. */
  readonly requests = new Counter();
  /** Upstream's answers by `registry statusClass`. */
  readonly upstreamRequests = new Counter();
  /** Requests that got no answer, by `registry reason`. */
  readonly upstreamErrors = new Counter();
  readonly upstreamRetries = new Counter();
  /** Downloads that were taken up again after they broke, by registry. */
  readonly upstreamResumes = new Counter();
  /** Events of the cache by name: `joined`, `mismatch`, `disk_error`, `evicted_space` … */
  readonly cacheEvents = new Counter();
  /** Requests turned away, by reason: see `Rejection`. */
  readonly rejected = new Counter();
  bytesToClients = 0;
  bytesFromCache = 0;
  bytesFromUpstream = 0;

  upstreamAnswered(registry: string, status: number, _ms: number): void {
    this.upstreamRequests.add(`${registry} ${Math.floor(status / 100)}xx`);
  }

  upstreamFailed(registry: string, reason: "timeout" | "network"): void {
    this.upstreamErrors.add(`${registry} ${reason}`);
  }

  upstreamRetried(registry: string): void {
    this.upstreamRetries.add(registry);
  }
}
