/**
 * Verified content by digest: the store, the index's rows about it, the room it takes, and the fills on
 * their way into it. What is asked of it it answers from here or not at all: it knows no upstream.
 *
 * @module
 */
import type { Hash } from "node:crypto";
import { SingleFlight } from "../../util/single_flight.ts";
import { cacheLog } from "../../telemetry/log.ts";
import { ByteLru } from "../../util/lru.ts";
import { createHasher, digestOf, parseDigest, type StorableAlgorithm } from "../../oci/digest.ts";
import { OciError } from "../../oci/error.ts";
import { reserveMemory } from "../../response/under_way.ts";
import type { Stats } from "../../telemetry/stats.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import type { Release } from "../../util/memory_budget.ts";
import {
  BlobReplacedError,
  type BlobStore,
  BlobUnavailableError,
  type BlobWriter,
  type StoredBlob,
  type StoredEntry,
  UnreachableError,
} from "../store/blob_store.ts";
import { type CheckOptions, checkStored, type Verdict } from "./check.ts";
import { isDiskFull, isOutOfHandles } from "../store/disk.ts";
import { type Admission, Capacity, type EvictionReason } from "./capacity.ts";
import type { Fill } from "./fill.ts";
import { type FillKeeper, Fills, type FillStart } from "./fills.ts";
import type { StoppedPart } from "./stopped_fills.ts";
import type { BlobRow, Index } from "../index/index.ts";

