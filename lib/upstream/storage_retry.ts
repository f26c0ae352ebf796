/**
 * When a host that a registry redirected to is asked again.
 *
 * @module
 */
import { retryAfterMs } from "../limits/quota.ts";
import { backoff } from "./transport/send.ts";

/** How often it is asked again before a client gets its answer. */
export const STORAGE_RETRIES = 2;

/** Trouble that passes: S3's SlowDown and InternalError, R2's 429, gateways on the way. */
const PASSING: ReadonlySet<number> = new Set([429, 500, 502, 503, 504]);
/** What storage answers to a presigned link that has ended meanwhile. */
const LINK_ENDED: ReadonlySet<number> = new Set([400, 401, 403, 410]);

/** Pauses double from this one on, ms. */
const FIRST_PAUSE = 400;
/** A longer Retry-After is cut to this, ms: a client is waiting. */
const LONGEST_PAUSE = 5_000;

/** What to do about an answer of storage's. */
export interface StorageRetry {
  /** How long to wait before, ms. */
  readonly pause: number;
  /** Whether the registry is to be asked for a new link, because the last one may have ended or leads to a host in trouble. */
  readonly anew: boolean;
}

/**
 * Whether and how to ask again after `response`, the answer of a host that a registry redirected to: the same link
 * first, then a new one of the registry's. Undefined where the answer is to be taken as it is. `retries`: how often it
 * was asked again already.
 */
export function storageRetry(
  { status, headers }: Response,
  { retries, now }: { retries: number; now: number },
): StorageRetry | undefined {
  if (retries >= STORAGE_RETRIES) return undefined;
  // Only of a link that has been waited with: one that is refused at first is refused for a reason.
  if (retries > 0 && LINK_ENDED.has(status)) return { pause: 0, anew: true };
  if (!PASSING.has(status)) return undefined;
  const fallback = backoff(retries + 1, FIRST_PAUSE);
  const pause = Math.min(
    retryAfterMs(headers.get("retry-after"), { now, fallback }),
    LONGEST_PAUSE,
  );
  return { pause, anew: retries > 0 };
}
