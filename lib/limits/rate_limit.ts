/**
 * How often something may happen: so many times in a span, all at once or spread.
 *
 * @module
 */
import { ByteLru } from "../util/lru.ts";
import { formatDuration, parseDuration } from "../util/units.ts";

/** At most `count` times in any `period` ms. */
export interface Rate {
  readonly count: number;
  readonly period: number;
}

/** Returns the rate in `text`: `500/3h`. Throws a `RangeError` that says what is accepted. */
export function parseRate(text: string): Rate {
  const [, count = "", period = ""] = /^\s*(\d{1,9})\s*\/\s*(\S+)\s*$/.exec(text) ?? [];
  if (!(Number(count) > 0)) throw new RangeError(`Expected a rate such as 500/3h: ${text}`);
  const rate = {
    count: Number(count),
    period: parseDuration(/^\d/.test(period) ? period : `1${period}`),
  };
  if (rate.period <= 0) throw new RangeError(`Expected a rate such as 500/3h: ${text}`);
  return rate;
}

/**
 * Counts by key. The embedded one answers at once; one that instances share answers later, and must answer
 * 0 when its engine is away: a limit is no reason not to serve.
 */
export interface RateCounter {
  /** Takes one from `key`'s budget. Returns 0, or how many ms until there is one to take. */
  take(key: string, rate: Rate): number | Promise<number>;
  /** Gives back one that was taken: what it was taken for did not happen. */
  giveBack(key: string, rate: Rate): void | Promise<void>;
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
 * {@linkcode RateCounter} in this process. The generic cell rate algorithm: one number per key, the time
 * at which its budget is whole again. What was used comes back evenly over the period, so that nobody waits
 * for all of it.
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

  giveBack(key: string, { count, period }: Rate): void {
    const wholeAt = this.#wholeAt.get(key);
    if (wholeAt === undefined) return;
    const before = wholeAt - period / count;
    if (before > this.#now()) this.#wholeAt.set(key, before);
    else this.#wholeAt.delete(key);
  }

  #look(key: string, { count, period }: Rate): { wait: number; next: number } {
    const now = this.#now();
    const next = Math.max(this.#wholeAt.get(key) ?? 0, now) + period / count;
    // A hair of slack: `count` times `period / count` may come out above `period`.
    const over = next - now - period;
    return { wait: over > 1e-6 * period ? Math.max(1, Math.ceil(over)) : 0, next };
  }
}

/** Budgets of one client; absent: without limit. A hit costs a disk read, a miss costs upstream. */
export interface RateLimits {
  readonly hits?: Rate;
  readonly misses?: Rate;
}

/**
 * Returns the limits in `text`: `500/3h` for hits and for misses, each counted by itself, or one by name:
 * `misses=500/3h,hits=20000/1h`. Throws a `RangeError` that says what is accepted.
 */
export function parseRateLimits(text: string): RateLimits {
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  const named = new Map<string, Rate>();
  for (const part of parts) {
    const [, name, rate = ""] = /^(?:(hits|misses)\s*=)?\s*(.*)$/.exec(part) ?? [];
    if (name === undefined && parts.length > 1) {
      throw new RangeError(`Expected 500/3h, or misses=500/3h,hits=20000/1h: ${text}`);
    }
    for (const key of name === undefined ? ["hits", "misses"] : [name]) {
      if (named.has(key)) throw new RangeError(`Expected one rate for ${key}: ${text}`);
      named.set(key, parseRate(rate));
    }
  }
  return { hits: named.get("hits"), misses: named.get("misses") };
}

/** `limits` as {@linkcode parseRateLimits} reads them. */
export function formatRateLimits({ hits, misses }: RateLimits): string {
  const format = ({ count, period }: Rate) => `${count}/${formatDuration(period)}`;
  return [misses && `misses=${format(misses)}`, hits && `hits=${format(hits)}`]
    .filter(Boolean).join(",");
}
