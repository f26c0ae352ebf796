/**
 * The fills under way: started once per digest, joined while they run, published when they are verified.
 *
 * @module
 */
import { SingleFlight } from "../../util/single_flight.ts";
import { cacheLog } from "../../telemetry/log.ts";
import type { Stats } from "../../telemetry/stats.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import type { BlobStore, BlobWriter } from "../store/blob_store.ts";
import type { Admission } from "./capacity.ts";
import type { Claim } from "./claim.ts";
import { Fill, type Source } from "./fill.ts";
import { drop, StoppedFills, type StoppedPart } from "./stopped_fills.ts";

/** What a new fill is made of. */
export interface FillStart {
  readonly digest: string;
  /** Bytes, where upstream says. */
  readonly size?: number;
  /** From byte 0, or from the end of `part`. */
  readonly first: ReadableStream<Uint8Array>;
  /** What {@linkcode Fills.takeStopped} gave, of which `first` is the rest. */
  readonly part?: StoppedPart;
  readonly source: Source;
  /**
   * The registry's id and the repository: only what is left of its own fills is gone on with. @default {registry}
   */
  readonly origin?: string;
  /** Whether it goes on though no client reads it. @default {false} */
  readonly warming?: boolean;
  /** Aborted when all clients that it is started for have left. @default {they stay until its first byte} */
  readonly left?: AbortSignal;
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
  publish(draft: BlobWriter, content: { digest: string; size: number }): Promise<void>;
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
  /** For what is left of stopped fills, bytes. */
  readonly stoppedSize: number;
}

/** Downloads that go on though nobody reads them, those of warming apart. */
export const MAX_UNWANTED = 8;

/** Every fill of one cache. */
export class Fills {
  readonly #keeper: FillKeeper;
  readonly #store: Pick<BlobStore, "begin">;
  readonly #idle: number;
  readonly #stats: Stats;
  readonly #fills = new Map<string, Fill>();
  readonly #starts = new SingleFlight<Fill | undefined>();
  readonly #settling = new Map<Fill, Promise<void>>();
  /** Those that run and that nobody reads. */
  readonly #unwanted = new Set<Fill>();
  readonly #stopped: StoppedFills;
  #isClosed = false;
  /** Resolved when nobody is waited for any more. */
  readonly #closing = Promise.withResolvers<void>();

  constructor({ keeper, store, idle, stats, stoppedSize }: FillsOptions) {
    this.#keeper = keeper;
    this.#store = store;
    this.#idle = idle;
    this.#stats = stats;
    this.#stopped = new StoppedFills({ maxSize: stoppedSize });
  }

  /** The fill of `digest` under way that clients can still join. */
  filling(digest: string): Fill | undefined {
    const fill = this.#fills.get(digest);
    return fill && (fill.state === "running" || fill.state === "verified") ? fill : undefined;
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
    return this.#settling.keys().reduce((bytes, { received }) => bytes + received, 0) +
      this.#stopped.bytes;
  }

  /** How many run that nobody reads, and how many were stopped and can be gone on with. */
  get unread(): { readonly running: number; readonly stopped: number } {
    return { running: this.#unwanted.size, stopped: this.#stopped.size };
  }

  /**
   * What is left of a stopped fill of `digest` from a repository, for the caller to {@linkcode start} with, to give back or to
   * drop; undefined where there is nothing.
   */
  async takeStopped(digest: string, origin: string): Promise<StoppedPart | undefined> {
    if (this.#fills.get(digest)?.state === "stopped") await this.settled(digest);
    return this.#stopped.take(digest, origin);
  }

  /** Takes back what could not be gone on with. */
  async giveBack(part: StoppedPart): Promise<void> {
    if (this.#isClosed) await drop(part);
    else await this.#stopped.giveBack(part);
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
    if (fill && !isOurs) {
      start.first.cancel().catch(() => {});
      if (start.part) await drop(start.part);
    }
    if (!fill || !isOurs) await start.claim?.release();
    return fill;
  }

  async #begin(start: FillStart): Promise<Fill | undefined> {
    const { digest, size, first, part, source, registry, repository, claim } = start;
    part?.admission.release(); // it is in what the whole takes
    const admission = await this.#keeper.admit(size ?? 0);
    if (!admission) {
      await part?.draft.discard();
      return undefined;
    }
    const ownership = part?.ownership ?? {};
    ownership.claim = claim;
    let draft: BlobWriter;
    try {
      // While it is stopped it is nobody's.
      const isOurs = claim && (() => ownership.claim?.isOurs() ?? false);
      draft = part?.draft ?? await this.#store.begin(digest, { size, isOurs });
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
      resumes: part,
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
        wanted: () => void this.#unwanted.delete(fill),
        unwanted: () => {
          if (!start.warming) this.#unwantedNow(fill);
        },
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
          if (source.mismatched?.(reason)) return;
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
    if (part) stats.cacheEvents.add("fill_continued");
    this.#fills.set(digest, fill);
    start.onBegun?.(fill);
    // Those it was started for have come by the time that they can be answered, or want nothing of it.
    const letGo = fill.hold();
    const letGoSoon = () => setTimeout(letGo);
    void fill.firstByte.then(letGoSoon);
    if (start.left?.aborted) letGoSoon();
    else start.left?.addEventListener("abort", letGoSoon, { once: true });
    const keeping = { draft, admission, ownership, origin: start.origin ?? registry };
    const settling = this.#settle(fill, keeping, start.onVerified).finally(() => {
      claim?.release();
      ownership.claim = undefined;
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
    keeping: Pick<StoppedPart, "draft" | "admission" | "ownership" | "origin">,
    onVerified: FillStart["onVerified"],
  ): Promise<void> {
    const { draft, admission, ownership: { claim } } = keeping;
    const { digest } = fill;
    await fill.done;
    this.#unwanted.delete(fill);
    if (fill.state === "stopped") {
      await this.#keepStopped(fill, keeping);
      if (this.#fills.get(digest) === fill) this.#fills.delete(digest);
      return;
    }
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

  /** Nobody reads `fill` any more: it goes on while few do so, or is stopped. */
  #unwantedNow(fill: Fill): void {
    if (fill.state !== "running") return;
    if (this.#unwanted.size < MAX_UNWANTED) return void this.#unwanted.add(fill);
    if (fill.stop()) this.#stats.cacheEvents.add("fill_stopped");
  }

  /** Keeps what is left of a stopped fill, taking no more room than that needs. */
  async #keepStopped(
    fill: Fill,
    { admission, ...keeping }: Pick<StoppedPart, "draft" | "admission" | "ownership" | "origin">,
  ): Promise<void> {
    const { digest, size, stopped } = fill;
    admission.release();
    const smaller = stopped && !this.#isClosed && await this.#keeper.admit(stopped.written);
    if (!smaller || size === undefined) {
      if (smaller) smaller.release();
      return await keeping.draft.discard();
    }
    await this.#stopped.add({ ...keeping, ...stopped, digest, size, admission: smaller });
    if (this.#isClosed) await this.#stopped.clear();
  }

  async #keep(fill: Fill, draft: BlobWriter): Promise<boolean> {
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
    this.#isClosed = true;
    for (const fill of this.#settling.keys()) fill.abort();
    this.#closing.resolve();
    await this.ended();
    await this.#stopped.clear();
  }

  /** Waits until no fill is under way. */
  async ended(): Promise<void> {
    await Promise.all(this.#settling.values());
  }
}
