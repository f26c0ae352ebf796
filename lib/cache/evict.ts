/**
 * Room in the store: the byte cap at admission, recency, and what leaves when room is needed.
 *
 * @module
 */
import { cacheLog } from "../log.ts";
import type { Stats } from "../stats.ts";
import type { BlobStore } from "./blob_store.ts";
import type { BlobRow, Index } from "./index.ts";

/** Room promised to content that is not in the index yet. */
export interface Reservation {
  /** Asks for `bytes` more; false when there is no room for them. */
  grow(bytes: number): Promise<boolean>;
  /** Gives the room back: the content is in the index now, or will not come. */
  release(): void;
}

/** Options for {@linkcode Space}. */
export interface SpaceOptions {
  readonly index: Index;
  readonly store: BlobStore;
  /** The cap in bytes. */
  readonly maxSize: number;
  readonly stats: Stats;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** Why content left. */
export type EvictionReason = "space" | "unused" | "damaged" | "removed";

const PAGE = 64;

/** The cap, and the order in which content leaves. */
export class Space {
  readonly maxSize: number;
  readonly #index: Index;
  readonly #store: BlobStore;
  readonly #stats: Stats;
  readonly #now: () => number;
  /** Uses since the last flush: recency is written in batches, not per hit. */
  #uses = new Map<string, number>();
  /** Content that somebody is reading or writing, with how many. */
  readonly #pins = new Map<string, number>();
  #reserved = 0;
  /** Admissions happen one after the other: each must see what the one before it took. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: SpaceOptions) {
    this.maxSize = options.maxSize;
    this.#index = options.index;
    this.#store = options.store;
    this.#stats = options.stats;
    this.#now = options.now ?? Date.now;
  }

  /** Notes that `digest` was used now. */
  use(digest: string): void {
    this.#uses.set(digest, this.#now());
  }

  /** Writes the noted uses to the index. */
  async flush(): Promise<void> {
    const uses = this.#uses;
    if (uses.size === 0) return;
    this.#uses = new Map();
    await this.#index.touch(uses);
  }

  /** Keeps `digest` from eviction until the returned function is called. */
  pin(digest: string): () => void {
    this.#pins.set(digest, (this.#pins.get(digest) ?? 0) + 1);
    let isPinned = true;
    return () => {
      if (!isPinned) return;
      isPinned = false;
      const count = this.#pins.get(digest)! - 1;
      if (count > 0) this.#pins.set(digest, count);
      else this.#pins.delete(digest);
    };
  }

  /** Room for `bytes`, made by eviction where needed; undefined when it cannot be made. */
  async reserve(bytes: number): Promise<Reservation | undefined> {
    if (!await this.#admit(bytes)) return undefined;
    let held = bytes;
    return {
      grow: async (more) => {
        const admitted = await this.#admit(more);
        if (admitted) held += more;
        return admitted;
      },
      release: () => {
        this.#reserved -= held;
        held = 0;
      },
    };
  }

  #admit(bytes: number): Promise<boolean> {
    const admission = this.#turn.then(async () => {
      if (bytes > this.maxSize || !await this.#makeRoom(bytes)) return false;
      this.#reserved += bytes;
      return true;
    });
    this.#turn = admission.catch(() => {});
    return admission;
  }

  async #makeRoom(bytes: number): Promise<boolean> {
    const room = async () => this.maxSize - this.#reserved - (await this.#index.totals()).bytes;
    if (await room() >= bytes) return true;
    await this.flush();
    while (await room() < bytes) {
      const rows = await this.#index.leastRecent(PAGE + this.#pins.size);
      const candidates = rows.filter(({ digest }) => !this.#pins.has(digest));
      if (candidates.length === 0) return false;
      for (const row of candidates) {
        if (await room() >= bytes) break;
        await this.remove(row.digest, "space");
      }
    }
    return true;
  }

  /** Removes content with its links and tags. */
  async remove(digest: string, reason: EvictionReason): Promise<void> {
    // In this order a crash leaves at most a file without a row, and the note that says where.
    await this.#index.unsettle(digest);
    await this.#index.removeBlob(digest);
    await this.#store.remove(digest);
    await this.#index.settle(digest);
    this.#uses.delete(digest);
    this.#stats.cacheEvents.add(`evicted_${reason}`);
    cacheLog.debug("Removed {digest}: {reason}", { digest, reason });
  }

  /** Removes what has not been used for `ttl` ms; returns how many entries left. */
  async removeUnused(ttl: number): Promise<number> {
    await this.flush();
    const before = this.#now() - ttl;
    let removed = 0;
    while (true) {
      const rows: readonly BlobRow[] = await this.#index.leastRecent(
        PAGE + this.#pins.size,
        before,
      );
      const candidates = rows.filter(({ digest }) => !this.#pins.has(digest));
      if (candidates.length === 0) return removed;
      for (const { digest } of candidates) await this.remove(digest, "unused");
      removed += candidates.length;
    }
  }
}
