/**
 * Opening a cache directory after whatever happened to it.
 *
 * @module
 */
import { join } from "@std/path";
import { cacheLog } from "../log.ts";
import type { BlobStore } from "./blob_store.ts";
import type { Index } from "./index.ts";
import { IndexCorruptError, SqliteIndex } from "./sqlite_index.ts";

/**
 * Settles what a crash left between files and rows: drafts go, and each digest that was about to appear or
 * to go gets a row exactly if its file is there. A file is only ever there whole and verified.
 */
export async function recover(store: BlobStore, index: Index): Promise<void> {
  await store.sweep();
  for (const digest of await index.unsettled()) {
    const size = await store.size(digest);
    if (size === undefined) await index.removeBlob(digest);
    else if (!await index.blob(digest)) await index.addBlob(digest, size, Date.now());
    await index.settle(digest);
  }
}

/** Enters everything that is in the store; returns how many entries. For an index that was lost. */
export async function rebuild(store: BlobStore, index: Index): Promise<number> {
  let entries = 0;
  for await (const { digest, size } of store.list()) {
    await index.addBlob(digest, size, Date.now());
    entries++;
  }
  return entries;
}

/**
 * Opens the index in `dir`. One that is damaged is set aside, and one that is missing or new is filled
 * from the store: links and tags are asked of upstream again, content is not. Throws an
 * `IndexLockedError` when another process has it.
 */
export async function openIndex(dir: string, store: BlobStore): Promise<Index> {
  const path = join(dir, "index.sqlite");
  let index: SqliteIndex;
  try {
    index = new SqliteIndex(path);
  } catch (error) {
    if (!(error instanceof IndexCorruptError)) throw error;
    const aside = `${path}.damaged`;
    cacheLog.error("{error}: set aside as {aside}, rebuilding", { error: error.message, aside });
    for (const suffix of ["-wal", "-shm"]) {
      await Deno.remove(path + suffix).catch(() => {}); // they belong to the damaged file
    }
    await Deno.rename(path, aside);
    index = new SqliteIndex(path);
  }
  if (index.isNew) {
    const entries = await rebuild(store, index);
    if (entries > 0) cacheLog.info("Rebuilt the index from {entries} stored entries", { entries });
  }
  await recover(store, index);
  return index;
}
