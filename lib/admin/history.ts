/**
 * What happened lately, in steps: an hour of it is kept in memory, so that the page has charts when it is
 * opened.
 *
 * @module
 */
import type { Stats } from "../stats.ts";

/** What happened within one step. */
export interface Sample {
  /** When the step ended, ms since the epoch. */
  readonly at: number;
  readonly requests: number;
  readonly hit: number;
  readonly miss: number;
  readonly stale: number;
  readonly bytesFromCache: number;
  readonly bytesFromUpstream: number;
}

/** Sums since the start. */
type Sums = Omit<Sample, "at">;

const STEP = 10_000;
const KEPT = 360;

/** How many requests had which cache result: the last word of their labels. */
export function countByCache(stats: Stats): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [labels, n] of stats.requests.entries()) {
    const cache = labels.slice(labels.lastIndexOf(" ") + 1);
    counts.set(cache, (counts.get(cache) ?? 0) + n);
  }
  return counts;
}

function sumsOf(stats: Stats): Sums {
  const counts = countByCache(stats);
  const count = (cache: string) => counts.get(cache) ?? 0;
  return {
    requests: stats.requests.total,
    hit: count("HIT"),
    miss: count("MISS") + count("BYPASS"),
    stale: count("STALE"),
    bytesFromCache: stats.bytesFromCache,
    bytesFromUpstream: stats.bytesFromUpstream,
  };
}

/** The last hour. */
export class History {
  readonly stepMs = STEP;
  readonly #stats: Stats;
  readonly #samples: Sample[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  #last: Sums;

  constructor(stats: Stats) {
    this.#stats = stats;
    this.#last = sumsOf(stats);
    this.#timer = setInterval(() => this.#sample(), STEP);
    Deno.unrefTimer(this.#timer);
  }

  #sample(): void {
    this.#samples.push(this.#since(this.#last));
    this.#last = sumsOf(this.#stats);
    if (this.#samples.length > KEPT) this.#samples.shift();
  }

  #since(last: Sums): Sample {
    const now = sumsOf(this.#stats);
    return {
      at: Date.now(),
      requests: now.requests - last.requests,
      hit: now.hit - last.hit,
      miss: now.miss - last.miss,
      stale: now.stale - last.stale,
      bytesFromCache: now.bytesFromCache - last.bytesFromCache,
      bytesFromUpstream: now.bytesFromUpstream - last.bytesFromUpstream,
    };
  }

  /** Oldest first; the last one is of the step that has not ended. */
  get samples(): readonly Sample[] {
    return [...this.#samples, this.#since(this.#last)];
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
