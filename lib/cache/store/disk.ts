/**
 * What an error of the disk means. Deno gives file errors a `code`; SQLite's only have words.
 *
 * @module
 */

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

/** Whether there was no space left for what was to be written. */
export function isDiskFull(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOSPC" || code === "EDQUOT" ||
    error instanceof Error && /database or disk is full/.test(error.message);
}

/** Whether a file could not be opened because too many are open: that says nothing about the file. */
export function isOutOfHandles(error: unknown): boolean {
  const code = codeOf(error);
  return code === "EMFILE" || code === "ENFILE";
}
