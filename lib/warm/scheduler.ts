/**
 * `WARM_IMAGES`: warmed again and again, and kept from eviction.
 *
 * @module
 */
import type { Config } from "../config/config.ts";
import { cacheLog } from "../telemetry/log.ts";
import { formatSize } from "../util/units.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { warm, type Warmable, type WarmedImage } from "./warm.ts";

/** After a round in which something failed the next comes sooner, at first after this, ms. */
const RETRY_AFTER = 60_000;
/** What is kept leaves at least this share of the cache to everything else. */
const FREE_SHARE = 0.2;

/** Options for {@linkcode WarmScheduler}. */
export interface WarmSchedulerOptions {
  readonly settings: Config["warm"];
  /** The cap of the cache in bytes. */
  readonly maxSize: number;
  /** Exempts content from eviction, and no more what was exempt before. */
  readonly keep: (digests: ReadonlySet<string>) => void;
  /** @default {warm} */
  readonly warm?: typeof warm;
}

/** Keeps images warm until it is stopped. */
export class WarmScheduler {
  readonly #proxy: Warmable;
  readonly #options: WarmSchedulerOptions;
  readonly #stopping = new AbortController();
  /** By image, what is kept of it. */
  readonly #kept = new Map<string, WarmedImage>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failedRounds = 0;

  constructor(proxy: Warmable, options: WarmSchedulerOptions) {
    this.#proxy = proxy;
    this.#options = options;
  }

  /** Begins the first round. */
  start(): void {
    void this.#round();
  }

  /** Ends, without waiting for what upstream still owes. */
  stop(): void {
    this.#stopping.abort();
    clearTimeout(this.#timer);
  }

  /** Never rejects. */
  async #round(): Promise<void> {
    const { settings: { images, platforms, interval }, warm: warmThem = warm } = this.#options;
    const { signal } = this.#stopping;
    let isWhole = true;
    for (const image of images) {
      try {
        const [warmed] = await warmThem(this.#proxy, [image], { platforms, signal });
        isWhole = this.#note(image, warmed!) && isWhole;
      } catch (error) {
        if (signal.aborted) return;
        isWhole = false;
        cacheLog.error("Cannot warm {image}: {cause}", { image, cause: causeOf(error) });
      }
    }
    if (signal.aborted) return;
    this.#failedRounds = isWhole ? 0 : this.#failedRounds + 1;
    const delay = isWhole
      ? interval
      : Math.min(interval, RETRY_AFTER * 2 ** (this.#failedRounds - 1));
    this.#timer = setTimeout(() => this.start(), delay);
    Deno.unrefTimer(this.#timer);
  }

  /** Tells what came of one image and keeps it; returns whether it is whole. */
  #note(image: string, warmed: WarmedImage): boolean {
    const { ok, size, fetched, failures } = warmed;
    const digests = [...warmed.digests, ...warmed.lists];
    const before = this.#kept.get(image);
    // What an image lacks now it may have had before: better that than nothing.
    const all = ok ? digests : [...new Set([...before?.digests ?? [], ...digests])];
    this.#kept.set(image, { ...warmed, digests: all, size: Math.max(size, before?.size ?? 0) });
    this.#keep();
    if (ok) {
      cacheLog.info("Keeping {image} warm, {size}, {fetched} of it new", {
        image: warmed.image,
        size: formatSize(size),
        fetched: formatSize(fetched),
      });
    } else {
      const [{ role, reference, error }] = failures as [typeof failures[number]];
      cacheLog.warn("{image} is not all here: {role} {reference}: {cause}", {
        image: warmed.image,
        role,
        reference,
        cause: error,
        failures: failures.length,
      });
    }
    return ok;
  }

  /** Exempts from eviction what fits, in the order of the list. */
  #keep(): void {
    const kept = new Set<string>();
    let room = this.#options.maxSize * (1 - FREE_SHARE);
    for (const [image, { digests, size }] of this.#kept) {
      if (size > room) {
        cacheLog.warn("{image} may be evicted: CACHE_MAX_SIZE is too small for WARM_IMAGES", {
          image,
        });
        continue;
      }
      room -= size;
      for (const digest of digests) kept.add(digest);
    }
    this.#options.keep(kept);
  }
}
