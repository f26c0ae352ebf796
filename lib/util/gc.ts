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
  /** Has the allocator return what is free. @default {glibc's, where Deno does that} */
  readonly trim?: () => void;
}

/** Whether the process can tell itself to trim; undefined before it has tried. */
let canTrim: boolean | undefined = Deno.build.os === "linux" ? undefined : false;

/**
 * Has glibc return free memory to the system, also what lies between pieces that are in use. Deno does that on SIGUSR2
 * where it was started with `DENO_USR2_MEMORY_TRIM`; elsewhere this does nothing.
 */
function trimAllocator(): void {
  if (canTrim === false) return;
  try {
    // Without a listener the signal would end a process that Deno does not trim.
    if (canTrim === undefined) Deno.addSignalListener("SIGUSR2", () => {});
    canTrim = true;
    Deno.kill(Deno.pid, "SIGUSR2");
  } catch {
    canTrim = false; // older versions want a permission for this
  }
}

/** Collects what a burst of work has left, once it is over. */
export class BurstCollector {
  readonly #size: () => number;
  readonly #collect: (() => void) | undefined;
  readonly #trim: () => void;
  #smallest = Infinity;
  #last = 0;
  /** Collections since the process was last larger than after them. */
  #count = 0;
  /** What it had at the look after the last of them. */
  #left = 0;
  #hasCollected = false;
  #looks = 0;

  constructor({ size, collect: all, trim }: BurstCollectorOptions = {}) {
    this.#size = size ?? (() => Deno.memoryUsage().rss);
    this.#collect = all ?? (collect && (() => collect({ type: "major" })));
    this.#trim = trim ?? trimAllocator;
  }

  /** To be called every few seconds. */
  look(): void {
    if (!this.#collect) return;
    const size = this.#size();
    const isStill = Math.abs(size - this.#last) <= this.#last * STILL;
    this.#last = size;
    this.#looks++;
    this.#smallest = Math.min(this.#smallest, size);
    if (this.#hasCollected) this.#left = size;
    this.#hasCollected = false;
    if (size > this.#left * GROWN) this.#count = 0;
    if (size <= this.#smallest * GROWN || this.#count >= MOST) return;
    if (!isStill && (size < MUCH || this.#looks < BETWEEN)) return;
    // What is collected is free for the allocator a moment later.
    if (this.#count % 2 === 0) this.#collect();
    else this.#trim();
    this.#count++;
    this.#looks = 0;
    this.#last = this.#size();
    this.#hasCollected = true;
  }
}
