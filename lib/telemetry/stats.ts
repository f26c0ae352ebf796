/**
 * Counters. They are plain numbers in memory, cheap enough for every request; the operator's listener
 * gives them a format. Label values are bounded: never a repository's name.
 *
 * @module
 */
import { Histogram } from "./histogram.ts";
import { ByteLru } from "../util/lru.ts";

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

/** How a registry answered last. */
export interface RegistryState {
  /** Whether it answered, and not with a 5xx. */
  readonly isUp: boolean;
  /** Why it is not up: the status that it answered with, `timeout` or `network`. */
  readonly problem?: string;
  /** How long the answer took, ms; undefined where there was none. */
  readonly latency?: number;
  /** ms since the epoch. */
  readonly at: number;
}

/** Bounds of durations in seconds: a hit takes a millisecond, a large layer minutes. */
const SECONDS = [0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600];
/** Memory for images whose pulls are counted, the ones pulled last: bytes. */
const IMAGES_MEMORY = 2 * 2 ** 20;

/** What happened since the start. */
export class Stats {
  readonly startedAt: number = Date.now();
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
  /** Seconds until the answer began, by `registry kind cache`. */
  readonly firstByte = new Histogram(SECONDS);
  /** Seconds until it ended, by `registry kind cache`. */
  readonly duration = new Histogram(SECONDS);
  /** By the registry's name. */
  readonly registries = new Map<string, RegistryState>();
  /** Manifests served from the cache, by `registry repository reference`. Not for metrics: it has names. */
  readonly #imageHits = new ByteLru<{ count: number }>({ bytes: IMAGES_MEMORY });
  bytesToClients = 0;
  bytesFromCache = 0;
  bytesFromUpstream = 0;

  upstreamAnswered(registry: string, status: number, ms: number): void {
    const problem = status < 500 ? undefined : String(status);
    this.registries.set(registry, { isUp: !problem, problem, latency: ms, at: Date.now() });
    this.upstreamRequests.add(`${registry} ${Math.floor(status / 100)}xx`);
  }

  upstreamFailed(registry: string, reason: "timeout" | "network"): void {
    this.registries.set(registry, { isUp: false, problem: reason, at: Date.now() });
    this.upstreamErrors.add(`${registry} ${reason}`);
  }

  upstreamRetried(registry: string): void {
    this.upstreamRetries.add(registry);
  }

  /** Notes a manifest that was served from the cache; `image` is its `registry repository reference`. */
  imageHit(image: string): void {
    const hits = this.#imageHits.get(image);
    if (hits) hits.count++;
    else this.#imageHits.set(image, { count: 1 });
  }

  /** Returns how often an image's manifest was served from the cache, as far as is remembered. */
  imageHitsOf(image: string): number {
    return this.#imageHits.get(image)?.count ?? 0;
  }
}
