/**
 * Tags that attach something to a manifest.
 *
 * @module
 */

/** The suffixes of cosign's tags. */
export const COSIGN_SUFFIXES = [".sig", ".att", ".sbom"];

/**
 * Returns the digest that a tag refers to: cosign's `sha256-<hex>.sig`, or `sha256-<hex>` (OCI distribution
 * specification, "Referrers Tag Schema"). Returns undefined for other tags.
 */
export function subjectOf(tag: string): string | undefined {
  const [, hex, suffix = ""] = /^sha256-([0-9a-f]{64})(\.[a-z]+)?$/.exec(tag) ?? [];
  if (hex === undefined || suffix !== "" && !COSIGN_SUFFIXES.includes(suffix)) return undefined;
  return `sha256:${hex}`;
}
