/**
 * Room in the store: the byte cap at admission, recency, and what leaves when room is needed.
 *
 * @module
 */
import { cacheLog } from "../../telemetry/log.ts";
import type { Stats } from "../../telemetry/stats.ts";
import { type BlobStore, BlobUnavailableError } from "../store/blob_store.ts";
import { type Awaitable, type BlobRow, type Index, NoteRefusedError } from "../index/index.ts";
import { KeyedMutex } from "../../util/keyed_mutex.ts";
import { TimeSlice } from "../../util/time_slice.ts";

/** Room promised to content that is not in the index yet. */
export interface Admission {
  /** Asks for `bytes` more; false when there is no room for them. */
  grow(bytes: number): Promise<boolean>;
  /** Gives the room back: the content is in the index now, or will not come. */
  release(): void;
}

/** Options for {@linkcode Capacity}. */
export interface CapacityOptions {
  readonly index: Index;
  readonly store: BlobStore;
  /** The cap in bytes. */
  readonly maxSize: number;
  readonly stats: Stats;
  /** Told of every digest that leaves. */
  readonly onRemoved?: (digest: string) => void;
  /** What was stored less than this ago, ms, is not evicted: who waited for it may not have come yet. @default {5_000} */
  readonly justFilled?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** Why content left. */
export type EvictionReason = "space" | "unused" | "damaged" | "removed";

const JUST_FILLED = 5_000;
/** Rows looked at, and content evicted, at a time. */
const PAGE = 256;
/** How much content leaves where the index has no room for a note. */
const ROOM_FOR_NOTES = 4;
/** How much an admission of unknown length asks for at a time, at most. */
const STEP = 2 ** 20;
/** A full disk is believed to be full for this long, ms. */
const FULL_FOR = 60_000;
/** What the index may grow by on a disk that is full. */
const INDEX_ROOM = 2 ** 20;
/** What was found damaged is kept for an operator to look at, ms, unless its room is needed. */
const KEEP_ASIDE = 7 * 24 * 60 * 60_000;

/** The cap, and the order in which content leaves. */
export class Capacity {
  readonly maxSize: number;
  readonly #options: CapacityOptions;
  readonly #index: Index;
  readonly #store: BlobStore;
  readonly #stats: Stats;
  readonly #justFilled: number;
  readonly #now: () => number;
  /** Uses since the last flush: recency is written in batches, not per hit. */
  #uses = new Map<string, number>();
  /** Content that somebody is reading or writing, with how many. */
  readonly #pins = new Map<string, number>();
  /** Content that stays for as long as nobody says otherwise. */
  #kept: ReadonlySet<string> = new Set();
  /** Bytes in quarantine: they take room too. */
  #aside = 0;
  /** What fitted when the disk said that it is full, and until when that is believed. */
  #ceiling = { bytes: Infinity, until: 0 };
  #isClosed = false;
  /** Admissions happen one after the other: each must see what the one before it took. */
  readonly #admissions = new KeyedMutex();
  /** Content comes and goes under its digest one step after the other. */
  readonly #changes = new KeyedMutex();

  constructor(options: CapacityOptions) {
    this.#options = options;
    this.maxSize = options.maxSize;
    this.#index = options.index;
    this.#store = options.store;
    this.#stats = options.stats;
    this.#justFilled = options.justFilled ?? JUST_FILLED;
    this.#now = options.now ?? Date.now;
  }

  /** Notes that `digest` was used now. */
  use(digest: string): void {
    this.#uses.set(digest, this.#now());
  }

