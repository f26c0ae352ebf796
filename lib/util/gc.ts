/**
 * Buffers on their way to clients: each is garbage as soon as it is sent, and the collector, to which it
 * is an object of a few bytes, lets 64 MiB of them gather before it looks. Collecting the young ones after
 * every 16 MiB costs a fraction of a millisecond each time, less than what it saves in page faults, and
 * saves some 50 MiB. It needs `--v8-flags=--expose-gc`, and without goes on as the collector likes.
 *
 * After a burst the collector sees no reason to look at the old ones: an idle process keeps what it does not need
 * for hours. So that is collected too, once it is quiet.
 *
 * @module
 */

const EVERY = 16 * 2 ** 20;

const { gc: collect } = globalThis as { gc?: (options: { type: "minor" | "major" }) => void };

let since = 0;

/** Tells that `bytes` were allocated that are soon garbage. */
export function trackAllocation(bytes: number): void {
  since += bytes;
  if (since < EVERY) return;
  since = 0;
  collect?.({ type: "minor" });
}

/** How much more than at its smallest a process may have without being looked at. */
const GROWN = 1.08;
/** How much its size may change between two looks for the process to count as quiet. */
const STILL = 0.02;
/** Collections in a row after which it is believed that the rest is needed. */
const MOST = 4;
/** Beyond this it is not waited for quiet, bytes. */
const MUCH = 180 * 2 ** 20;
/** Looks between two collections that are not waited for. */
const BETWEEN = 3;

/** Options for {@linkcode BurstCollector}. */
export interface BurstCollectorOptions {
  /** What the process takes now, bytes. @default {its resident size} */
  readonly size?: () => number;
  /** Collects all. @default {V8's, where it is exposed} */
  readonly collect?: () => void;
}

/** Collects what a burst of work has left, once it is over. */
export class BurstCollector {
  readonly #size: () => number;
  readonly #collect: (() => void) | undefined;
  #smallest = Infinity;
  #last = 0;
  /** Collections since the process was last larger than after them. */
  #count = 0;
  /** What it had after the last of them. */
  #left = 0;
  #looks = 0;

  constructor({ size, collect: all }: BurstCollectorOptions = {}) {
    this.#size = size ?? (() => Deno.memoryUsage().rss);
    this.#collect = all ?? (collect && (() => collect({ type: "major" })));
  }

  /** To be called every few seconds. */
  look(): void {
    if (!this.#collect) return;
    const size = this.#size();
    const isStill = Math.abs(size - this.#last) <= this.#last * STILL;
    this.#last = size;
    this.#looks++;
    this.#smallest = Math.min(this.#smallest, size);
    if (size > this.#left * GROWN) this.#count = 0;
    if (size <= this.#smallest * GROWN || this.#count >= MOST) return;
    if (!isStill && (size < MUCH || this.#looks < BETWEEN)) return;
    this.#collect();
    this.#count++;
    this.#looks = 0;
    this.#left = this.#last = this.#size();
  }
}
