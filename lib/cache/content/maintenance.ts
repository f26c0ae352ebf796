/**
 * What an open cache does by itself: writing recency, removing what is not used, tidying the index, mending
 * it, and the slow pass over the store.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { cacheLog } from "../../telemetry/log.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import { TimeSlice } from "../../util/time_slice.ts";
import { orAborted } from "../../util/deadline.ts";
import type { Index } from "../index/index.ts";
import { type BlobStore, UnreachableError } from "../store/blob_store.ts";
import { compare, type CompareOptions } from "./compare.ts";
import type { Content } from "./content.ts";
import { scrub } from "./scrubber.ts";

/**
 * From the end of one comparison of store and index to the next, ms; and so many times as long as it took. What
 * a comparison finds is found within ten minutes, up to half a million entries.
 */
const COMPARE_EVERY = 4 * 60_000;
const COMPARE_SHARE = 2;
const FLUSH_EVERY = 5_000;
/** What came back to a lost index, or was counted while it was away, may be more than the cap allows. */
const TRIM_EVERY = 60_000;
const TIDY_EVERY = 10 * 60_000;
/** A link or tag without its content may be of a download that is under way. */
const PRUNE_AFTER = 24 * 60 * 60_000;

/** Store and index of an open cache, as far as they need upkeep. */
export interface MaintainedBackends {
  readonly store: BlobStore;
  readonly index: Index;
  /** Where several instances share them: whether this one does the work for all. */
  readonly leader?: { isOurs(): Promise<boolean> };
  /** Whether the machine may have gone down with the last process, so that store and index may disagree. */
  readonly wasKilled: boolean;
  /** Whether another instance works on a digest. */
  isRunning?(digest: string): Promise<boolean>;
  /** Whether the index knows all of the store, and is not being rebuilt. @default {it does} */
  isIndexWhole?(): Promise<boolean>;
  /** Makes a damaged index whole again. */
  readonly repair?: () => Promise<void>;
}

/** Options for {@linkcode Maintenance}. */
export interface MaintenanceOptions {
  readonly content: Content;
  readonly engines: MaintainedBackends;
  /** Content that was not used for this long leaves, ms. */
  readonly blobTtl: number;
  /** From the end of one comparison of store and index to the next, ms. @default {240000} */
  readonly compareEvery?: number;
}

/** The upkeep of one cache. */
export class Maintenance {
  readonly #options: MaintenanceOptions;
  readonly #ending = new AbortController();
  readonly #work = new Set<Promise<void>>();
  readonly #timers: ReturnType<typeof setInterval>[] = [];

  constructor(options: MaintenanceOptions) {
    this.#options = options;
  }

  /** Begins. */
  start(): void {
    const { content, engines } = this.#options;
    const { space } = content;
    this.#timers.push(
      setInterval(() => this.#attempt(() => this.#writeUses()), FLUSH_EVERY),
      setInterval(() => this.#attempt(() => space.trim()), TRIM_EVERY),
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
    const reconciled = Promise.withResolvers<void>();
    if (!wasKilled) reconciled.resolve();
    const onReconciled = () => reconciled.resolve();
    this.#attempt(() => this.#compareAgain(reconciled.promise));
    this.#attempt(() => scrub(target, { signal, isSuspect: wasKilled, onReconciled, isOurs }));
  }

  /**
   * Compares store and index again and again, until it is ended. After a power failure what has no row is entered
   * first: `reconciled`.
   */
  async #compareAgain(reconciled: Promise<void>): Promise<void> {
    const { signal } = this.#ending;
    const { compareEvery = COMPARE_EVERY } = this.#options;
    let pause = compareEvery;
    while (!signal.aborted) {
      try {
        await delay(pause, undefined, { signal, ref: false });
        await orAborted(reconciled, signal);
      } catch {
        return; // it is ended
      }
      const began = performance.now();
      try {
        await this.compare();
      } catch (error) {
        // A store or an index that is down has been told of.
        if (!signal.aborted && !(error instanceof UnreachableError)) {
          this.#options.content.diskTrouble(error);
        }
      }
      pause = Math.max(compareEvery, COMPARE_SHARE * (performance.now() - began));
    }
  }

  /** Compares store and index once, unless another instance is at it. */
  async compare(options?: Pick<CompareOptions, "grace" | "wait" | "now">): Promise<void> {
    const { content: { space }, engines } = this.#options;
    const { store, index, leader, isRunning, isIndexWhole } = engines;
    if (leader && !await leader.isOurs()) return;
    const { signal } = this.#ending;
    await compare({ store, index, space }, { signal, isRunning, isIndexWhole, ...options });
    await space.trim();
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
