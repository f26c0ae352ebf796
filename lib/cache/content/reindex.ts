/**
 * What an index here has still to learn of a store elsewhere. That may be away when the instance starts, and
 * clients do not wait for it: it is done when the store can be reached.
 *
 * @module
 */
import { join } from "@std/path";
import { cacheLog } from "../../telemetry/log.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import { createPrivateFile } from "../../util/private_files.ts";
import { type BlobStore, UnreachableError } from "../store/blob_store.ts";
import type { Index } from "../index/index.ts";
import { type FoundOptions, rebuildLoudly, recover } from "./recover.ts";

/** Options for {@linkcode Reindex}. */
export interface ReindexOptions extends FoundOptions {
  readonly store: BlobStore;
  readonly index: Index;
  /** Where it is noted that the index does not know all of the store yet. */
  readonly dir: string;
  /** Whether the index has just been made. */
  readonly isNew: boolean;
}

/** The comparison of store and index that an instance owes. */
export class Reindex {
  readonly #options: ReindexOptions;
  readonly #note: string;
  /** What the last process left unsettled: what is noted from now on is somebody's work. */
  readonly #left: readonly string[];
  #isDone = false;
  #running: Promise<void> | undefined;

  private constructor(options: ReindexOptions, left: readonly string[]) {
    this.#options = options;
    this.#left = left;
    this.#note = join(options.dir, "index.incomplete");
  }

  /** Takes stock before anything happens. Throws what disk or index throw. */
  static async begin(options: ReindexOptions): Promise<Reindex> {
    const catchUp = new Reindex(options, await options.index.pending());
    // A file: the next process has to go on where this one dies.
    if (options.isNew) createPrivateFile(catchUp.#note);
    return catchUp;
  }

  /** Whether the index knows all of the store. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** Owes a comparison again: the index is about to be replaced by an empty one. Throws what the disk throws. */
  doubt(): void {
    createPrivateFile(this.#note);
    this.#isDone = false;
  }

  /** Does what is still to be done, if it can be done now. Never throws. */
  async run(): Promise<void> {
    if (this.#isDone) return;
    this.#running ??= this.#attempt().finally(() => this.#running = undefined);
    await this.#running;
  }

  /** Whether it is noted that the index does not know all of the store. */
  async #isOwed(): Promise<boolean> {
    return await Deno.stat(this.#note).then(() => true, () => false);
  }

  async #attempt(): Promise<void> {
    const { store, index } = this.#options;
    try {
      if (await this.#isOwed()) {
        await rebuildLoudly(store, index, this.#options);
        await Deno.remove(this.#note);
      }
      await recover(store, index, { ...this.#options, pending: this.#left });
      // It may have been lost again meanwhile.
      this.#isDone = !await this.#isOwed();
    } catch (error) {
      if (error instanceof UnreachableError) return; // told already; again when it is back
      cacheLog.warn("Cannot compare store and index: {cause}", { cause: causeOf(error) });
    }
  }
}
