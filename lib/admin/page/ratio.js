/**
 * What share of the requests the cache answered.
 *
 * @module
 */

/** Requests that a cache can answer: not those for tokens, for health or for what is never kept. */
export function contentRequests({ hit, stale, miss }) {
  return hit + stale + miss;
}

/** The share of them that it answered; undefined where there were none. */
export function ratioOf(sums) {
  const all = contentRequests(sums);
  return all > 0 ? (sums.hit + sums.stale) / all : undefined;
}
