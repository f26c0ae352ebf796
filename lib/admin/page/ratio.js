/**
 * Computes the cache's hit ratio.
 *
 * @module
 */

/** Counts requests that a cache can answer: not tokens, health checks or uncacheable requests. */
export function contentRequests({ hit, stale, miss }) {
  return hit + stale + miss;
}

/** Returns the share of them that the cache answered, or undefined without requests. */
export function ratioOf(sums) {
  const all = contentRequests(sums);
  return all > 0 ? (sums.hit + sums.stale) / all : undefined;
}
