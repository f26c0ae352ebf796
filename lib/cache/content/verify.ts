/**
 * Comparing the store with the index and with itself: what is not right is moved aside, and fetched again
 * when somebody asks for it.
 *
 * @module
 */
import { cacheLog } from "../../telemetry/log.ts";
import type { BlobStore } from "../store/blob_store.ts";
import type { Verdict } from "./check.ts";
import type { Content } from "./content.ts";
import type { Index } from "../index/index.ts";
import { foundRow } from "./recover.ts";

/** A cache as far as it can be verified; an open `Cache` is one. */
export interface VerifyTarget {
  readonly content: Content;
  readonly index: Index;
  readonly store: BlobStore;
}

/** How far a verification is. */
export interface VerifyProgress {
  /** Entries and bytes that were looked at. */
  readonly entries: number;
  readonly bytes: number;
  /** What was there when it began. */
  readonly totalEntries: number;
  readonly totalBytes: number;
  /** Entries that were not right. */
  readonly wrong: number;
}

/** An entry that was not right, and what was the matter with it. */
export interface VerifyProblem {
  readonly digest: string;
  readonly problem: Exclude<Verdict, "right" | "gone">;
}

/** What a verification came to. */
export interface VerifyReport extends VerifyProgress {
  /** Entries that were in the store and not in the index, and are in both now. */
  readonly found: number;
  /** The first of what was not right; `wrong` counts all. */
  readonly problems: readonly VerifyProblem[];
}

/** Options for {@linkcode verify} and {@linkcode reconcile}. */
export interface VerifyOptions {
  /** Ends it; the returned promise rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Called after every entry and every MiB. */
  readonly onProgress?: (progress: VerifyProgress) => void;
  /** Waited for after each read of some bytes. */
  readonly afterRead?: (bytes: number) => Promise<void> | void;
}

/** A report does not grow beyond so many problems. */
const MAX_PROBLEMS = 1_000;

/**
 * Hashes everything that is stored. Returns what it found; what was wrong has left for quarantine by then.
 * Throws what the index throws.
 */
export async function verify(
  target: VerifyTarget,
  { signal, onProgress, afterRead }: VerifyOptions = {},
): Promise<VerifyReport> {
  const found = await reconcile(target, { signal });
  const totals = await target.index.totals();
  const problems: VerifyProblem[] = [];
  let entries = 0;
  let bytes = 0;
  let wrong = 0;
  const progress = (): VerifyProgress => ({
    entries,
    bytes,
    wrong,
    totalEntries: totals.entries,
    totalBytes: totals.bytes,
  });
  for await (const row of target.index.blobs()) {
    signal?.throwIfAborted();
    const verdict = await target.content.check(row, {
      signal,
      afterRead: async (n) => {
        bytes += n;
        onProgress?.(progress());
        await afterRead?.(n);
      },
    });
    entries++;
    if (verdict !== "right" && verdict !== "gone") {
      wrong++;
      if (problems.length < MAX_PROBLEMS) problems.push({ digest: row.digest, problem: verdict });
    }
    onProgress?.(progress());
  }
  cacheLog.info("Verified {entries} entries, {wrong} were wrong", { entries, bytes, wrong, found });
  return { ...progress(), found, problems };
}

/**
 * Enters stored content that the index does not know, as after a power failure; returns how much that was.
 * `afterRead` is called once per entry.
 */
export async function reconcile(
  { content, index, store }: VerifyTarget,
  { signal, afterRead }: Pick<VerifyOptions, "signal" | "afterRead"> = {},
): Promise<number> {
  let found = 0;
  for await (const { digest } of store.list()) {
    signal?.throwIfAborted();
    await afterRead?.(0);
    if (await index.blob(digest)) continue;
    // Looked at again while nobody publishes or removes it.
    await content.space.change(digest, async () => {
      const entry = await store.stat(digest);
      if (!entry || await index.blob(digest)) return;
      await index.restoreBlobs([foundRow(entry)]);
      found++;
    });
  }
  if (found > 0) {
    cacheLog.info("Found {found} stored entries that the index did not know", { found });
    await content.space.trim();
  }
  return found;
}
