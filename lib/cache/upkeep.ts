/**
 * What an open cache does by itself: writing recency, removing what is not used, tidying the index, mending
 * it, and the slow pass over the store.
 *
 * @module
 */
import { cacheLog } from "../log.ts";
import { causeOf } from "../upstream/send.ts";
import { TimeSlice } from "../util/time_slice.ts";
import type { Content } from "./content.ts";
import type { Engines } from "./engines.ts";
import { patrol } from "./patrol.ts";

const FLUSH_EVERY = 5_000;
const TIDY_EVERY = 10 * 60_000;
/** A link or tag without its content may be of a download that is under way. */
const PRUNE_AFTER = 24 * 60 * 60_000;

/** Options for {@linkcode Upkeep}. */
export interface UpkeepOptions {
  readonly content: Content;
  readonly engines: Engines;
  /** Content that was not used for this long leaves, ms. */
  readonly blobTtl: number;
}

/** The upkeep of one cache. */
export class Upkeep {
  readonly #options: UpkeepOptions;
  readonly #ending = new AbortController();
  readonly #work = new Set<Promise<void>>();
  readonly #timers: ReturnType<typeof setInterval>[] = [];

  constructor(options: UpkeepOptions) {
    this.#options = options;
  }

  /** Begins. */
  start(): void {
    const { content, engines } = this.#options;
    const { space } = content;
    this.#timers.push(
      setInterval(() => this.#attempt(() => this.#writeUses()), FLUSH_EVERY),
      setInterval(() => this.#attempt(() => this.tidy()), TIDY_EVERY),
    );
    this.#attempt(async () => {
      await space.tidyQuarantine();
      await space.trim();
    });
    const { signal } = this.#ending;
    const target = { content, ...engines };
    const { leader, wasKilled } = engines;
    const isOurs = leader && (() => leader.isOurs());
    this.#attempt(() => patrol(target, { signal, isSuspect: wasKilled, isOurs }));
  }

  /** Writes recency, and lets facts leave that were used longest ago where there are too many. */
  async #writeUses(): Promise<void> {
    await this.#options.content.space.flush();
    await this.#options.engines.index.trim();
  }

  /** Removes what has not been used for long, and facts about what is not here. */
  async tidy(): Promise<void> {
    const { content, engines, blobTtl } = this.#options;
    await content.space.removeUnused(blobTtl);
    await content.space.tidyQuarantine();
    const before = Date.now() - PRUNE_AFTER;
    const slice = new TimeSlice();
    let cursor: string | undefined;
    do {
      cursor = await engines.index.prune(before, cursor);
      await slice.pause();
    } while (cursor !== undefined && !this.#ending.signal.aborted);
  }

  /** Mends a damaged index. Clients are served meanwhile; what is new is not kept. */
  repair(): void {
    const { content, engines } = this.#options;
    const { repair } = engines;
    if (!repair) return;
    // Later: it was found by a statement that is still running.
    this.#attempt(() =>
      Promise.resolve().then(() => content.space.closedFor(repair)).catch((error) => {
        cacheLog.error("Cannot mend the index: {cause}", { cause: causeOf(error) });
        throw error;
      })
    );
  }

  #attempt(work: () => Promise<unknown>): void {
    const attempt = work().then(() => {}, (error) => {
      if (!this.#ending.signal.aborted) this.#options.content.diskTrouble(error);
    }).finally(() => this.#work.delete(attempt));
    this.#work.add(attempt);
  }

  /** Ends, and waits for what is at work. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#ending.abort();
    await Promise.all(this.#work);
  }
}
