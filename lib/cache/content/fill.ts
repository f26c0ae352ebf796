/**
 * A fill: the one upstream download of a digest. It writes a draft, hashes what it writes, and every
 * client follows the growing draft with a reader of its own, so that neither a slow client nor one that
 * leaves makes a difference to it, and memory does not grow with how far anybody lags.
 *
 * @module
 */
import type { Hash } from "node:crypto";
import { type ByteSource, streamOf } from "../../response/byte_source.ts";
import { trackAllocation } from "../../util/gc.ts";
import { createHasher, parseDigest } from "../../oci/digest.ts";
import type { Part } from "../../transforms/range.ts";
import { Download, MismatchError, type Source } from "../../upstream/download/download.ts";
import { verifiedStream } from "../../upstream/download/verified.ts";
import type { BlobWriter, ByteReader } from "../store/blob_store.ts";
import { type BufferRef, ChunkBuffer } from "./chunk_buffer.ts";

export type { Source } from "../../upstream/download/download.ts";

/** What a fill reports while it runs; each is called at most once for what it says. */
export interface FillObserver {
  /** The download broke at `offset` and is about to be taken up again. */
  resumed?(offset: number, cause: string): void;
  /** A client reads what another one's question began. */
  joined?(): void;
  /** A client, or somebody who makes an answer for one, has come: see {@linkcode Fill.hold}. */
  wanted?(): void;
  /** The last of them has left. */
  unwanted?(): void;
  /** `n` bytes came from upstream. */
  received?(n: number): void;
  /** Upstream's bytes are not the digest's: nothing is kept. */
  mismatched?(reason: string): void;
  /** The disk failed: clients are served from upstream, uncached. */
  diskFailed?(cause: unknown): void;
  /** What was written cannot be read: that client is served from upstream. Called once for each. */
  unreadable?(cause: unknown): void;
}

/** Options for {@linkcode Fill}. */
export interface FillOptions {
  readonly digest: string;
  /** For who watches: where it comes from. */
  readonly origin?: { readonly registry: string; readonly repository?: string };
  /** Upstream's Content-Length in bytes, where it gave one. */
  readonly size?: number;
  readonly draft: BlobWriter;
  readonly source: Source;
  /** The body that is already open, from byte 0, or from the end of what `resumes` has. */
  readonly first: ReadableStream<Uint8Array>;
  /** What an earlier fill that was stopped had written to the same draft. */
  readonly resumes?: StoppedFill;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  /** Called before the draft grows beyond `size`, or beyond any size where none is known; may refuse. */
  readonly grow?: (bytes: number) => Promise<boolean>;
  readonly observer?: FillObserver;
  /** Waits `ms`; tests pass one that does not. @default {setTimeout} */
  readonly sleep?: (ms: number) => Promise<void>;
}

/**
 * How a fill stands. `detached`: the disk failed, readers go on from upstream themselves. `stopped`: it was unwanted,
 * and another fill can go on where it ended.
 */
export type FillState = "running" | "verified" | "detached" | "failed" | "stopped";

/** What is left of a fill that was stopped. */
export interface StoppedFill {
  /** Bytes written and hashed. */
  readonly written: number;
  /** Of those. */
  readonly hash: Hash;
}

/**
 * What is read and written at once, and what may gather meanwhile before upstream is made to wait: more of it
 * while there are few fills. More than fetch has at a time is of no use.
 */
const PIECE = 2 ** 19;
const SMALL_PIECE = 2 ** 17;
const FEW = 8;
/** Reads that are kept for other clients of the same fill. */
const MOST_RECENT = 4;
/** A client that is less than this behind, bytes, is likely to read what others read too. */
const KEEPS_UP = 8 * 2 ** 20;

/** The draft could not be written. */
class DiskError extends Error {
  override readonly name = "DiskError";
}

/** Fills that have not ended. */
let running = 0;

/** One download under way, and what clients read from it. */
export class Fill {
  readonly digest: string;
  readonly startedAt: number = Date.now();
  readonly origin: FillOptions["origin"];
  #hasReader = false;
  /** Settles when the download has ended, however: see `state`. Never rejects. */
  readonly done: Promise<void>;
  size: number | undefined;

