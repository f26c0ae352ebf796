/**
 * What is left of fills that were stopped because nobody read them: kept for a while, so that whoever asks for the
 * same again gets what is here, and upstream is asked for the rest only.
 *
 * @module
 */
import { cacheLog } from "../../telemetry/log.ts";
import type { BlobWriter } from "../store/blob_store.ts";
import type { Admission } from "./capacity.ts";
import type { StoppedFill } from "./fill.ts";
import type { Claim } from "./claim.ts";

/** The right to publish a draft, which changes hands when another fill goes on with it. */
export interface Ownership {
  claim?: Claim;
}

/** What is left of one fill. */
export interface StoppedPart extends StoppedFill {
  readonly digest: string;
  /** Bytes of the whole. */
  readonly size: number;
  /** The registry and the repository: what another one sent may not be what this one has. */
  readonly origin: string;
  readonly draft: BlobWriter;
  readonly admission: Admission;
  readonly ownership: Ownership;
  /** How often going on with it came to nothing. */
  attempts?: number;
}

/** Bounds of {@linkcode StoppedFills}. */
export interface StoppedFillsOptions {
  /** Bytes of all of them. */
  readonly maxSize: number;
  /** Each is an open file. @default {32} */
  readonly maxCount?: number;
  /** ms. @default {600_000} */
  readonly keepFor?: number;
}

const MAX_COUNT = 32;
const KEEP_FOR = 10 * 60_000;
/** An upstream that sends no parts is asked for the whole then. */
const MAX_ATTEMPTS = 3;

/** What is left of all of them, by digest. */
export class StoppedFills {
  readonly #maxSize: number;
  readonly #maxCount: number;
  readonly #keepFor: number;
  /** The one that was stopped longest ago first. */
  readonly #parts = new Map<string, { part: StoppedPart; timer: ReturnType<typeof setTimeout> }>();
  #bytes = 0;

  constructor({ maxSize, maxCount = MAX_COUNT, keepFor = KEEP_FOR }: StoppedFillsOptions) {
    this.#maxSize = maxSize;
    this.#maxCount = maxCount;
    this.#keepFor = keepFor;
  }

  /** Bytes of what is kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** How many are kept. */
  get size(): number {
    return this.#parts.size;
  }

  /** Keeps `part`; those stopped longest ago make room for it. */
  async add(part: StoppedPart): Promise<void> {
    const { digest, written } = part;
    await this.#remove(digest);
    if (written > this.#maxSize) return await drop(part);
    const timer = setTimeout(() => void this.#remove(digest), this.#keepFor);
    Deno.unrefTimer(timer);
    this.#parts.set(digest, { part, timer });
    this.#bytes += written;
    for (const oldest of this.#parts.keys()) {
      if (this.#bytes <= this.#maxSize && this.#parts.size <= this.#maxCount) break;
      await this.#remove(oldest);
    }
  }

  /** Takes out what is kept of `digest` from `origin`: it is the caller's to go on with, or to drop. */
  take(digest: string, origin: string): StoppedPart | undefined {
    const part = this.#parts.get(digest)?.part;
    return part?.origin === origin ? this.#takeOut(digest) : undefined;
  }

  /** Takes back a part with which nobody could go on; after a few times it is dropped. */
  async giveBack(part: StoppedPart): Promise<void> {
    part.attempts = (part.attempts ?? 0) + 1;
    const isNewer = !this.#parts.has(part.digest);
    if (isNewer && part.attempts < MAX_ATTEMPTS) await this.add(part);
    else await drop(part);
  }

  /** Drops everything that is kept. */
  async clear(): Promise<void> {
    for (const digest of [...this.#parts.keys()]) await this.#remove(digest);
  }

  #takeOut(digest: string): StoppedPart | undefined {
    const kept = this.#parts.get(digest);
    if (!kept) return undefined;
    clearTimeout(kept.timer);
    this.#parts.delete(digest);
    this.#bytes -= kept.part.written;
    return kept.part;
  }

  async #remove(digest: string): Promise<void> {
    const part = this.#takeOut(digest);
    if (part) await drop(part);
  }
}

/** Gives up what is left of a fill. */
export async function drop({ digest, written, draft, admission }: StoppedPart): Promise<void> {
  cacheLog.debug("Dropping {bytes} bytes of {digest}, which was stopped", {
    digest,
    bytes: written,
  });
  await draft.discard();
  admission.release();
}
