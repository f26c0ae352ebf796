/**
 * Text for people.
 *
 * @module
 */

/** `rows` in columns as wide as they need, the first of them the titles; no spaces at the ends. */
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

/** How long ago `at` was, ms since the epoch, in the largest unit that fits: `3d`, `5m`. */
export function formatAge(at: number, now: number): string {
  const ms = Math.max(0, now - at);
  const [unit, length] = UNITS.find(([, length]) => ms >= length) ?? UNITS.at(-1)!;
  return `${Math.floor(ms / length)}${unit}`;
}

/**
 * The beginning of a digest, as much of it as tells it from others: `sha256:0123456789ab`; of cosign's tags,
 * which contain one, `sha256-0123456789ab….sig`.
 */
export function shortDigest(digest: string): string {
  const found = /\b(\w+[:-][0-9a-f]{12})[0-9a-f]{52,}/.exec(digest);
  if (!found) return digest;
  const [whole, first = ""] = found;
  const rest = digest.slice(found.index + whole.length);
  return digest.slice(0, found.index) + (rest ? `${first}…${rest}` : first);
}
