/**
 * Formats tables, ages and digests for people.
 *
 * @module
 */

/** Aligns `rows` in columns. The first row has the titles. Lines have no trailing spaces. */
export function formatTable(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  }
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd());
}

const UNITS: readonly (readonly [string, number])[] = [
  ["d", 24 * 60 * 60_000],
  ["h", 60 * 60_000],
  ["m", 60_000],
  ["s", 1000],
];

/** Returns the time since `at` (ms since the epoch) in its largest unit: `3d`, `5m`. */
export function formatAge(at: number, now: number): string {
  const ms = Math.max(0, now - at);
  const [unit, length] = UNITS.find(([, length]) => ms >= length) ?? UNITS.at(-1)!;
  return `${Math.floor(ms / length)}${unit}`;
}

/**
 * Shortens a digest, or a cosign tag that contains one, to a recognizable beginning: `sha256:0123456789ab`,
 * `sha256-0123456789ab….sig`.
 */
export function shortDigest(digest: string): string {
  const found = /\b(\w+[:-][0-9a-f]{12})[0-9a-f]{52,}/.exec(digest);
  if (!found) return digest;
  const [whole, first = ""] = found;
  const rest = digest.slice(found.index + whole.length);
  return digest.slice(0, found.index) + (rest ? `${first}…${rest}` : first);
}
