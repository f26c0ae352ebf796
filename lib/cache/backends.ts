/**
 * Store and index of one cache, opened.
 *
 * @module
 */
import type { BlobStore } from "./store/blob_store.ts";
import type { Leader } from "./cluster/leader.ts";
import { FileStore } from "./store/file_store.ts";
import type { Index } from "./index/index.ts";
import type { Coordinator } from "./cluster/coordinator.ts";
import { openIndex, rebuildLoudly, replaceIndex } from "./content/recover.ts";

/** What a cache keeps its content and its facts in. */
export interface Backends {
  readonly store: BlobStore;
  readonly index: Index;
  /** Where several instances have them in common: which one hashes all content in the background, and compares store and index. */
  readonly leader?: Pick<Leader, "isOurs">;
  /** Whether store and index may disagree, because the machine may have gone down with the last process. */
  readonly wasKilled: boolean;
  /** Present where several instances have them in common. */
  readonly together?: Coordinator;
  /** Whether an instance is at work on a digest, where there are several. */
  isRunning?(digest: string): Promise<boolean>;
  /** Whether the index knows all of the store, and is not being rebuilt. @default {it does} */
  isIndexWhole?(): Promise<boolean>;
  /** What makes a damaged index whole again; undefined where its engine does that itself. */
  readonly repair?: () => Promise<void>;
  close(): Promise<void>;
}

/** Hears what happens to engines while they are open. */
export interface BackendEvents {
  /** The index turned out to be damaged: `repair` mends it. Nothing should be admitted meanwhile. */
  onDamaged(): void;
  /** The index was lost, and has been filled from the store: links and tags are not in it. */
  onRebuilt?(): void;
}

/**
 * Files and SQLite in `dir`; the index may take `indexSize` bytes, 256 MiB where nothing is said. Throws an `IndexLockedError` when another process has it, else what the disk
 * throws.
 */
export async function openEmbedded(
  dir: string,
  events: BackendEvents,
  { indexSize }: { readonly indexSize?: number } = {},
): Promise<Backends> {
  const store = new FileStore(dir);
  const { index, wasKilled } = await openIndex(dir, {
    store,
    size: indexSize,
    onDamaged: () => events.onDamaged(),
    onRebuilt: () => events.onRebuilt?.(),
  });
  let isWhole = true;
  return {
    store,
    index,
    wasKilled,
    isIndexWhole: () => Promise.resolve(isWhole),
    async repair() {
      isWhole = false;
      const refill = () => rebuildLoudly(store, index, events);
      await replaceIndex(dir, { index, refill });
      isWhole = true;
    },
    // deno-lint-ignore require-await -- SQLite is done at once
    close: async () => index.close(),
  };
}
