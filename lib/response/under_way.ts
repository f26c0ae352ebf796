/**
 * The memory of requests and answers under way: what a client has not sent all of, and what it has not taken yet.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { MemoryBudget, type Release } from "../util/memory_budget.ts";

/** All of it together, bytes. Buffers for stored blobs have a share of their own: see `Buffers`. */
const LIMIT = 32 * 2 ** 20;
/** How long an answer waits for memory, ms: clients give up an answer later than that. */
const PATIENCE = 5_000;

/** What all requests and answers under way in this process share. */
export const underWay = new MemoryBudget({ limit: LIMIT });

/** Waits for memory. Throws an `OciError` (503) where there is none in good time. */
export async function reserveMemory(bytes: number, budget = underWay): Promise<Release> {
  const release = await budget.reserve(bytes, PATIENCE);
  if (release) return release;
  throw noMemory();
}

/** What a client is told that there is no memory for: 503. */
export function noMemory(): OciError {
  return new OciError("TOOMANYREQUESTS", "Too much is under way: try again", {
    status: 503,
    headers: { "retry-after": "5" },
  });
}

/** Content in memory that is being sent. */
export interface HeldBytes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly release: Release;
}

/** Content in memory that is being sent: one buffer for all answers with the same digest. */
export class SharedBytes {
  readonly #budget: MemoryBudget;
  readonly #held = new Map<string, { readonly bytes: Uint8Array<ArrayBuffer>; holders: number }>();

  constructor(budget: MemoryBudget) {
    this.#budget = budget;
  }

  /** How many digests are held. */
  get size(): number {
    return this.#held.size;
  }

  /** Holds the bytes of `digest`: `bytes`, or in place of them what others hold already. */
  hold(digest: string, bytes: Uint8Array<ArrayBuffer>): HeldBytes {
    let held = this.#held.get(digest);
    if (!held) {
      this.#held.set(digest, held = { bytes, holders: 0 });
      this.#budget.add(bytes.byteLength);
    }
    held.holders++;
    let isHeld = true;
    return {
      bytes: held.bytes,
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        if (--held.holders > 0) return;
        this.#held.delete(digest);
        this.#budget.remove(bytes.byteLength);
      },
    };
  }
}

/** Of all answers in this process. */
export const sharedBytes = new SharedBytes(underWay);
