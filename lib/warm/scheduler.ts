/**
 * `WARM_IMAGES`: warms images periodically and exempts them from eviction.
 *
 * @module
 */
import type { Config } from "../config/config.ts";
import { cacheLog } from "../telemetry/log.ts";
import { formatSize } from "../util/units.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { warm, type Warmable, type WarmedImage } from "./warm.ts";

/** Initial delay of the next round after a failure, in ms. */
const RETRY_AFTER = 60_000;
/** Share of the cache that stays available to other content. */
const FREE_SHARE = 0.2;

/** Options for {@linkcode WarmScheduler}. */
export interface WarmSchedulerOptions {
  readonly settings: Config["warm"];
  /** The size limit of the cache in bytes. */
  readonly maxSize: number;
  /** Replaces the set of content that is exempt from eviction. */
  readonly keep: (digests: ReadonlySet<string>) => void;
  /** @default {warm} */
  readonly warm?: typeof warm;
}

/** Keeps images warm until it is stopped. */
export class WarmScheduler {
  readonly #proxy: Warmable;
  readonly #options: WarmSchedulerOptions;
  readonly #stopping = new AbortController();
  /** Exempt content by image. */
  readonly #kept = new Map<string, WarmedImage>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failedRounds = 0;

  constructor(proxy: Warmable, options: WarmSchedulerOptions) {
    this.#proxy = proxy;
    this.#options = options;
  }

  /** Starts the first round. */
  start(): void {
    void this.#round();
  }

  /** Stops, without waiting for upstream. */
  stop(): void {
    this.#stopping.abort();
    clearTimeout(this.#timer);
  }

  /** Runs one round. Never rejects. */
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

  /** Logs the result of one image and keeps its content. Returns whether it is complete. */
  #note(image: string, warmed: WarmedImage): boolean {
    const { ok, size, fetched, failures } = warmed;
    const digests = [...warmed.digests, ...warmed.lists];
    const before = this.#kept.get(image);
    // Content of an earlier version may still be useful while the image is incomplete.
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
      cacheLog.warn("{image} is incomplete: {role} {reference}: {cause}", {
        image: warmed.image,
        role,
        reference,
        cause: error,
        failures: failures.length,
      });
    }
    return ok;
  }

  /** Exempts images from eviction in the order of the list, as far as they fit. */
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