  /** Writes the noted uses to the index. What cannot be written is kept for the next time. */
  async flush(): Promise<void> {
    const uses = this.#uses;
    this.#uses = new Map();
    try {
      await this.#index.touch(uses);
    } catch (error) {
      this.#uses = new Map([...uses, ...this.#uses]);
      throw error;
    }
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

  /** Keeps `digests`, and no more those of the call before, from eviction. */
  keep(digests: ReadonlySet<string>): void {
    this.#kept = digests;
  }

  /** How many digests somebody is reading or writing. */
  get pinned(): number {
    return this.#pins.size;
  }

  /** Room for `bytes`, made by eviction where needed; undefined when it cannot be made. */
  async reserve(bytes: number): Promise<Admission | undefined> {
    const reservation = await this.#admit(
      bytes,
      (limit) => this.#index.reserve(bytes, limit),
    );
    if (!reservation) return undefined;
    let held = bytes;
    let used = bytes;
    const take = async (more: number) => {
      const isTaken = await this.#admit(more, (limit) => reservation.grow(more, limit));
      if (isTaken) held += more;
      return isTaken === true;
    };
    return {
      grow: async (more) => {
        used += more;
        if (used <= held) return true;
        // Ahead, so that not every piece of a body has to ask.
        const missing = used - held;
        if (await take(missing + Math.min(used, STEP)) || await take(missing)) return true;
        used -= more;
        return false;
      },
      release: () => {
        // A promise that cannot be taken back ends with the process.
        (async () => await reservation.release())().catch(() => {});
      },
    };
  }

  /** Admits nothing until `work` has ended: meanwhile the index does not know all that is here. */
  async closedFor<T>(work: () => Promise<T>): Promise<T> {
    this.#isClosed = true;
    try {
      return await work();
    } finally {
      this.#isClosed = false;
    }
  }

  /** Evicts what is more than the cap allows, as after it was lowered. */
  async trim(): Promise<void> {
    (await this.reserve(0))?.release();
  }

  /**
   * The disk is full before the cap is reached. For a while what is here now, `drafts` bytes of unfinished
   * content included, is all that may be: whoever comes takes the place of what was used longest ago,
   * instead of failing like the one before.
   */
  async diskIsFull({ drafts }: { readonly drafts: number }): Promise<void> {
    const { bytes } = await this.#index.totals();
    const fits = Math.max(bytes, bytes + drafts - INDEX_ROOM);
    this.#ceiling = { bytes: fits, until: this.#now() + FULL_FOR };
  }

  get #limit(): number {
    const ceiling = this.#ceiling.until > this.#now() ? this.#ceiling.bytes : Infinity;
    return Math.min(this.maxSize - this.#aside, ceiling);
  }

  #admit<T>(
    bytes: number,
    attempt: (limit: number) => Awaitable<T | undefined | false>,
  ): Promise<T | undefined | false> {
    return this.#admissions.run("", async () => {
      while (!this.#isClosed) {
        const admitted = await attempt(this.#limit);
        if (admitted) return admitted;
        if (!await this.#makeRoom(bytes)) return undefined;
      }
    });
  }

  /** Makes some of the room that `bytes` need. False when all of it cannot be made: then nothing leaves. */
  async #makeRoom(bytes: number): Promise<boolean> {
    if (this.#aside > 0) {
      this.#aside = await this.#store.purge(Infinity);
      if (this.#aside === 0) return true;
    }
    // Where recency cannot be written (a full disk), what was used lately still stays: see `#mayLeave`.
    await this.flush().catch(() => {});
    const totals = await this.#index.totals();
    const missing = totals.bytes + totals.reserved + bytes - this.#limit;
    if (missing > totals.bytes) return false;
    // For what comes nothing leaves in vain; what is more than the cap already leaves as far as it may.
    const leaving = await this.#leastRecent(missing, { orLess: bytes === 0 });
    let freed = 0;
    for (const { digest, size } of leaving ?? []) {
      if (freed >= missing) break;
      if (await this.remove(digest, "space")) freed += size;
    }
    return freed > 0;
  }