  readonly #options: FillOptions;
  readonly #hash: Hash;
  readonly #download: Download;
  #state: FillState = "running";
  #error: unknown;
  /** Bytes written and hashed. */
  #written = 0;
  /** Bytes that came. */
  #received = 0;
  #isStopped = false;
  /** What came, and is not written yet or was last. */
  readonly #pieces: ChunkBuffer;
  /** Writing; never rejects: see `#diskError`. */
  #writing: Promise<void> | undefined;
  #diskError: DiskError | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();
  #readers = 0;
  /** Readers, and who makes an answer that may become one. */
  #holders = 0;
  /** The last reads, by position. */
  readonly #recent = new Map<number, { length: number; bytes: Promise<Uint8Array<ArrayBuffer>> }>();

  /** Starts at once. The caller commits or discards the draft when `done`. */
  constructor(options: FillOptions) {
    this.#options = options;
    this.digest = options.digest;
    this.origin = options.origin;
    this.size = options.size;
    this.#hash = options.resumes?.hash ?? createHasher(options.digest);
    this.#written = this.#received = options.resumes?.written ?? 0;
    const most = ++running > FEW ? SMALL_PIECE : PIECE;
    this.#pieces = new ChunkBuffer(Math.max(1, Math.min(most, options.size ?? most)));
    this.#download = new Download({
      ...options,
      offset: this.#written,
      memory: this.#pieces,
      onResume: (offset, cause) => options.observer?.resumed?.(offset, cause),
    });
    this.done = this.#run();
  }

  get state(): FillState {
    return this.#isStopped && this.#state === "running" ? "stopped" : this.#state;
  }

  /** Why it failed. */
  get error(): unknown {
    return this.#error;
  }

  /** Settles when no client reads from it. */
  get unread(): Promise<void> {
    return this.#readers === 0 ? Promise.resolve() : this.#changed.promise.then(() => this.unread);
  }

  /** Settles when clients can have a byte of it, or it has ended. */
  get firstByte(): Promise<void> {
    const isBegun = this.#readable(this.size ?? Infinity) > 0 || this.#state !== "running";
    return isBegun ? Promise.resolve() : this.#changed.promise.then(() => this.firstByte);
  }

  /** Bytes that are here. */
  get received(): number {
    return this.#written;
  }

  /** Clients reading now. */
  get readers(): number {
    return this.#readers;
  }

  /**
   * Says that somebody wants it, until the returned function is called: from before its answer is made, which may turn out
   * to read nothing, to the end of that.
   */
  hold(): () => void {
    if (this.#holders++ === 0) this.#options.observer?.wanted?.();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      if (--this.#holders === 0) this.#options.observer?.unwanted?.();
    };
  }

  /** Whether nobody wants it. */
  get isUnwanted(): boolean {
    return this.#holders === 0;
  }

  /**
   * Stops the download, which nobody wants. `state` says so at once, and `stopped` what is left of it when it is
   * `done`. What has come whole is verified all the same: then this returns false.
   */
  stop(): boolean {
    if (this.state !== "running" || this.#received === this.size) return false;
    this.#isStopped = true;
    this.#download.cancel(new Error("Nobody reads it any more"));
    return true;
  }

  /** What is left of a fill that was stopped; undefined where another cannot go on from there. */
  get stopped(): StoppedFill | undefined {
    if (this.#state !== "stopped" || this.size === undefined || this.#written === 0) {
      return undefined;
    }
    return { written: this.#written, hash: this.#hash };
  }

  /** Gives the download up: it fails, and so do its clients. */
  abort(): void {
    this.#download.cancel(new Error("Given up"));
  }

  /**
   * The end of what a client may have that wants the first `wanted` bytes, or those up to there. The last of
   * them is withheld until the digest agrees, or more has come: it may be the last of all, whatever upstream
   * announced.
   */
  #readable(wanted: number): number {
    const isSettled = this.#state === "verified" || this.#state === "detached";
    if (isSettled || this.#written > wanted) return Math.min(this.#written, wanted);
    const last = Math.min(wanted, this.size ?? this.#written) - 1;
    return Math.max(0, Math.min(this.#written, last));
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  #end(state: FillState, error?: unknown): void {
    running--;
    this.#state = state;
    this.#error = error;
    this.#notify();
  }

  async #run(): Promise<void> {
    const { observer, grow } = this.#options;
    const download = this.#download;
    try {
      for (let chunk; (chunk = await download.read());) {
        this.#received += chunk.byteLength;
        observer?.received?.(chunk.byteLength);
        if (this.size === undefined && await grow?.(chunk.byteLength) === false) {
          this.#diskError = new DiskError("Cannot write to the cache", { cause: "no room" });
        }
        await this.#append(chunk);
      }
      await this.#writing;
      if (this.#diskError) throw this.#diskError;
      this.#verify();
    } catch (error) {
      download.cancel(error);
      await this.#writing;
      if (this.#diskError) {
        observer?.diskFailed?.(this.#diskError.cause);
        return this.#end("detached");
      }
      if (this.#isStopped) return this.#end("stopped");
      if (error instanceof MismatchError) observer?.mismatched?.(error.message);
      this.#end("failed", error);
    }
  }

  /** Takes `chunk`. Waits only while the disk is behind by a piece. */
  async #append(chunk: Uint8Array): Promise<void> {
    if (this.#diskError) throw this.#diskError;
    this.#pieces.push(chunk);
    this.#writing ??= this.#write();
    while (this.#pieces.isFull && !this.#diskError) {
      await Promise.race([this.#changed.promise, this.#writing]);
    }
  }

  /** Writes what has come, a piece at a time, until nothing waits. */
  async #write(): Promise<void> {
    try {
      for (let piece; (piece = this.#pieces.next());) {
        await this.#options.draft.write(piece);
        this.#hash.update(piece);
        this.#pieces.written(piece, this.#written);
        this.#written += piece.byteLength;
        this.#notify();
      }
    } catch (cause) {
      this.#diskError = new DiskError("Cannot write to the cache", { cause });
    } finally {
      this.#writing = undefined;
    }
  }

  #verify(): void {
    this.size ??= this.#written;
    const { encoded } = parseDigest(this.digest);
    const actual = this.#hash.copy().digest("hex");
    if (actual !== encoded) throw new MismatchError(`Digest of the body is ${actual}`);
    this.#end("verified");
  }

  /**
   * The bytes of `part` (all without one), as they come. Reading throws when the fill fails, which breaks
   * the client's connection; ending it does nothing to the fill. `onEnd` is called once, with the bytes
   * delivered and whether that was all.
   */
  source(
    part: Part | undefined,
    onEnd: (sent: number, complete: boolean) => void,
  ): ByteSource {
    const start = part?.start ?? 0;
    let position = start;
    let isOpen = true;
    let isAll = false;
    let reader: ByteReader | undefined;
    let loan: BufferRef | undefined;
    let rest: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
    const wanted = () => part ? part.end + 1 : this.size ?? Infinity;
    if (this.#hasReader) this.#options.observer?.joined?.();
    this.#hasReader = true;
    this.#readers++;
    const letGo = this.hold();
    const next = async (buffer: Uint8Array<ArrayBuffer>) => {
      while (isOpen && position < wanted()) {
        if (rest) return (await rest.read()).value;
        // What is known to be wrong nobody needs to the end.
        if (this.#error instanceof MismatchError) throw this.#error;
        const end = this.#readable(wanted());
        if (position < end) {
          loan = this.#pieces.lend(position, Math.min(end - position, buffer.byteLength));
          if (loan) return loan.bytes;
          const left = end - position;
          const target = left < buffer.byteLength ? buffer.subarray(0, left) : buffer;
          try {
            if (!reader) {
              const opened = await this.#options.draft.reader();
              if (!isOpen) return void opened.close(); // it left meanwhile
              reader = opened;
            }
            return await this.#read(reader, { position, buffer: target });
          } catch (error) {
            if (!isOpen) throw error;
            // The draft of a download that failed is removed: that is no trouble of the disk's.
            if (this.#state === "failed") throw this.#error;
            // What is written cannot be read, here or in the store that it has gone to.
            this.#options.observer?.unreadable?.(error);
            rest = this.#anew(position, part).getReader();
            continue;
          }
        }
        if (this.#state === "failed") throw this.#error;
        if (this.#state === "stopped") throw new Error("The download was stopped");
        if (this.#state === "verified") return undefined;
        if (this.#state === "detached") {
          rest = this.#rest(position, part).getReader();
          continue;
        }
        await this.#changed.promise;
      }
    };
    return {
      read: async (buffer) => {
        loan?.letGo(true); // it has been sent
        loan = undefined;
        const bytes = await next(buffer);
        if (bytes) position += bytes.byteLength;
        else isAll = isOpen;
        return bytes;
      },
      end: (sent) => {
        isOpen = false;
        this.#readers--;
        this.#notify(); // a read of this client may be waiting, and nobody else
        letGo();
        loan?.letGo(false); // the connection may have ended in the middle of it
        reader?.close();
        rest?.cancel().catch(() => {}); // broken already
        onEnd(sent, isAll || start + sent === wanted());
      },
    };
  }

  /** The same as a stream. */
  stream(
    part: Part | undefined,
    onEnd: (sent: number, complete: boolean) => void,
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    return streamOf(this.source(part, onEnd), part ? part.end + 1 - part.start : this.size);
  }

  /** Bytes that are here. Clients that keep up with the download are at the same place: one read is for all. */
  async #read(
    reader: ByteReader,
    { position, buffer }: { position: number; buffer: Uint8Array<ArrayBuffer> },
  ): Promise<Uint8Array<ArrayBuffer>> {
    const length = buffer.byteLength;
    const recent = this.#recent.get(position);
    if (recent && recent.length <= length) {
      // It is another client's read: if that one leaves in the middle of it, this one reads for itself.
      const bytes = await recent.bytes.catch(() => undefined);
      if (bytes) return bytes;
    }
    // Who lags is alone where it is, and so is the only client.
    const lag = this.#written - position;
    if (this.#readers === 1 || lag > KEEPS_UP) return await readNow(reader, { position, buffer });
    // Memory of its own: nobody may read something else into it while others send it.
    trackAllocation(length);
    const bytes = readNow(reader, { position, buffer: new Uint8Array(length) });
    this.#recent.set(position, { length, bytes });
    for (const oldest of this.#recent.keys()) {
      if (this.#recent.size <= MOST_RECENT) break;
      this.#recent.delete(oldest);
    }
    return await bytes;
  }

  /**
   * What upstream has from `position` on, for one client, verified from the first byte on. The client has had what was
   * written before, of which nobody knows yet whether it is right: that has to be the same.
   */
  #anew(position: number, wanted: Part | undefined): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { digest, size } = this;
    return verifiedStream(new Download({ ...this.#upstream(), offset: 0, size }), {
      digest,
      size,
      part: { start: position, end: wanted?.end ?? Infinity },
      before: { length: this.#written, hash: this.#hash.copy() },
    });
  }

  #upstream(): Pick<FillOptions, "source" | "idle" | "sleep"> {
    const { source, idle, sleep } = this.#options;
    return { source, idle, sleep };
  }

  /** What upstream still has, for one client, verified by the hash of what was written before. */
  #rest(position: number, wanted: Part | undefined): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { digest, size } = this;
    const offset = this.#written;
    const hash = this.#hash.copy();
    const part = { start: position, end: wanted?.end ?? Infinity };
    const download = new Download({ ...this.#upstream(), offset, size });
    return verifiedStream(download, { digest, hash, offset, size, part });
  }
}

async function readNow(
  reader: ByteReader,
  { position, buffer }: { position: number; buffer: Uint8Array<ArrayBuffer> },
): Promise<Uint8Array<ArrayBuffer>> {
  const n = await reader.read(position, buffer);
  if (n === 0) throw new Error("The draft is shorter than what was written to it");
  return n === buffer.byteLength ? buffer : buffer.subarray(0, n);
}
