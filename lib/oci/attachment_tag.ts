/**
 * Tags by which something is attached to a manifest.
 *
 * @module
 */

/** What cosign appends to the tag of a digest. */
export const COSIGN_SUFFIXES = [".sig", ".att", ".sbom"];

/**
 * The digest that a tag is about: cosign's `sha256-<hex>.sig`, and `sha256-<hex>` (OCI distribution specification,
 * "Referrers Tag Schema"). Undefined for any other tag.
 */
export function subjectOf(tag: string): string | undefined {
  const [, hex, suffix = ""] = /^sha256-([0-9a-f]{64})(\.[a-z]+)?$/.exec(tag) ?? [];
  if (hex === undefined || suffix !== "" && !COSIGN_SUFFIXES.includes(suffix)) return undefined;
  return `sha256:${hex}`;
}
