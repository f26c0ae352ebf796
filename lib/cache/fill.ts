/**
 * A fill: the one upstream download of a digest. It writes a draft, hashes what it writes, and every
 * client follows the growing draft with a reader of its own, so that neither a slow client nor one that
 * leaves makes a difference to it, and memory does not grow with how far anybody lags.
 *
 * @module
 */
import type { Hash } from "node:crypto";
import { createHasher, parseDigest } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import type { Part } from "../transforms/range.ts";
import { concat, readWithin } from "../upstream/body.ts";
import { backoff, causeOf } from "../upstream/send.ts";
import { verifiedStream } from "../upstream/verified.ts";
import type { ByteReader, Draft } from "./blob_store.ts";

/** Where a fill's bytes come from. */
export interface Source {
  /** The body from byte `offset` on. Throws an `OciError` when upstream gives none. */
  open(offset: number): Promise<ReadableStream<Uint8Array>>;
}

/** What a fill reports while it runs; each is called at most once for what it says. */
export interface FillObserver {
  /** The download broke at `offset` and is taken up again. */
  resumed?(offset: number, cause: string): void;
  /** `n` bytes came from upstream. */
  received?(n: number): void;
  /** Upstream's bytes are not the digest's: nothing is kept. */
  mismatched?(reason: string): void;
  /** The disk failed: clients are served from upstream, uncached. */
  diskFailed?(cause: unknown): void;
}

/** Options for {@linkcode Fill}. */
export interface FillOptions {
  readonly digest: string;
  /** Upstream's Content-Length in bytes, where it gave one. */
  readonly size?: number;
  readonly draft: Draft;
  readonly source: Source;
  /** The body that is already open, from byte 0. */
  readonly first: ReadableStream<Uint8Array>;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  /** Called before the draft grows beyond `size`, or beyond any size where none is known; may refuse. */
  readonly grow?: (bytes: number) => Promise<boolean>;
  readonly observer?: FillObserver;
  /** Waits `ms`; tests pass one that does not. @default {setTimeout} */
  readonly sleep?: (ms: number) => Promise<void>;
}

/** How a fill stands. `detached`: the disk failed, readers go on from upstream themselves. */
export type FillState = "running" | "verified" | "detached" | "failed";

/** Attempts to resume without a byte of progress between them. */
const MAX_ATTEMPTS = 6;
/** Bytes received and not yet written before upstream is made to wait. */
const MAX_PENDING = 4 * 2 ** 20;
const LARGEST_READ = 2 ** 20;
const SMALLEST_READ = 2 ** 16;
/** What all readers of one fill together may have in buffers. */
const READ_BUDGET = 8 * 2 ** 20;

/** Upstream sent what it should not have; trying again from the middle cannot mend it. */
class MismatchError extends Error {
  override readonly name = "MismatchError";
}

/** The draft could not be written. */
class DiskError extends Error {
  override readonly name = "DiskError";
}

/** One download under way, and what clients read from it. */
export class Fill {
  readonly digest: string;
  readonly startedAt: number = Date.now();
  /** Settles when the download has ended, however: see `state`. Never rejects. */
  readonly done: Promise<void>;
  size: number | undefined;

  readonly #options: FillOptions;
  readonly #hash: Hash;
  #state: FillState = "running";
  #error: unknown;
  /** Bytes written and hashed. */
  #written = 0;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  /** Writing; never rejects: see `#diskError`. */
  #draining: Promise<void> | undefined;
  #diskError: DiskError | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();
  #readers = 0;

  /** Starts at once. The caller commits or discards the draft when `done`. */
  constructor(options: FillOptions) {
    this.#options = options;
    this.digest = options.digest;
    this.size = options.size;
    this.#hash = createHasher(options.digest);
    this.done = this.#run();
  }

  get state(): FillState {
    return this.#state;
  }

  /** Why it failed. */
  get error(): unknown {
    return this.#error;
  }

  /** Settles when no client reads from it. */
  get unread(): Promise<void> {
    return this.#readers === 0 ? Promise.resolve() : this.#changed.promise.then(() => this.unread);
  }

  /** Bytes that are here. */
  get received(): number {
    return this.#written;
  }

  /** Clients reading now. */
  get readers(): number {
    return this.#readers;
  }

