/**
 * Platforms: `linux/amd64`, `linux/arm64/v8`.
 *
 * @module
 */

/** The selected platforms of an index. */
export type Platforms = "all" | readonly string[];

const PLATFORM = /^[a-z0-9]+\/[a-z0-9_]+(\/[a-z0-9.]+)?$/;

/**
 * Parses `all`, or a list of platforms separated by commas or spaces. Throws a `RangeError` for invalid
 * text.
 */
export function parsePlatforms(text: string): Platforms {
  const names = text.toLowerCase().split(/[\s,]+/).filter(Boolean);
  if (names.length === 1 && names[0] === "all") return "all";
  const wrong = names.find((name) => !PLATFORM.test(name));
  if (names.length === 0 || wrong !== undefined) {
    throw new RangeError(`Expected all, or platforms such as linux/amd64,linux/arm64: ${text}`);
  }
  return Object.freeze(names);
}

/**
 * Whether a child of an index is selected. A child without a platform always is. A platform without a
 * variant selects all its variants.
 */
export function isWanted(platform: string | undefined, wanted: Platforms): boolean {
  if (wanted === "all" || platform === undefined) return true;
  const found = platform.toLowerCase();
  return wanted.some((name) => found === name || found.startsWith(`${name}/`));
}
