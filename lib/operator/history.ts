/**
 * What happened, in steps: the last hour, day and month, and all of it together. It is kept beside the cache,
 * so that a restart does not make the page forget what the proxy was good for.
 *
 * @module
 */
import { join } from "@std/path";
import * as v from "valibot";
import { adminLog } from "../telemetry/log.ts";
import type { Stats } from "../telemetry/stats.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { PRIVATE_FILE } from "../util/private_files.ts";

const Count = v.pipe(v.number(), v.finite(), v.minValue(0));
const SUMS = {
  requests: Count,
  hit: Count,
  miss: Count,
  stale: Count,
  bytesFromCache: Count,
  bytesFromUpstream: Count,
};
const StoredSample = v.object({ at: Count, ...SUMS });
const Stored = v.object({
  version: v.literal(1),
  since: Count,
  /** Which process wrote it, by when its counters began, and how far they were. */
  startedAt: Count,
  counted: v.object(SUMS),
  total: v.object(SUMS),
  hour: v.array(StoredSample),
  day: v.array(StoredSample),
  month: v.array(StoredSample),
});

/** Sums of what happened. Sizes in bytes; `miss` counts what passed through uncached too. */
export type Sums = Readonly<v.InferOutput<typeof Stored["entries"]["total"]>>;

/** All that an installation did, over restarts. */
export interface Total extends Sums {
  /** ms since the epoch. */
  readonly since: number;
}

/** What happened within one step. */
export interface Sample extends Sums {
  /** When the step began, ms since the epoch: a multiple of its length. */
  readonly at: number;
}

const MINUTE = 60_000;

/** The spans there are samples of: how long a step is, ms, and how many there are. */
export const RANGES = {
  hour: { stepMs: MINUTE, steps: 60 },
  day: { stepMs: 15 * MINUTE, steps: 96 },
  month: { stepMs: 12 * 60 * MINUTE, steps: 60 },
} as const;

/** A span there are samples of. */
export type Range = keyof typeof RANGES;

const RANGE_NAMES = Object.keys(RANGES) as Range[];

/** Whether `text` names a span. */
export function isRange(text: string): text is Range {
  return Object.hasOwn(RANGES, text);
}

/** Written every so many ticks: what a killed process forgets. */
const TICKS_PER_SAVE = 30;
const FILE = "history.json";

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

const NOTHING: Sums = {
  requests: 0,
  hit: 0,
  miss: 0,
  stale: 0,
  bytesFromCache: 0,
  bytesFromUpstream: 0,
};
const KEYS = Object.keys(NOTHING) as (keyof Sums)[];

function combine(one: Sums, other: Sums, sign: 1 | -1): Sums {
  return Object.fromEntries(
    KEYS.map((key) => [key, one[key] + sign * other[key]]),
  ) as unknown as Sums;
}

/** Options for {@linkcode History}. */
export interface HistoryOptions {
  /** The folder of the cache; without one nothing outlives the process. */
  readonly dir?: string;
  /** How often it looks, ms. @default {10_000} */
  readonly tick?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** What one proxy did. */
export class History {
  readonly #stats: Stats;
  readonly #path?: string;
  readonly #now: () => number;
  /** By range, what happened by the time at which a step began. */
  readonly #series: Readonly<Record<Range, Map<number, Sums>>> = {
    hour: new Map(),
    day: new Map(),
    month: new Map(),
  };
  readonly #timer: ReturnType<typeof setInterval>;
  #since: number;
  #total = NOTHING;
  #last = NOTHING;
  #isSaved = true;
  #ticks = 0;

  constructor(stats: Stats, options: HistoryOptions = {}) {
    this.#stats = stats;
    this.#now = options.now ?? Date.now;
    this.#path = options.dir === undefined ? undefined : join(options.dir, FILE);
    this.#since = stats.startedAt;
    this.#load();
    this.#timer = setInterval(() => {
      this.#take();
      if (++this.#ticks % TICKS_PER_SAVE === 0) void this.save();
    }, options.tick ?? 10_000);
    Deno.unrefTimer(this.#timer);
  }

  /** Takes over what an earlier process has left. */
  #load(): void {
    if (this.#path === undefined) return;
    try {
      const stored = v.parse(Stored, JSON.parse(Deno.readTextFileSync(this.#path)));
      this.#since = Math.min(this.#since, stored.since);
      this.#total = stored.total;
      // Of the same process only what came since is new.
      if (stored.startedAt === this.#stats.startedAt) this.#last = stored.counted;
      for (const range of RANGE_NAMES) {
        for (const { at, ...sums } of stored[range]) this.#series[range].set(at, sums);
      }
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      adminLog.warn("Cannot read {path}, beginning anew: {cause}", {
        path: this.#path,
        cause: causeOf(error),
      });
    }
  }

  /** Adds what happened since the last time to the steps that it belongs to. */
  #take(): void {
    const sums = sumsOf(this.#stats);
    const news = combine(sums, this.#last, -1);
    this.#last = sums;
    if (KEYS.every((key) => news[key] === 0)) return;
    this.#isSaved = false;
    this.#total = combine(this.#total, news, 1);
    for (const range of RANGE_NAMES) {
      const { stepMs, steps } = RANGES[range];
      const series = this.#series[range];
      const at = Math.floor(this.#now() / stepMs) * stepMs;
      series.set(at, combine(series.get(at) ?? NOTHING, news, 1));
      // Twice as many as are told: a clock that was wrong for a while must not push out what is right.
      const old = [...series.keys()].sort((a, b) => b - a).slice(2 * steps);
      for (const at of old) series.delete(at);
    }
  }

  get total(): Total {
    this.#take();
    return { since: this.#since, ...this.#total };
  }

  /** The steps in which something happened, the oldest first; the last may not have ended. */
  samples(range: Range): Sample[] {
    this.#take();
    const { stepMs, steps } = RANGES[range];
    const last = Math.floor(this.#now() / stepMs) * stepMs;
    return [...this.#series[range]].map(([at, sums]) => ({ at, ...sums }))
      .filter(({ at }) => at > last - steps * stepMs && at <= last)
      .sort((a, b) => a.at - b.at);
  }

  /** Writes what is new to the file. Never rejects: charts are no reason to trouble anybody. */
  async save(): Promise<void> {
    this.#take();
    if (this.#path === undefined || this.#isSaved) return;
    const series = RANGE_NAMES.map((range) =>
      [range, [...this.#series[range]].map(([at, sums]) => ({ at, ...sums }))] as const
    );
    const stored = {
      version: 1,
      since: this.#since,
      startedAt: this.#stats.startedAt,
      counted: this.#last,
      total: this.#total,
      ...Object.fromEntries(series),
    };
    this.#isSaved = true;
    try {
      const text = JSON.stringify(stored);
      await Deno.writeTextFile(`${this.#path}.part`, text, { mode: PRIVATE_FILE });
      await Deno.rename(`${this.#path}.part`, this.#path);
    } catch (error) {
      this.#isSaved = false;
      adminLog.debug("Cannot write {path}: {cause}", {
        path: this.#path,
        cause: causeOf(error),
      });
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.save();
  }
}