  /** The end of what clients may have: the last byte is withheld until the digest agrees. */
  get #readable(): number {
    if (this.#state === "verified" || this.#state === "detached") return this.#written;
    return Math.max(0, this.#written - 1);
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  #end(state: FillState, error?: unknown): void {
    this.#state = state;
    this.#error = error;
    this.#notify();
  }

  async #run(): Promise<void> {
    const { source, observer, sleep = pause } = this.#options;
    let body: ReadableStream<Uint8Array> | undefined = this.#options.first;
    let attempts = 0;
    while (true) {
      const before = this.#written;
      try {
        body ??= await source.open(this.#written);
        await this.#pump(body);
        return this.#verify();
      } catch (error) {
        await this.#draining;
        if (this.#diskError) {
          observer?.diskFailed?.(this.#diskError.cause);
          return this.#end("detached");
        }
        if (error instanceof MismatchError) {
          observer?.mismatched?.(error.message);
          return this.#end("failed", error);
        }
        attempts = this.#written > before ? 1 : attempts + 1;
        if (attempts > MAX_ATTEMPTS || isFinal(error)) return this.#end("failed", error);
        observer?.resumed?.(this.#written, causeOf(error));
        body = undefined;
        await sleep(backoff(attempts));
      }
    }
  }

  /** Moves one body into the draft. Throws when it breaks, or is not what it should be. */
  async #pump(body: ReadableStream<Uint8Array>): Promise<void> {
    const reader = body.getReader();
    let received = this.#written;
    try {
      while (true) {
        const { done, value } = await readWithin(reader, this.#options.idle);
        if (done) break;
        received += value.byteLength;
        if (this.size !== undefined && received > this.size) {
          throw new MismatchError(`Body is longer than ${this.size} bytes`);
        }
        if (this.size === undefined && await this.#options.grow?.(value.byteLength) === false) {
          throw this.#diskError = new DiskError("Cannot write to the cache", { cause: "no room" });
        }
        if (this.#diskError) throw this.#diskError;
        this.#options.observer?.received?.(value.byteLength);
        this.#pending.push(value);
        this.#pendingBytes += value.byteLength;
        this.#draining ??= this.#drain();
        if (this.#pendingBytes > MAX_PENDING) await this.#draining;
      }
      await this.#draining;
      if (this.#diskError) throw this.#diskError;
    } catch (error) {
      reader.cancel(error).catch(() => {}); // whatever is still coming is of no use
      throw error;
    }
    if (this.size !== undefined && received < this.size) {
      throw new Error(`Body ended after ${received} of ${this.size} bytes`);
    }
  }

  /** Writes what is pending, all that has gathered at a time, until nothing is. */
  async #drain(): Promise<void> {
    try {
      while (this.#pendingBytes > 0) {
        const chunks = this.#pending;
        const bytes = this.#pendingBytes;
        this.#pending = [];
        const [first] = chunks;
        const chunk = chunks.length === 1 && first ? first : concat(chunks, bytes);
        await this.#options.draft.write(chunk);
        this.#hash.update(chunk);
        this.#written += bytes;
        this.#pendingBytes -= bytes;
        this.#notify();
      }
    } catch (cause) {
      this.#pending = [];
      this.#pendingBytes = 0;
      this.#diskError = new DiskError("Cannot write to the cache", { cause });
    } finally {
      this.#draining = undefined;
    }
  }

  #verify(): void {
    this.size ??= this.#written;
    const { encoded } = parseDigest(this.digest);
    const actual = this.#hash.copy().digest("hex");
    if (actual === encoded) return this.#end("verified");
    this.#options.observer?.mismatched?.(`Digest of the body is ${actual}`);
    this.#end("failed", new MismatchError("Upstream sent other content than the digest says"));
  }

  /**
   * The bytes of `part` (all without one), as they come. The stream errors when the fill fails, which
   * breaks the client's connection; cancelling it does nothing to the fill. `onEnd` is called once, with
   * the bytes delivered and whether that was all.
   */
  stream(
    part: Part | undefined,
    onEnd: (sent: number, complete: boolean) => void,
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    const start = part?.start ?? 0;
    let position = start;
    let reader: ByteReader | undefined;
    let rest: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
    let ended = false;
    const finish = (complete: boolean) => {
      if (ended) return;
      ended = true;
      this.#readers--;
      if (this.#readers === 0) this.#notify();
      reader?.close();
      onEnd(position - start, complete);
    };
    const next = async (): Promise<Uint8Array<ArrayBuffer> | undefined> => {
      reader ??= await this.#options.draft.reader();
      while (!ended) {
        const end = part ? part.end + 1 : this.size ?? Infinity;
        if (position >= end) return undefined;
        const available = Math.min(this.#readable, end) - position;
        if (available > 0) {
          const share = Math.floor(READ_BUDGET / this.#readers);
          const length = Math.min(
            available,
            Math.max(SMALLEST_READ, Math.min(LARGEST_READ, share)),
          );
          const buffer = new Uint8Array(length);
          const n = await reader.read(position, buffer);
          if (n === 0) throw new Error("The draft is shorter than what was written to it");
          return n === length ? buffer : buffer.subarray(0, n);
        }
        if (this.#state === "failed") throw this.#error;
        if (this.#state === "verified") return undefined;
        if (this.#state === "detached") {
          rest ??= (await this.#rest(position, end)).getReader();
          return (await rest.read()).value;
        }
        await this.#changed.promise;
      }
    };
    this.#readers++;
    return new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: async (controller) => {
        try {
          const chunk = await next();
          if (ended) return;
          if (!chunk) {
            finish(true);
            return controller.close();
          }
          position += chunk.byteLength;
          controller.enqueue(chunk);
        } catch (error) {
          finish(false);
          controller.error(error);
        }
      },
      cancel: async (reason) => {
        finish(false);
        await rest?.cancel(reason);
      },
    }, { highWaterMark: 0 });
  }

  /** What upstream still has, for one client, verified by the hash of what was written before. */
  async #rest(position: number, end: number): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const body = await this.#options.source.open(this.#written);
    return verifiedStream(body, {
      digest: this.digest,
      hash: this.#hash.copy(),
      offset: this.#written,
      size: this.size,
      part: { start: position, end: end - 1 },
      idle: this.#options.idle,
    });
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Whether upstream said no, rather than nothing: asking again would not help. */
function isFinal(error: unknown): boolean {
  return error instanceof OciError && error.status < 500 && error.status !== 429;
}
