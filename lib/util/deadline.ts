/**
 * A bound for waits on what cannot be aborted.
 *
 * @module
 */
import { withTimeout } from "./timeout.ts";

/** Something did not answer in time. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
}

/** The result of `work`; a {@linkcode DeadlineError} naming `what` when it takes longer than `ms`. */
export async function within<T>(
  work: Promise<T>,
  { ms, what }: { ms: number; what: string },
): Promise<T> {
  const error = () => new DeadlineError(`${what} did not answer in ${ms / 1000} s`);
  return await withTimeout(work, { ms, error });
}

/** The result of `work`, or the signal's reason as soon as it is aborted: then nobody waits for it any more. */
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
    work.catch(() => {}); // too late to matter
  }
}
