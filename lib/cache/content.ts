/**
 * Verified content by digest: the store, the index's rows about it, the room it takes, and the fills on
 * their way into it. What is asked of it it answers from here or not at all: it knows no upstream.
 *
 * @module
 */
import { LRUCache } from "lru-cache";
import { cacheLog } from "../log.ts";
import type { Stats } from "../stats.ts";
import { causeOf } from "../upstream/send.ts";
import type { BlobStore, Draft, StoredBlob } from "./blob_store.ts";
import { type EvictionReason, type Reservation, Space } from "./evict.ts";
import { Fill, type Source } from "./fill.ts";
import type { BlobRow, Index } from "./index.ts";

/** Options for {@linkcode Content}. */
export interface ContentOptions {
  readonly store: BlobStore;
  readonly index: Index;
  /** The cap in bytes. */
  readonly maxSize: number;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  readonly stats: Stats;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** What a new fill is made of. */
export interface FillStart {
  readonly digest: string;
  /** Bytes, where upstream says. */
  readonly size?: number;
  readonly first: ReadableStream<Uint8Array>;
  readonly source: Source;
  /** For counters: the registry's name. */
  readonly registry: string;
}

/** Manifests are asked for again and again: this many bytes of them stay in memory. */
const MEMORY = 16 * 2 ** 20;
/** The same disk trouble is logged once in this time, ms. */
const QUIET = 60_000;

/** The content store. */
export class Content {
  readonly space: Space;
  readonly #store: BlobStore;
  readonly #index: Index;
  readonly #idle: number;
  readonly #stats: Stats;
  readonly #now: () => number;
  readonly #fills = new Map<string, Fill>();
  readonly #settling = new Set<Promise<void>>();
  readonly #memory = new LRUCache<string, Uint8Array<ArrayBuffer>>({
    maxSize: MEMORY,
    maxEntrySize: MEMORY / 8,
    sizeCalculation: (bytes) => bytes.byteLength || 1,
  });
  #quietUntil = 0;

  constructor(options: ContentOptions) {
    this.#store = options.store;
    this.#index = options.index;
    this.#idle = options.idle;
    this.#stats = options.stats;
    this.#now = options.now ?? Date.now;
    this.space = new Space(options);
  }

  /** The row of content that is here; undefined also where the index cannot be read. */
  async row(digest: string): Promise<BlobRow | undefined> {
    try {
      return await this.#index.blob(digest);
    } catch (error) {
      this.diskTrouble(error);
      return undefined;
    }
  }

  /** Opens content that is here; pinned until the reader is closed. */
  async open(digest: string): Promise<StoredBlob | undefined> {
    const row = await this.row(digest);
    if (!row) return undefined;
    const unpin = this.space.pin(digest);
    try {
      const blob = await this.#store.open(digest);
      if (blob?.size === row.size) {
        this.space.use(digest);
        return {
          size: blob.size,
          read: (offset, buffer) => blob.read(offset, buffer),
          close: () => {
            blob.close();
            unpin();
          },
        };
      }
      blob?.close();
      // Deleted or cut behind our back: forget it, so that it is fetched again.
      cacheLog.warn("Content of {digest} is gone or cut short: fetching it again", { digest });
      await this.remove(digest, "damaged");
    } catch (error) {
      this.diskTrouble(error);
    }
    unpin();
    return undefined;
  }

  /** All of small content that is here. */
  async read(digest: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const remembered = this.#memory.get(digest);
    if (remembered) {
      this.space.use(digest);
      return remembered;
    }
    const blob = await this.open(digest);
    if (!blob) return undefined;
    try {
      const bytes = new Uint8Array(blob.size);
      for (let done = 0; done < bytes.byteLength;) {
        const n = await blob.read(done, bytes.subarray(done));
        if (n === 0) return undefined;
        done += n;
      }
      this.#memory.set(digest, bytes);
      return bytes;
    } catch (error) {
      this.diskTrouble(error);
      return undefined;
    } finally {
      blob.close();
    }
  }

  /** Stores verified `bytes`; false when there is no room or the disk fails. */
  async put(digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    if (await this.row(digest)) return true;
    const reservation = await this.#reserve(bytes.byteLength);
    if (!reservation) return false;
    let draft: Draft | undefined;
    try {
      await this.#index.unsettle(digest);
      draft = await this.#store.begin(digest);
      await draft.write(bytes);
      await draft.commit();
      await this.#index.addBlob(digest, bytes.byteLength, this.#now());
      this.#memory.set(digest, bytes);
      return true;
    } catch (error) {
      this.diskTrouble(error);
      await draft?.discard();
      return false;
    } finally {
      reservation.release();
    }
  }

  /** The fill of `digest` under way that clients can still join. */
  filling(digest: string): Fill | undefined {
    const fill = this.#fills.get(digest);
    return fill && fill.state !== "failed" && fill.state !== "detached" ? fill : undefined;
  }

  /** Every fill under way. */
  get fills(): Iterable<Fill> {
    return this.#fills.values();
  }

  /** Starts a fill; undefined when there is no room or the disk fails: then nothing of it was read. */
  async startFill(start: FillStart): Promise<Fill | undefined> {
    const { digest, size, first, source, registry } = start;
    const reservation = await this.#reserve(size ?? 0);
    if (!reservation) return undefined;
    const unpin = this.space.pin(digest);
    let draft: Draft;
    try {
      await this.#index.unsettle(digest);
      draft = await this.#store.begin(digest);
    } catch (error) {
      this.diskTrouble(error);
      reservation.release();
      unpin();
      return undefined;
    }
    const stats = this.#stats;
    const fill = new Fill({
      digest,
      size,
      draft,
      source,
      first,
      idle: this.#idle,
      grow: (bytes) => reservation.grow(bytes),
      observer: {
        received: (n) => void (stats.bytesFromUpstream += n),
        resumed(offset, cause) {
          stats.upstreamResumes.add(registry);
          cacheLog.warn("Download of {digest} broke at {offset}, resuming: {cause}", {
            digest,
            offset,
            cause,
          });
        },
        mismatched(reason) {
          stats.cacheEvents.add("mismatch");
          cacheLog.error("Upstream sent wrong bytes for {digest}: {reason}", {
            digest,
            registry,
            reason,
          });
        },
        diskFailed: (cause) => this.diskTrouble(cause),
      },
    });
    this.#fills.set(digest, fill);
    const settling = this.#settle(fill, draft).finally(() => {
      if (this.#fills.get(digest) === fill) this.#fills.delete(digest);
      reservation.release();
      unpin();
      this.#settling.delete(settling);
    });
    this.#settling.add(settling);
    return fill;
  }

  /** Publishes a fill that was verified; drops any other once its readers are done. */
  async #settle(fill: Fill, draft: Draft): Promise<void> {
    const { digest } = fill;
    await fill.done;
    try {
      if (fill.state === "verified") {
        await draft.commit();
        await this.#index.addBlob(digest, fill.received, this.#now());
        cacheLog.debug("Stored {digest}, {bytes} bytes", { digest, bytes: fill.received });
        return;
      }
      if (fill.state === "failed") {
        cacheLog.warn("Download of {digest} failed: {cause}", {
          digest,
          cause: causeOf(fill.error),
        });
      }
    } catch (error) {
      this.diskTrouble(error);
    }
    // Readers that are open keep the file; nobody opens it any more.
    if (fill.state === "detached") await fill.unread;
    await draft.discard();
    await this.#forget(digest);
  }

  /** After a fill that came to nothing: what an interrupted publication may have left. */
  async #forget(digest: string): Promise<void> {
    try {
      if (!await this.row(digest)) await this.#store.remove(digest);
      await this.#index.settle(digest);
    } catch (error) {
      this.diskTrouble(error);
    }
  }

  /** Removes content, from memory too. */
  async remove(digest: string, reason: EvictionReason): Promise<void> {
    this.#memory.delete(digest);
    await this.space.remove(digest, reason);
  }

  async #reserve(bytes: number): Promise<Reservation | undefined> {
    try {
      const reservation = await this.space.reserve(bytes);
      if (!reservation) this.#stats.cacheEvents.add("no_room");
      return reservation;
    } catch (error) {
      this.diskTrouble(error);
      return undefined;
    }
  }

  /** Counts a failure of disk or index, and says so in the log once in a while. */
  diskTrouble(error: unknown): void {
    this.#stats.cacheEvents.add("disk_error");
    const now = this.#now();
    if (now < this.#quietUntil) return;
    this.#quietUntil = now + QUIET;
    cacheLog.error("Cache trouble, serving without it: {cause}", { cause: causeOf(error) });
  }

  /** Ends: fills are waited for up to `grace` ms. */
  async close(grace: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, grace));
    await Promise.race([Promise.all(this.#settling), limit]);
    clearTimeout(timer);
    await this.space.flush();
  }
}