/** Options for {@linkcode Content}. */
export interface ContentOptions {
  readonly store: BlobStore;
  readonly index: Index;
  /** The cap in bytes. */
  readonly maxSize: number;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  readonly stats: Stats;
  /** See `CapacityOptions`. */
  readonly justFilled?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** Manifests are asked for again and again: this many bytes of them stay in memory. */
const MEMORY = 16 * 2 ** 20;
/** The most bytes that are read at once: the largest manifest. */
const LARGEST_READ = 4 * 2 ** 20;
/** What is read into memory without waiting for room there, bytes. */
const SMALL = 64 * 1024;
/** How long large content is believed to be what it was when it was hashed, ms. */
const HASHED_FOR = 60_000;
/** The same disk trouble is logged once in this time, ms. */
const QUIET = 60_000;
/** What cannot be read so often, the last time not longer ago than this, ms, is damaged: else it was chance. */
const FAILURES = 2;
const REMEMBER_FAILURE = 60 * 60_000;

/** Content that is open for reading. */
export interface OpenedContent extends StoredBlob {
  /** When it was stored, ms since the epoch. */
  readonly createdAt: number;
  /** The same as `read`, without conclusions from what it throws: whoever catches that calls `failed`. */
  tryRead(offset: number, buffer: Uint8Array): Promise<number>;
  /** Concludes from what `tryRead` threw. Never throws. */
  failed(error: unknown): Promise<void>;
  /**
   * The hash of the first `length` bytes, read again; undefined where they cannot be, or `isWanted` says that nobody
   * waits any more. Never throws.
   */
  hashOfFirst(length: number, isWanted: () => boolean): Promise<Hash | undefined>;
}

/** Bytes hashed at a time. */
const HASH_SIZE = 2 ** 18;

async function hashOfFirst(
  blob: StoredBlob,
  { digest, length, isWanted }: {
    readonly digest: string;
    readonly length: number;
    readonly isWanted: () => boolean;
  },
): Promise<Hash | undefined> {
  const hash = createHasher(digest);
  const buffer = new Uint8Array(Math.min(HASH_SIZE, length));
  try {
    for (let at = 0; at < length;) {
      const n = isWanted() ? await blob.read(at, buffer.subarray(0, length - at)) : 0;
      if (n === 0) return undefined;
      hash.update(buffer.subarray(0, n));
      at += n;
    }
    return hash;
  } catch {
    return undefined; // what was read before tells nothing then
  }
}

/** The content store. */
export class Content {
  readonly space: Capacity;
  readonly #store: BlobStore;
  readonly #index: Index;
  readonly #stats: Stats;
  readonly #now: () => number;
  readonly #fills: Fills;
  readonly #checks = new SingleFlight<Verdict>();
  /** How much is pinned for being checked alone. */
  #checking = 0;
  readonly #memory = new ByteLru<Uint8Array<ArrayBuffer>>({
    bytes: MEMORY,
    sizeOf: ({ buffer }) => buffer.byteLength,
  });
  readonly #reads = new SingleFlight<Uint8Array<ArrayBuffer> | undefined>();
  /** Until when what was hashed is believed to be right, ms since the epoch. */
  readonly #hashed = new ByteLru<number>({ bytes: 2 ** 18 });
  #quietUntil = 0;
  readonly #condemning = new SingleFlight<void>();
  /** How often content could not be read while the store answered otherwise. */
  readonly #failures = new ByteLru<{ count: number; at: number }>({
    bytes: 2 ** 18,
    sizeOf: () => 64,
  });

  constructor(options: ContentOptions) {
    this.#store = options.store;
    this.#index = options.index;
    this.#stats = options.stats;
    this.#now = options.now ?? Date.now;
    const onRemoved = (digest: string) => {
      this.#memory.delete(digest);
      this.#hashed.delete(digest);
    };
    const space = this.space = new Capacity({ ...options, onRemoved });
    const keeper: FillKeeper = {
      admit: (bytes) => this.#admit(bytes),
      publish: (draft, content) => this.#publish(draft, content),
      pin: (digest) => space.pin(digest),
      diskTrouble: (error) => this.diskTrouble(error),
    };
    // Of the cap: what nobody may ever ask for again must not take the place of what is used.
    this.#fills = new Fills({ ...options, keeper, stoppedSize: options.maxSize / 8 });
  }

  /**
   * The row of content that is here, and whole; undefined also where the index cannot be read. What was
   * found in the store without a row is hashed before anybody is told of it.
   */
  async row(digest: string): Promise<BlobRow | undefined> {
    try {
      return await this.believed(await this.#index.blob(digest));
    } catch (error) {
      this.diskTrouble(error);
      return undefined;
    }
  }

  /** `row`, if what it tells of has been hashed or turns out right now. */
  async believed(row: BlobRow | undefined): Promise<BlobRow | undefined> {
    if (row?.verifiedAt !== 0) return row;
    try {
      const verdict = await this.#checks.run(row.digest, () => this.check(row));
      return verdict === "right" ? await this.#index.blob(row.digest) : undefined;
    } catch (error) {
      this.diskTrouble(error);
      return undefined;
    }
  }

  /** Opens content that is here, by the `row` that was just looked up; pinned until the reader is closed. */
  async open(digest: string, row?: BlobRow): Promise<OpenedContent | undefined> {
    const unpin = this.space.pin(digest);
    try {
      row ??= await this.row(digest);
      const blob = row && await this.#openWhole(row);
      if (blob) {
        this.space.use(digest);
        return this.#opened(row!, blob, unpin);
      }
    } catch (error) {
      this.diskTrouble(error);
    }
    unpin();
    return undefined;
  }

  #opened(row: BlobRow, blob: StoredBlob, unpin: () => void): OpenedContent {
    const { digest } = row;
    const { size, version } = blob;
    const tryRead = async (offset: number, buffer: Uint8Array) => {
      const n = await blob.read(offset, buffer);
      if (n === 0 && offset < size && buffer.byteLength > 0) throw new Error("cut short");
      return n;
    };
    const failed = (error: unknown) => this.#failed(row, error, version);
    return {
      size,
      version,
      createdAt: row.createdAt,
      tryRead,
      failed,
      /** Whoever asks for it next gets from upstream what cannot be read. */
      async read(offset, buffer) {
        try {
          return await tryRead(offset, buffer);
        } catch (error) {
          await failed(error);
          throw error;
        }
      },
      hashOfFirst: (length, isWanted) => hashOfFirst(blob, { digest, length, isWanted }),
      close() {
        blob.close();
        unpin();
      },
    };
  }

  /** Opens what the row says, if it is that: it may have been deleted or cut behind our back. */
  async #openWhole(row: BlobRow): Promise<StoredBlob | undefined> {
    const { digest } = row;
    let blob: StoredBlob | undefined;
    try {
      blob = await this.#store.open(digest);
    } catch (error) {
      if (isOutOfHandles(error)) throw error;
      await this.#failed(row, error);
      if (error instanceof UnreachableError) throw error;
      return undefined;
    }
    if (blob?.size === row.size) return blob;
    blob?.close();
    // Removed since the row was read, by us or by another instance: no damage.
    if (!await this.#index.blob(digest)) return undefined;
    const what = blob ? `${blob.size} bytes long, not ${row.size}` : "gone";
    await this.#damaged(row, { what, version: blob?.version });
    return undefined;
  }

  /** Notes that the content of `row` could not be read; what that tells of it depends on the `error`. Never throws. */
  async #failed(row: BlobRow, error: unknown, version?: string): Promise<void> {
    // The store is down, or what was opened has left it: neither says anything of what is there now.
    if (error instanceof UnreachableError || error instanceof BlobReplacedError) return;
    if (error instanceof BlobUnavailableError) {
      this.#stats.cacheEvents.add("read_failed");
      const { digest, createdAt } = row;
      const key = `${digest} ${createdAt}`;
      const at = this.#now();
      const last = this.#failures.get(key);
      const count = last && at - last.at < REMEMBER_FAILURE ? last.count + 1 : 1;
      this.#failures.set(key, { count, at });
      if (count < FAILURES) {
        const cause = causeOf(error);
        cacheLog.warn("Content of {digest} cannot be read: {cause}", { digest, cause });
        return;
      }
    }
    await this.#damaged(row, { what: causeOf(error), version });
  }

  /** Removes the content of `row`, unless other content has taken its place. Never throws. */
  async #damaged(
    { digest, createdAt }: BlobRow,
    { what, version }: { readonly what: string; readonly version?: string },
  ): Promise<void> {
    // Many may read it at once: all wait for the one that is faster.
    await this.#condemning.run(digest, async () => {
      try {
        const row = await this.#index.blob(digest);
        if (row?.createdAt !== createdAt) return;
        cacheLog.warn("Content of {digest} is damaged: {what}", { digest, what });
        await this.space.remove(digest, "damaged", version);
      } catch (error) {
        this.diskTrouble(error);
      }
    });
  }

  /** Hashes stored content. What is right is noted as such, what is not goes to quarantine. */
  async check(row: BlobRow, options?: CheckOptions): Promise<Verdict> {
    const { digest } = row;
    const unpin = this.space.pin(digest);
    this.#checking++;
    try {
      const stored = await this.#statIfAny(digest);
      const { verdict, version } = stored && stored.size !== row.size
        ? { verdict: "wrong" as const, version: undefined }
        : await checkStored(this.#store, digest, options);
      if (verdict === "right") await this.#index.setVerified(digest, this.#now());
      // Evicted meanwhile, or removed: no damage.
      else if (verdict === "gone" || !await this.#index.blob(digest)) return "gone";
      else await this.#damaged(row, { what: verdict, version });
      return verdict;
    } finally {
      this.#checking--;
      unpin();
    }
  }

  /** Hashes what is stored of `digest`, if anything is. Never throws. */
  async recheck(digest: string): Promise<void> {
    try {
      const row = await this.#index.blob(digest);
      if (row) await this.#checks.run(digest, () => this.check(row));
    } catch (error) {
      this.diskTrouble(error);
    }
  }

  /** What the store says of `digest`; undefined too where it says nothing of this one: reading it will tell. */
  async #statIfAny(digest: string): Promise<StoredEntry | undefined> {
    try {
      return await this.#store.stat(digest);
    } catch (error) {
      if (error instanceof BlobUnavailableError) return undefined;
      throw error;
    }
  }

  /**
   * Opens content as {@linkcode Content.open} does, hashed within the last minute: for what has to be right before
   * its first byte is sent, and is too large to be kept in memory for that.
   */
  async openHashed(digest: string, row?: BlobRow): Promise<StoredBlob | undefined> {
    try {
      row ??= await this.row(digest);
      if (!row) return undefined;
      const known = row;
      if ((this.#hashed.get(digest) ?? 0) <= this.#now()) {
        if (await this.#checks.run(digest, () => this.check(known)) !== "right") return undefined;
        this.#hashed.set(digest, this.#now() + HASHED_FOR);
      }
    } catch (error) {
      this.diskTrouble(error);
      return undefined;
    }
    return await this.open(digest, row);
  }

  /** What is kept in memory, bytes. */
  get remembered(): number {
    return this.#memory.bytes;
  }

  /** Removes from memory what has not been read since this was called the last time. */
  dropUnused(): void {
    this.#memory.dropUnused();
  }

  /**
   * All of content of at most 4 MiB that is here, hashed where it comes from the store. Throws an `OciError` (503) where too
   * much is under way.
   */
  async read(digest: string, row?: BlobRow): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const remembered = this.#memory.get(digest);
    if (remembered) {
      this.space.use(digest);
      return remembered;
    }
    return await this.#reads.run(digest, () => this.#read(digest, row));
  }

  async #read(digest: string, row?: BlobRow): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const blob = await this.open(digest, row);
    if (!blob) return undefined;
    let release: Release | undefined;
    try {
      // Whatever the index says that it is.
      if (blob.size > LARGEST_READ) return undefined;
      if (blob.size > SMALL) release = await reserveMemory(blob.size);
      const bytes = new Uint8Array(blob.size);
      for (let done = 0; done < bytes.byteLength;) {
        const n = await blob.read(done, bytes.subarray(done));
        if (n === 0) return undefined;
        done += n;
      }
      const { algorithm } = parseDigest(digest);
      if (digestOf(bytes, algorithm as StorableAlgorithm) !== digest) {
        await blob.failed(new Error("wrong"));
        return undefined;
      }
      this.#memory.set(digest, bytes);
      return bytes;
    } catch (error) {
      if (error instanceof OciError) throw error;
      this.diskTrouble(error);
      return undefined;
    } finally {
      release?.();
      blob.close();
    }
  }

  /** Stores verified `bytes`; false when there is no room or the disk fails. */
  async put(digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    if (await this.row(digest)) return true;
    const admission = await this.#admit(bytes.byteLength);
    if (!admission) return false;
    let draft: BlobWriter | undefined;
    try {
      draft = await this.#store.begin(digest);
      await draft.write(bytes);
      await this.#publish(draft, { digest, size: bytes.byteLength });
      this.#memory.set(digest, bytes);
      if (bytes.byteLength > SMALL) this.#hashed.set(digest, this.#now() + HASHED_FOR);
      return true;
    } catch (error) {
      this.diskTrouble(error);
      await draft?.discard();
      return false;
    } finally {
      admission.release();
    }
  }

  /** Makes a verified draft content. Throws where store or index fail: then it is not here. */
  #publish(draft: BlobWriter, { digest, size }: { digest: string; size: number }): Promise<void> {
    return this.space.change(digest, async () => {
      // Nothing is published that nobody would count.
      await this.space.note(digest);
      await draft.commit();
      const now = this.#now();
      try {
        await this.#index.addBlob({
          digest,
          size,
          createdAt: now,
          usedAt: now,
          verifiedAt: now,
        });
      } catch (error) {
        await this.#store.remove(digest).catch(() => {}); // nobody would count it
        throw error;
      }
    });
  }

  /** Whether somebody is filling or reading content: background work makes way then. */
  get isBusy(): boolean {
    return this.#fills.size > 0 || this.space.pinned > this.#checking;
  }

  /** The fill of `digest` under way that clients can still join. */
  filling(digest: string): Fill | undefined {
    return this.#fills.filling(digest);
  }

  /** Settles when the fill of `digest` under way, if any, is in the store or has come to nothing. */
  async settled(digest: string): Promise<void> {
    await this.#fills.settled(digest);
  }

  /** How many fills run that nobody reads, and how many were stopped and can be gone on with. */
  get unreadFills(): Fills["unread"] {
    return this.#fills.unread;
  }

  /** See {@linkcode Fills.takeStopped}. */
  async takeStopped(digest: string, origin: string): Promise<StoppedPart | undefined> {
    return await this.#fills.takeStopped(digest, origin);
  }

  /** See {@linkcode Fills.giveBack}. */
  async giveBackStopped(part: StoppedPart): Promise<void> {
    await this.#fills.giveBack(part);
  }

  /** Every fill under way. */
  get fills(): Iterable<Fill> {
    return this.#fills;
  }

  /**
   * Starts a fill, or joins the one that is under way: then `first` is cancelled. Undefined when there is no
   * room or the disk fails: then nothing of `first` was read.
   */
  async startFill(start: FillStart): Promise<Fill | undefined> {
    return await this.#fills.start(start);
  }

  /** Removes content with its links and tags. */
  async remove(digest: string, reason: EvictionReason): Promise<void> {
    await this.space.remove(digest, reason);
  }

  async #admit(bytes: number): Promise<Admission | undefined> {
    try {
      const admission = await this.space.reserve(bytes);
      if (!admission) this.#stats.cacheEvents.add("no_room");
      return admission;
    } catch (error) {
      this.diskTrouble(error);
      return undefined;
    }
  }

  /** Counts a failure of disk or index, and says so in the log once in a while. */
  diskTrouble(error: unknown): void {
    this.#stats.cacheEvents.add("disk_error");
    if (isDiskFull(error)) this.space.diskIsFull({ drafts: this.#fills.onDisk }).catch(() => {});
    const now = this.#now();
    if (now < this.#quietUntil) return;
    this.#quietUntil = now + QUIET;
    cacheLog.error("Cache trouble, serving without it: {cause}", { cause: causeOf(error) });
  }

  /** Ends: fills are waited for up to `grace` ms, and given up then. */
  async close(grace: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, grace));
    await Promise.race([this.#fills.ended(), limit]);
    clearTimeout(timer);
    await this.#fills.abort();
    await this.space.flush().catch((error) => this.diskTrouble(error));
  }
}
