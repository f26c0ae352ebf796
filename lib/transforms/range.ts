/**
 * Parses Range, If-Range and If-None-Match (RFC 9110 §13 and §14; distribution specification, "Pulling
 * blobs").
 *
 * @module
 */

/** A range of bytes. Both ends are inclusive. */
export interface Part {
  /** The offset of the first byte. */
  readonly start: number;
  /** The offset of the last byte. */
  readonly end: number;
}

/** The meaning of a Range header for content of a known size. */
export type RangeRequest =
  | { readonly kind: "whole" }
  | { readonly kind: "part" } & Part
  | { readonly kind: "unsatisfiable" };

const WHOLE: RangeRequest = Object.freeze({ kind: "whole" });
const UNSATISFIABLE: RangeRequest = Object.freeze({ kind: "unsatisfiable" });

/**
 * Returns what `header` asks of `size` bytes. "whole" means to ignore it, as RFC 9110 §14.2 allows
 * for anything malformed, for other units and for several ranges. A last byte before the first is
 * unsatisfiable, not ignored: the specification's conformance tests want 416 for `500-0`.
 */
export function parseRange(header: string | null, size: number): RangeRequest {
  const [, first, last] = /^\s*bytes\s*=\s*(\d*)-(\d*)\s*$/i.exec(header ?? "") ?? [];
  if (first === undefined || last === undefined || (first === "" && last === "")) return WHOLE;
  if (first === "") return suffix(Number(last), size);
  // Numbers too large to be exact still exceed any size.
  const start = Number(first);
  // The range starts past the last byte, or is reversed. Both make its end smaller than its start.
  const end = last === "" ? size - 1 : Math.min(Number(last), size - 1);
  return end < start ? UNSATISFIABLE : { kind: "part", start, end };
}

/** Returns the Content-Range of `part` of `size` bytes, or without `part` that of a 416 answer. */
export function contentRange(part: Part | undefined, size: number): string {
  return part === undefined ? `bytes */${size}` : `bytes ${part.start}-${part.end}/${size}`;
}

/**
 * Whether an If-None-Match names `digest`: the answer is 304. Weak comparison (RFC 9110 §13.1.2);
 * a digest without quotes counts too, as in Docker's registry.
 */
export function ifNoneMatch(header: string | null, digest: string): boolean {
  return (header ?? "").split(",").map((tag) => tag.trim().replace(/^W\//, "")).some((tag) =>
    tag === "*" || tag === digest || tag === `"${digest}"`
  );
}

/**
 * Whether an If-Range lets the Range count: there is none, or it is exactly this content's ETag.
 * Strong comparison (RFC 9110 §13.1.5); a date never matches, since content here has none.
 */
export function ifRangeAllows(header: string | null, digest: string): boolean {
  return header === null || header.trim() === `"${digest}"`;
}

function suffix(length: number, size: number): RangeRequest {
  if (length === 0) return UNSATISFIABLE;
  // Content-Range cannot express "the last bytes of nothing".
  if (size === 0) return WHOLE;
  return { kind: "part", start: Math.max(0, size - length), end: size - 1 };
}
