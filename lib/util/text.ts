/**
 * Linear-time string helpers.
 *
 * @module
 */

/** `text` without the slashes at its end. `/\/+$/` takes time by the square of their number. */
export function withoutTrailingSlashes(text: string): string {
  let end = text.length;
  while (text[end - 1] === "/") end--;
  return text.slice(0, end);
}

/** Returns `text`, cut to `most` characters and an ellipsis if it is longer. */
export function cut(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most)}…`;
}
