/**
 * The fills under way: started once per digest, joined while they run, published when they are verified.
 *
 * @module
 */
import { Flights } from "../flight.ts";
import { cacheLog } from "../log.ts";
import type { Stats } from "../stats.ts";
import { causeOf } from "../upstream/send.ts";
import type { BlobStore, Draft } from "./blob_store.ts";
import type { Admission } from "./evict.ts";
import type { Claim } from "./together.ts";
import { Fill, type Source } from "./fill.ts";

/** What a new fill is made of. */
export interface FillStart {
  readonly digest: string;
  /** Bytes, where upstream says. */
  readonly size?: number;
  readonly first: ReadableStream<Uint8Array>;
  readonly source: Source;
  /** For counters: the registry's name. */
  readonly registry: string;
  /** For who watches: whose content it is. */
  readonly repository?: string;
  /** Where instances share the store: whether what comes of it is ours to publish. */
  readonly claim?: Claim;
  /** Called with the fill that begins by this; not where one is joined. */
  readonly onBegun?: (fill: Fill) => void;
  /** Called when the digest has been verified, before anybody finds the content in the store. */
  readonly onVerified?: (fill: Fill) => Promise<void>;
}

/** Where fills get room and become content. */
export interface FillKeeper {
  /** Room for `bytes`, or undefined when there is none. Never throws. */
  admit(bytes: number): Promise<Admission | undefined>;
  /** Makes a verified draft content. Throws where store or index fail: then it is not here. */
  publish(draft: Draft, content: { digest: string; size: number }): Promise<void>;
  /** Keeps content from eviction until the returned function is called. */
  pin(digest: string): () => void;
  diskTrouble(error: unknown): void;
}

/** Options for {@linkcode Fills}. */
export interface FillsOptions {
  readonly keeper: FillKeeper;
  readonly store: Pick<BlobStore, "begin">;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  readonly stats: Stats;
}

/** Every fill of one cache. */
export class Fills {
  readonly #keeper: FillKeeper;
  readonly #store: Pick<BlobStore, "begin">;
  readonly #idle: number;
  readonly #stats: Stats;
  readonly #fills = new Map<string, Fill>();
  readonly #starts = new Flights<Fill | undefined>();
  readonly #settling = new Map<Fill, Promise<void>>();
  /** Resolved when nobody is waited for any more. */
  readonly #closing = Promise.withResolvers<void>();

  constructor({ keeper, store, idle, stats }: FillsOptions) {
    this.#keeper = keeper;
    this.#store = store;
    this.#idle = idle;
    this.#stats = stats;
  }

  /** The fill of `digest` under way that clients can still join. */
  filling(digest: string): Fill | undefined {
    const fill = this.#fills.get(digest);
    return fill && fill.state !== "failed" && fill.state !== "detached" ? fill : undefined;
  }

  /** Settles when the fill of `digest` under way, if any, is in the store or has come to nothing. */
  async settled(digest: string): Promise<void> {
    const fill = this.#fills.get(digest);
    if (fill) await this.#settling.get(fill);
  }

  /** How many are under way. */
  get size(): number {
    return this.#fills.size;
  }

  /** Bytes of what is not stored yet, or will not be and is still being read. */
  get onDisk(): number {
    return this.#settling.keys().reduce((bytes, { received }) => bytes + received, 0);
  }

  /** Every fill under way. */
  [Symbol.iterator](): Iterator<Fill> {
    return this.#fills.values();
  }

  /**
   * Starts a fill, or joins the one that is under way: then `first` is cancelled. Undefined when there is no
   * room or the disk fails: then nothing of `first` was read.
   */
  async start(start: FillStart): Promise<Fill | undefined> {
    let isOurs = false;
    const fill = this.filling(start.digest) ?? await this.#starts.run(start.digest, () => {
      isOurs = true;
      return this.#begin(start);
    });
    if (fill && !isOurs) start.first.cancel().catch(() => {});
    if (!fill || !isOurs) await start.claim?.release();
    return fill;
  }

  async #begin(start: FillStart): Promise<Fill | undefined> {
    const { digest, size, first, source, registry, repository, claim } = start;
    const admission = await this.#keeper.admit(size ?? 0);
    if (!admission) return undefined;
    let draft: Draft;
    try {
      draft = await this.#store.begin(digest, { size, isOurs: claim?.isOurs });
    } catch (error) {
      this.#keeper.diskTrouble(error);
      admission.release();
      return undefined;
    }
    const stats = this.#stats;
    let isRefused = false;
    const fill = new Fill({
      digest,
      origin: { registry, repository },
      size,
      draft,
      source,
      first,
      idle: this.#idle,
      grow: async (bytes) => {
        try {
          isRefused = !await admission.grow(bytes);
          return !isRefused;
        } catch (error) {
          this.#keeper.diskTrouble(error);
          return false;
        }
      },
      observer: {
        joined: () => stats.cacheEvents.add("joined"),
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
        unreadable: (cause) => this.#keeper.diskTrouble(cause),
        diskFailed: (cause) =>
          isRefused ? stats.cacheEvents.add("no_room") : this.#keeper.diskTrouble(cause),
      },
    });
    const unpin = this.#keeper.pin(digest);
    this.#fills.set(digest, fill);
    start.onBegun?.(fill);
    const { onVerified } = start;
    const settling = this.#settle(fill, { draft, admission, claim, onVerified }).finally(() => {
      claim?.release();
      this.#settling.delete(fill);
      // Who joined it may not have opened it yet.
      void fill.unread.then(unpin);
    });
    this.#settling.set(fill, settling);
    return fill;
  }

  /** Publishes a fill that was verified; drops any other once its readers are done. */
  async #settle(
    fill: Fill,
    { draft, admission, claim, onVerified }:
      & { draft: Draft; admission: Admission }
      & Pick<FillStart, "claim" | "onVerified">,
  ): Promise<void> {
    const { digest } = fill;
    await fill.done;
    if (fill.state === "verified") await onVerified?.(fill);
    const isStored = fill.state === "verified" &&
      await (claim?.mayPublish(this.#closing.promise) ?? true) && await this.#keep(fill, draft);
    if (fill.state === "failed") {
      cacheLog.warn("Download of {digest} failed: {cause}", { digest, cause: causeOf(fill.error) });
    }
    if (this.#fills.get(digest) === fill) this.#fills.delete(digest);
    if (!isStored) {
      // Readers still get what is in it; nobody joins it any more.
      if (fill.state !== "failed") await Promise.race([fill.unread, this.#closing.promise]);
      await draft.discard();
    }
    admission.release();
  }

  async #keep(fill: Fill, draft: Draft): Promise<boolean> {
    const { digest, received } = fill;
    try {
      await this.#keeper.publish(draft, { digest, size: received });
      cacheLog.debug("Stored {digest}, {bytes} bytes", { digest, bytes: received });
      return true;
    } catch (error) {
      this.#keeper.diskTrouble(error);
      return false;
    }
  }

  /**
   * Gives up what is still running: its clients' connections break, and nothing of it is kept. What has been
   * verified is still published.
   */
  async abort(): Promise<void> {
    for (const fill of this.#settling.keys()) fill.abort();
    this.#closing.resolve();
    await this.ended();
  }

  /** Waits until no fill is under way. */
  async ended(): Promise<void> {
    await Promise.all(this.#settling.values());
  }
}
