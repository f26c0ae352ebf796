/**
 * A bound for waits on what cannot be aborted.
 *
 * @module
 */

/** Something did not answer in time. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
}

/** The result of `work`; a {@linkcode DeadlineError} naming `what` when it takes longer than `ms`. */
export async function within<T>(
  work: Promise<T>,
  { ms, what }: { ms: number; what: string },
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new DeadlineError(`${what} did not answer in ${ms / 1000} s`)),
      ms,
    );
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
