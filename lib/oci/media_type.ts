/**
 * Media types of manifests, and Accept headers.
 *
 * @module
 */

const INDEX_TYPES: readonly string[] = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];

/**
 * Every manifest type in use. Indexes come first: a registry that stops at the first type it knows
 * then gives the whole index and not one platform's part of it.
 */
export const MANIFEST_TYPES: readonly string[] = [
  ...INDEX_TYPES,
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.oci.artifact.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v1+prettyjws",
  "application/vnd.docker.distribution.manifest.v1+json",
];

/**
 * The Accept header for resolving tags. It accepts every type, so that the result does not depend on a
 * client. The trailing wildcard, as sent by containerd, covers future types.
 */
export const ACCEPT_EVERY_MANIFEST: string = [...MANIFEST_TYPES, "*/*"].join(", ");

/** Returns the type and subtype of `contentType` in lower case, without parameters. */
export function essence(contentType: string): string {
  return (contentType.split(";", 1)[0] ?? "").trim().toLowerCase();
}

/** Whether `type` (parameters allowed) is an index: a list of manifests. */
export function isIndex(type: string): boolean {
  return INDEX_TYPES.includes(essence(type));
}

/** Whether `type` (parameters allowed) is one of {@linkcode MANIFEST_TYPES}. */
export function isManifestType(type: string): boolean {
  return MANIFEST_TYPES.includes(essence(type));
}

/**
 * Whether a client that sent `accept` takes `type`. Without the header, or with an empty one, it
 * takes everything. The most specific range that covers the type decides, and `q=0` refuses
 * (RFC 9110 §12.5.1). Several headers are one value joined by commas, as `Headers.get` gives it.
 */
export function accepts(accept: string | null, type: string): boolean {
  const ranges = (accept ?? "").split(",").map((value) => value.trim()).filter(Boolean);
  if (ranges.length === 0) return true;
  const wanted = essence(type);
  const levels = [wanted, `${wanted.split("/", 1)[0]}/*`, "*/*"];
  for (const level of levels) {
    const covering = ranges.filter((range) => essence(range) === level);
    if (covering.length > 0) return covering.some((range) => !isRefused(range));
  }
  return false;
}

function isRefused(range: string): boolean {
  return range.split(";").slice(1).some((param) => /^\s*q\s*=\s*0(\.0*)?\s*$/i.test(param));
}
