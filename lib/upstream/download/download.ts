/**
 * A body that is taken up again where it broke, so that who reads it does not notice.
 *
 * @module
 */
import { OciError } from "../../oci/error.ts";
import { ChunksError } from "./body.ts";
import { ChunkReader, type Chunks, type Memory } from "./chunks.ts";
import { backoff, causeOf } from "../transport/send.ts";

/** Where the bytes of one content come from. */
export interface Source {
  /**
   * The body from byte `offset` on. Throws an `OciError` when upstream gives none, and `signal`'s reason when
   * it is given up.
   */
  open(offset: number, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>>;
  /**
   * Called when the whole is not what its digest says. Returns whether some of it came from somewhere else than upstream:
   * then the source has said so, and upstream may be innocent.
   */
  mismatched?(reason: string): boolean;
}

/** Upstream sent what it should not have; trying again from the middle cannot mend it. */
export class MismatchError extends Error {
  override readonly name = "MismatchError";
}

/** Options for {@linkcode Download}. */
export interface DownloadOptions {
  readonly source: Source;
  /** The body that is already open, from byte `offset` on. */
  readonly first?: ReadableStream<Uint8Array>;
  /** @default {0} */
  readonly offset?: number;
  /** Of the whole content in bytes, where it is known. */
  readonly size?: number;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  /** See `ChunkReaderOptions`. */
  readonly memory?: Memory;
  /** Called when it broke at `offset` and is about to be taken up again. */
  readonly onResume?: (offset: number, cause: string) => void;
  /** Waits `ms`; tests pass one that does not. @default {setTimeout} */
  readonly sleep?: (ms: number) => Promise<void>;
}

/** Attempts without a byte of progress between them. */
const MAX_FRUITLESS = 6;
/** Attempts in all: these, and one for each of so many bytes. One byte per attempt is no progress. */
const MAX_ATTEMPTS = 32;
const BYTES_PER_ATTEMPT = 64 * 1024;

/** One content on its way from upstream. */
export class Download implements Chunks {
  readonly #options: DownloadOptions;
  #reader: ChunkReader | undefined;
  #offset: number;
  /** Attempts since the last byte, and in all. */
  #fruitless = 0;
  #attempts = 0;
  /** Aborted when nobody reads it any more. */
  readonly #end = new AbortController();

  constructor(options: DownloadOptions) {
    this.#options = options;
    this.#offset = options.offset ?? 0;
    if (options.first) this.#reader = new ChunkReader(options.first, options);
  }

  /**
   * The next chunk; undefined at the end. Throws a {@linkcode MismatchError} when the content is longer
   * than its size, and what happened last when taking it up again does not help.
   */
  async read(): Promise<Uint8Array | undefined> {
    const { size } = this.#options;
    while (true) {
      try {
        this.#end.signal.throwIfAborted();
        this.#reader ??= await this.#open();
        const chunk = await this.#reader.read();
        this.#end.signal.throwIfAborted();
        if (chunk) {
          this.#offset += chunk.byteLength;
          this.#fruitless = 0;
          if (size !== undefined && this.#offset > size) {
            throw new MismatchError(`Body is longer than ${size} bytes`);
          }
          return chunk;
        }
        if (size === undefined || this.#offset === size) return undefined;
        throw new Error(`Body ended after ${this.#offset} of ${size} bytes`);
      } catch (error) {
        this.#close(error);
        this.#end.signal.throwIfAborted();
        // The end of the connection is missing, and nothing of the content.
        if (this.#offset === size) return undefined;
        if (!this.#mayResume(error)) throw error;
        this.#options.onResume?.(this.#offset, causeOf(error));
        await this.#pause(backoff(this.#fruitless));
      }
    }
  }

  async #open(): Promise<ChunkReader> {
    const { signal } = this.#end;
    const body = await this.#options.source.open(this.#offset, signal);
    const reader = new ChunkReader(body, this.#options);
    if (signal.aborted) reader.cancel();
    signal.throwIfAborted();
    return reader;
  }

  #mayResume(error: unknown): boolean {
    this.#fruitless++;
    this.#attempts++;
    if (error instanceof MismatchError || isFinal(error)) return false;
    return this.#fruitless <= MAX_FRUITLESS &&
      this.#attempts <= MAX_ATTEMPTS + this.#offset / BYTES_PER_ATTEMPT;
  }

  async #pause(ms: number): Promise<void> {
    const { sleep } = this.#options;
    if (sleep) return await sleep(ms);
    const { signal } = this.#end;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(end, ms);
      signal.addEventListener("abort", end);
      function end() {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      }
    });
  }

  #close(reason?: unknown): void {
    this.#reader?.cancel(reason);
    this.#reader = undefined;
  }

  /** Ends it. A `read` under way throws `reason`. */
  cancel(reason: unknown = new Error("Nobody reads it any more")): void {
    this.#end.abort(reason);
    this.#close(reason);
  }
}

/** Whether upstream said no, rather than nothing, or byte by byte: asking again would not help. */
function isFinal(error: unknown): boolean {
  return error instanceof ChunksError ||
    error instanceof OciError && error.status < 500 && error.status !== 429;
}
