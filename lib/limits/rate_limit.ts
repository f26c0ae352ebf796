/**
 * Rate limits by key.
 *
 * @module
 */
import type { Rate } from "../config/values.ts";
import { ByteLru } from "../util/lru.ts";

/**
 * Counts by key. The in-memory counter returns synchronously. A shared counter returns a promise, and must
 * return 0 if its backend is down: a failing limiter must not block requests.
 */
export interface RateCounter {
  /** Takes one from `key`'s budget. Returns 0, or the ms until one is available. */
  take(key: string, rate: Rate): number | Promise<number>;
  /** Returns one that was taken for work that did not happen. Returns whether that was possible. */
  giveBack(key: string, rate: Rate): boolean | Promise<boolean>;
}

/** Options for {@linkcode MemoryRateCounter}. */
export interface MemoryRateCounterOptions {
  /**
   * What the keys that are remembered may take, bytes; who is forgotten has his whole budget again.
   * @default {8 MiB, some 30,000 keys}
   */
  readonly bytes?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/**
 * An in-memory {@linkcode RateCounter}. It uses the generic cell rate algorithm: one number per key, the
 * time at which its budget is full again. Budgets refill evenly over the period.
 */
export class MemoryRateCounter implements RateCounter {
  readonly #wholeAt: ByteLru<number>;
  readonly #now: () => number;

  constructor(options: MemoryRateCounterOptions = {}) {
    this.#wholeAt = new ByteLru({ bytes: options.bytes ?? 8 * 2 ** 20 });
    this.#now = options.now ?? Date.now;
  }

  take(key: string, rate: Rate): number {
    const { wait, next } = this.#look(key, rate);
    if (wait === 0) this.#wholeAt.set(key, next);
    return wait;
  }

  giveBack(key: string, { count, period }: Rate): boolean {
    const now = this.#now();
    const wholeAt = this.#wholeAt.get(key) ?? now;
    const before = wholeAt - period / count;
    if (before > now) this.#wholeAt.set(key, before);
    else this.#wholeAt.delete(key);
    return wholeAt > now;
  }

  #look(key: string, { count, period }: Rate): { wait: number; next: number } {
    const now = this.#now();
    const next = Math.max(this.#wholeAt.get(key) ?? 0, now) + period / count;
    // A hair of slack: `count` times `period / count` may come out above `period`.
    const over = next - now - period;
    return { wait: over > 1e-6 * period ? Math.max(1, Math.ceil(over)) : 0, next };
  }
}
