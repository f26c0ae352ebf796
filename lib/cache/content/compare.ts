/**
 * The store's listing compared with the index, again and again: content that nobody counts goes, so that the cap
 * holds whatever was refused or lost, and so do rows whose content is gone.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { cacheLog } from "../../telemetry/log.ts";
import type { BlobStore } from "../store/blob_store.ts";
import type { Capacity } from "./capacity.ts";
import type { BlobRow, Index } from "../index/index.ts";

/** What is compared. */
export interface CompareTarget {
  readonly store: Pick<BlobStore, "list" | "stat" | "remove">;
  readonly index: Pick<Index, "blob" | "blobs" | "removeBlob" | "clearPending" | "totals">;
  readonly space: Pick<Capacity, "change">;
}

/** Options for {@linkcode compare}. */
export interface CompareOptions {
  /** Ends it; the returned promise rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Whether another instance is at work on a digest. @default {none is} */
  readonly isRunning?: (digest: string) => Promise<boolean>;
  /** Whether the index knows all of the store: one that was lost is filled first. @default {it does} */
  readonly isIndexWhole?: () => Promise<boolean>;
  /** How long content and rows are left alone, ms: somebody may be about to note or to publish. @default {120000} */
  readonly grace?: number;
  /** Waits `ms`; tests pass one that does not. */
  readonly wait?: (ms: number) => Promise<unknown>;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** What a comparison came to. */
export interface Comparison {
  /** Content that had no row, and was removed. */
  readonly orphans: number;
  /** Rows that had no content, and were removed. */
  readonly missing: number;
}

const GRACE = 2 * 60_000;
/** Entries that are compared at a time, and the pause after them, ms: at most some 2,500 a second. */
const PAGE = 500;
const PAUSE = 200;

/**
 * Compares once. Throws what store and index throw: what was removed until then stays removed, and the next
 * comparison begins anew.
 */
export async function compare(
  { store, index, space }: CompareTarget,
  options: CompareOptions = {},
): Promise<Comparison> {
  const { signal, isRunning, grace = GRACE, now = Date.now } = options;
  const isIndexWhole = options.isIndexWhole ?? (() => Promise.resolve(true));
  if (!await isIndexWhole()) return { orphans: 0, missing: 0 };
  const wait = options.wait ?? ((ms) => delay(ms, undefined, { signal, ref: false }));
  const began = now();
  const listed = new DigestFilter((await index.totals()).entries);
  let orphans = 0;
  let missing = 0;
  let seen = 0;
  const pause = async () => {
    signal?.throwIfAborted();
    if (++seen % PAGE === 0) await wait(PAUSE);
  };
  for await (const { digest, storedAt } of store.list()) {
    await pause();
    listed.add(digest);
    if (storedAt > began - grace || await index.blob(digest)) continue;
    if (await isRunning?.(digest)) continue;
    // Looked at again while nobody here publishes or removes it.
    await space.change(digest, async () => {
      const entry = await store.stat(digest);
      if (!entry || entry.storedAt > began - grace || await index.blob(digest)) return;
      // The index may have been lost a moment ago, and says of nothing that it is here.
      if (!await isIndexWhole()) return;
      await store.remove(digest);
      await index.clearPending(digest);
      orphans++;
    });
  }
  const isMissing = async (row: BlobRow | undefined) =>
    row !== undefined && row.createdAt < began - grace && !await store.stat(row.digest);
  for await (const row of index.blobs()) {
    await pause();
    const { digest, createdAt } = row;
    if (listed.has(digest) || createdAt > began - grace || await isRunning?.(digest)) continue;
    await space.change(digest, async () => {
      if (!await isMissing(await index.blob(digest))) return;
      await index.removeBlob(digest);
      missing++;
    });
  }
  if (orphans > 0 || missing > 0) {
    cacheLog.info(
      "Store and index differed: {orphans} entries without a row, {missing} rows without content",
      {
        orphans,
        missing,
      },
    );
  }
  return { orphans, missing };
}

/** Bits for each entry: one in a thousand that was not listed is taken for listed, until the next comparison. */
const BITS = 16;
const HASHES = 4;

/** Which digests were listed, in two bytes each. Another one each time, so that what one errs about the next finds. */
class DigestFilter {
  readonly #bits: Uint32Array;
  /** Where in the digest its numbers are read. */
  readonly #offset = Math.floor(Math.random() * 20);

  constructor(entries: number) {
    this.#bits = new Uint32Array(Math.ceil((entries + 1_000) * BITS / 32));
  }

  /** Digests are evenly spread already. */
  *#places(digest: string): Iterable<number> {
    const start = digest.indexOf(":") + 1 + this.#offset;
    for (let i = 0; i < HASHES; i++) {
      const number = parseInt(digest.slice(start + i * 10, start + i * 10 + 10), 16);
      yield number % (this.#bits.length * 32);
    }
  }

  add(digest: string): void {
    for (const place of this.#places(digest)) this.#bits[place >>> 5]! |= 1 << (place & 31);
  }

  has(digest: string): boolean {
    for (const place of this.#places(digest)) {
      if ((this.#bits[place >>> 5]! & 1 << (place & 31)) === 0) return false;
    }
    return true;
  }
}
