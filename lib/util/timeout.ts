/**
 * Time limits that count only while the event loop runs. Where the loop stood still, what was waited for may be here
 * already and nobody has looked: that is not the fault of who was asked.
 *
 * @module
 */

/**
 * The last part of a limit, ms: it counts only if its timer comes when it should, which shows that the loop ran for as
 * long and has taken what was waiting.
 */
const LAST_PART = 500;

/** A timer that comes later than this, ms, came after a standstill. */
const LATE = 50;

/** How often the last part is begun anew: a loop that is always late must have limits too. */
const MOST_PARTS = 20;

/**
 * Calls `onTimeout` after `ms` in which the event loop ran, until the returned function is called. After a standstill
 * it comes later, by what was left of the limit or half a second, and by 10 s at most.
 */
export function startTimeout(ms: number, onTimeout: () => void): () => void {
  const last = Math.min(LAST_PART, ms / 2);
  let parts = 0;
  let timer = setTimeout(lastPart, ms - last);
  function lastPart(): void {
    const due = performance.now() + last;
    timer = setTimeout(() => {
      if (performance.now() - due > LATE && ++parts < MOST_PARTS) lastPart();
      else onTimeout();
    }, last);
  }
  return () => clearTimeout(timer);
}

/** The result of `work`, or what `error` makes as soon as it takes longer than `ms`; see {@linkcode startTimeout}. */
export async function withTimeout<T>(
  work: Promise<T>,
  { ms, error }: { ms: number; error: () => Error },
): Promise<T> {
  const late = Promise.withResolvers<never>();
  const cancel = startTimeout(ms, () => late.reject(error()));
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    cancel();
  }
}