  /** What to evict for `bytes`, or a good part of it; undefined, or with `orLess` all there is, when all that may leave is not enough. */
  async #leastRecent(
    bytes: number,
    { orLess }: { readonly orLess: boolean },
  ): Promise<BlobRow[] | undefined> {
    const found: BlobRow[] = [];
    let size = 0;
    const slice = new TimeSlice();
    for (let skip = 0;; skip += PAGE) {
      await slice.pause();
      const rows = await this.#index.leastRecent(PAGE, { skip });
      for (const row of rows) {
        if (!this.#mayLeave(row)) continue;
        found.push(row);
        size += row.size;
        if (size >= bytes) return found;
      }
      if (rows.length < PAGE) return orLess ? found : undefined;
      // A cap that was lowered by a lot: piece by piece.
      if (found.length > 16 * PAGE) return found;
    }
  }

  #mayLeave({ digest, createdAt }: BlobRow): boolean {
    const age = this.#now() - createdAt;
    // A clock that was set back makes nothing just filled for ever.
    const isJustFilled = age >= 0 && age < this.#justFilled;
    return !isJustFilled && !this.#isInUse(digest);
  }

  #isInUse(digest: string): boolean {
    return this.#pins.has(digest) || this.#uses.has(digest) || this.#kept.has(digest);
  }

  /** Runs `work` while nobody else publishes or removes content of `digest`. */
  change<T>(digest: string, work: () => Promise<T>): Promise<T> {
    return this.#changes.run(digest, work);
  }

  /**
   * Removes content with its links and tags; what is damaged goes to quarantine. Returns false when it
   * stays, because somebody began to use what was to be evicted, or because another one than the damaged `version` is
   * there by now.
   */
  remove(digest: string, reason: EvictionReason, version?: string): Promise<boolean> {
    return this.change(digest, async () => {
      // A full disk may refuse the note, and only what leaves can change that.
      const isNoted = await this.#note(digest);
      const isEviction = reason === "space" || reason === "unused";
      if (isEviction && this.#isInUse(digest)) {
        if (isNoted) await this.#index.clearPending(digest);
        return false;
      }
      if (reason === "damaged" || !isNoted) {
        // The bytes first: a crash in between must not leave them to be found and believed.
        if (!await this.#dropBytes(digest, reason, version)) {
          if (isNoted) await this.#index.clearPending(digest);
          return false;
        }
        await this.#index.removeBlob(digest);
      } else {
        // The row first: a crash in between leaves bytes that the note tells of.
        await this.#index.removeBlob(digest);
        await this.#store.remove(digest);
      }
      if (isNoted) await this.#index.clearPending(digest);
      this.#uses.delete(digest);
      this.#options.onRemoved?.(digest);
      this.#stats.cacheEvents.add(`evicted_${reason}`);
      cacheLog.debug("Removed {digest}: {reason}", { digest, reason });
      return true;
    });
  }

  /**
   * Notes that content of `digest` is about to appear. Where the index has no room for the note, content used
   * longest ago makes some. Throws what the index throws.
   */
  async note(digest: string): Promise<void> {
    try {
      await this.#index.markPending(digest);
    } catch (error) {
      if (!(error instanceof NoteRefusedError)) throw error;
      let left = 0;
      for (const row of await this.#index.leastRecent(ROOM_FOR_NOTES)) {
        if (
          row.digest !== digest && this.#mayLeave(row) && await this.remove(row.digest, "space")
        ) {
          left++;
        }
      }
      if (left === 0) throw error;
      await this.#index.markPending(digest);
    }
  }

  async #note(digest: string): Promise<boolean> {
    try {
      await this.#index.markPending(digest);
      return true;
    } catch {
      return false;
    }
  }

  /** Removes the bytes, or sets them aside; returns whether there are none under the digest any more. */
  async #dropBytes(digest: string, reason: EvictionReason, version?: string): Promise<boolean> {
    if (reason !== "damaged") {
      await this.#store.remove(digest);
      return true;
    }
    try {
      if (!await this.#store.quarantine(digest, version)) return false;
    } catch (error) {
      // Nobody is to be sent to it all the same; what is fetched again takes its place.
      if (!(error instanceof BlobUnavailableError)) throw error;
    }
    this.#stats.cacheEvents.add("quarantined");
    await this.tidyQuarantine().catch(() => {}); // done again by the upkeep
    return true;
  }

  /** Removes what has been in quarantine for long, and learns how much room the rest takes. */
  async tidyQuarantine(): Promise<void> {
    this.#aside = await this.#store.purge(this.#now() - KEEP_ASIDE);
  }

  /** Removes what has not been used for `ttl` ms; returns how many entries left. */
  async removeUnused(ttl: number): Promise<number> {
    await this.flush();
    const before = this.#now() - ttl;
    let removed = 0;
    let skip = 0;
    while (true) {
      const rows = await this.#index.leastRecent(PAGE, { before, skip });
      for (const { digest } of rows) {
        if (await this.remove(digest, "unused")) removed++;
        else skip++;
      }
      if (rows.length < PAGE) return removed;
    }
  }
}
