/**
 * Records traffic in time steps: the last hour, day and month, and totals. The record is stored beside the
 * cache, so that it survives restarts.
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
  /** The process that wrote the file, identified by its start time, and its counters at that time. */
  startedAt: Count,
  counted: v.object(SUMS),
  total: v.object(SUMS),
  hour: v.array(StoredSample),
  day: v.array(StoredSample),
  month: v.array(StoredSample),
});

/** Sums of traffic. Sizes are in bytes. `miss` includes uncached requests. */
export type Sums = Readonly<v.InferOutput<typeof Stored["entries"]["total"]>>;

/** The totals of an installation across restarts. */
export interface Total extends Sums {
  /** Start of the record, in ms since the epoch. */
  readonly since: number;
}

/** The traffic of one step. */
export interface Sample extends Sums {
  /** The start of the step, in ms since the epoch: a multiple of its length. */
  readonly at: number;
}

const MINUTE = 60_000;

/** The time ranges: the length of a step in ms, and the number of steps. */
export const RANGES = {
  hour: { stepMs: MINUTE, steps: 60 },
  day: { stepMs: 15 * MINUTE, steps: 96 },
  month: { stepMs: 12 * 60 * MINUTE, steps: 60 },
} as const;

/** The name of a time range. */
export type Range = keyof typeof RANGES;

const RANGE_NAMES = Object.keys(RANGES) as Range[];

/** Returns whether `text` names a time range. */
export function isRange(text: string): text is Range {
  return Object.hasOwn(RANGES, text);
}

/** Number of ticks between two writes. A killed process loses this much. */
const TICKS_PER_SAVE = 30;
const FILE = "history.json";

/** Counts requests by cache result, which is the last word of their labels. */
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
  /** The folder of the cache. Without one the record lasts until the process ends. */
  readonly dir?: string;
  /** Sampling interval, in ms. @default {10_000} */
  readonly tick?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** Records the traffic of one proxy. */
export class History {
  readonly #stats: Stats;
  readonly #path?: string;
  readonly #now: () => number;
  /** By range, the traffic by the start of its step. */
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

  /** Loads the record of an earlier process. */
  #load(): void {
    if (this.#path === undefined) return;
    try {
      const stored = v.parse(Stored, JSON.parse(Deno.readTextFileSync(this.#path)));
      this.#since = Math.min(this.#since, stored.since);
      this.#total = stored.total;
      // If the same process wrote it, add only what has changed since.
      if (stored.startedAt === this.#stats.startedAt) this.#last = stored.counted;
      for (const range of RANGE_NAMES) {
        for (const { at, ...sums } of stored[range]) this.#series[range].set(at, sums);
      }
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      adminLog.warn("Cannot read {path}, starting a new history: {cause}", {
        path: this.#path,
        cause: causeOf(error),
      });
    }
  }

  /** Adds the traffic since the last call to the current steps. */
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
      // Keep twice as many steps as are returned, so that a temporarily wrong clock does not push out
      // correct ones.
      const old = [...series.keys()].sort((a, b) => b - a).slice(2 * steps);
      for (const at of old) series.delete(at);
    }
  }

  get total(): Total {
    this.#take();
    return { since: this.#since, ...this.#total };
  }

  /** Returns the steps with traffic, oldest first. The last one may be incomplete. */
  samples(range: Range): Sample[] {
    this.#take();
    const { stepMs, steps } = RANGES[range];
    const last = Math.floor(this.#now() / stepMs) * stepMs;
    return [...this.#series[range]].map(([at, sums]) => ({ at, ...sums }))
      .filter(({ at }) => at > last - steps * stepMs && at <= last)
      .sort((a, b) => a.at - b.at);
  }

  /** Writes changes to the file. Never rejects, because charts are not essential. */
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
