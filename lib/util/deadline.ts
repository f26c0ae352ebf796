/**
 * Bounds waits for work that cannot be aborted.
 *
 * @module
 */
import { withTimeout } from "./timeout.ts";

/** Thrown when something does not answer in time. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
}

/** Returns the result of `work`. Throws a {@linkcode DeadlineError} that names `what` after `ms`. */
export async function within<T>(
  work: Promise<T>,
  { ms, what }: { ms: number; what: string },
): Promise<T> {
  const error = () => new DeadlineError(`${what} did not answer in ${ms / 1000} s`);
  return await withTimeout(work, { ms, error });
}

/** Returns the result of `work`, or throws the signal's reason when it is aborted. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await work;
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    work.catch(() => {}); // a late failure is ignored
  }
}
