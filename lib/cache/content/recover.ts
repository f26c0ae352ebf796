/**
 * Opening a cache directory after whatever happened to it, and mending what happens while it is open.
 *
 * @module
 */
import { join } from "@std/path";
import { cacheLog } from "../../telemetry/log.ts";
import type { BlobStore, StoredEntry } from "../store/blob_store.ts";
import type { BlobRow, Index } from "../index/index.ts";
import { IndexCorruptError, setAside } from "../index/sqlite_file.ts";
import { SqliteIndex } from "../index/sqlite_index.ts";

/** How far content that is found in a store without a row is believed. */
export interface FoundOptions {
  /** Whether the store only ever has whole objects: what was committed was verified. @default {false} */
  readonly isWhole?: boolean;
  /** Whether somebody is at work on a digest: what it looks like now means nothing then. */
  readonly isRunning?: (digest: string) => Promise<boolean>;
  /** Called when an index that was lost has been filled from the store. */
  readonly onRebuilt?: () => void;
}

/** The row of content that was found in the store: on a disk not believed before it has been hashed. */
export function foundRow(
  { digest, size, storedAt }: StoredEntry,
  { isWhole = false }: FoundOptions = {},
): BlobRow {
  const verifiedAt = isWhole ? storedAt : 0;
  return { digest, size, createdAt: storedAt, usedAt: storedAt, verifiedAt };
}

/**
 * Settles what a crash left between store and index: drafts go, and each digest that was about to appear or
 * to go gets a row exactly if its bytes are there.
 */
export async function recover(
  store: BlobStore,
  index: Index,
  options: FoundOptions & { readonly pending?: readonly string[] } = {},
): Promise<void> {
  const { isRunning } = options;
  await store.sweep(isRunning);
  for (const digest of options.pending ?? await index.pending()) {
    if (await isRunning?.(digest)) continue;
    const entry = await store.stat(digest);
    if (entry) await index.restoreBlobs([foundRow(entry, options)]);
    else await index.removeBlob(digest);
    await index.clearPending(digest);
  }
}

/** Enters everything that is in the store; returns how many entries. For an index that was lost. */
export async function rebuild(
  store: BlobStore,
  index: Index,
  options?: FoundOptions,
): Promise<number> {
  let entries = 0;
  let rows: BlobRow[] = [];
  const enter = async () => {
    await index.restoreBlobs(rows);
    entries += rows.length;
    rows = [];
  };
  for await (const entry of store.list()) {
    if (rows.push(foundRow(entry, options)) === 500) await enter();
  }
  await enter();
  return entries;
}

/** What {@linkcode openIndex} found. */
export interface OpenedIndex {
  readonly index: SqliteIndex;
  /** Whether the process before this one ended without closing it. */
  readonly wasKilled: boolean;
}

/**
 * Opens the index in `dir`. One that is damaged is set aside, and one that is missing or new is filled
 * from the store: links and tags are asked of upstream again, content is not. `onDamaged` is called when it
 * turns out to be damaged later. Throws an `IndexLockedError` when another process has it.
 */
export async function openIndex(
  dir: string,
  options: FoundOptions & {
    readonly store: BlobStore;
    readonly onDamaged?: () => void;
    /** What the index may take, bytes. @default {256 MiB} */
    readonly size?: number;
    /** Whether the caller compares store and index: the store may be away now. @default {false} */
    readonly isElsewhere?: boolean;
  },
): Promise<OpenedIndex> {
  const { store, onDamaged, size } = options;
  const path = join(dir, "index.sqlite");
  // SQLite removes it when it is closed.
  const wasKilled = await exists(`${path}-wal`);
  const openOnce = async () => {
    const index = new SqliteIndex(path, { onDamaged, size });
    try {
      if (options.isElsewhere) return index;
      if (index.isNew) await rebuildLoudly(store, index, options);
      await recover(store, index, options);
      return index;
    } catch (error) {
      index.close();
      throw error;
    }
  };
  try {
    return { index: await openOnce(), wasKilled };
  } catch (error) {
    if (!(error instanceof IndexCorruptError)) throw error;
    tellDamage(path, error.message);
    setAside(path, damagedPath(path));
    return { index: await openOnce(), wasKilled: false };
  }
}

/** Replaces an index that is open and damaged, as {@linkcode openIndex} would; `refill` fills the new one. */
export async function replaceIndex(
  dir: string,
  { index, refill }: { readonly index: SqliteIndex; readonly refill: () => Promise<void> },
): Promise<void> {
  const path = join(dir, "index.sqlite");
  tellDamage(path, "found while it was in use");
  index.replace(damagedPath(path));
  await refill();
}

function damagedPath(path: string): string {
  return `${path}.damaged`;
}

function tellDamage(path: string, cause: string): void {
  cacheLog.error("Index is damaged, rebuilding it: {cause}", { cause, aside: damagedPath(path) });
}

/** {@linkcode rebuild}, with what it came to in the log. */
export async function rebuildLoudly(
  store: BlobStore,
  index: Index,
  options?: FoundOptions,
): Promise<void> {
  const entries = await rebuild(store, index, options);
  if (entries === 0) return;
  cacheLog.info("Rebuilt the index from {entries} stored entries", { entries });
  options?.onRebuilt?.();
}

/**
 * Says that stored content is of no use where upstream is never asked and the index was lost: the store does not tell
 * which repository a digest belongs to. Throws what the index throws.
 */
export async function warnOfLostIndex(index: Pick<Index, "totals" | "tagCount">): Promise<void> {
  const { entries } = await index.totals();
  if (entries === 0 || await index.tagCount() > 0) return;
  cacheLog.error(
    "The index knows no tag of the {entries} stored entries, and with OFFLINE nobody can be asked: restore a backup " +
      "of the index, or warm the images once without OFFLINE",
    { entries },
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}
