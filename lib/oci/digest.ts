/**
 * Digests: `algorithm:encoded` (OCI image specification, descriptor.md, "Digests").
 *
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { cut } from "../util/text.ts";
import { OciError } from "./error.ts";

/** The parts of a well-formed digest. */
export interface Digest {
  readonly algorithm: string;
  readonly encoded: string;
}

/** The algorithms this proxy can verify, and therefore store. */
export type StorableAlgorithm = "sha256" | "sha512";

/** Maximum length of a digest in characters. sha512 needs 135. */
const MAX_LENGTH = 256;

const DIGEST = /^([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)$/;

/** The exact encoding of each registered algorithm. */
const ENCODED: ReadonlyMap<string, RegExp> = new Map([
  ["sha256", /^[a-f0-9]{64}$/],
  ["sha512", /^[a-f0-9]{128}$/],
]);

/**
 * Returns the parts of `text`. An algorithm this proxy does not know is fine as long as the grammar
 * holds: it is passed through and never stored.
 *
 * @throws {OciError} `DIGEST_INVALID` (400) where `text` is no digest.
 */
export function parseDigest(text: string): Digest {
  const digest = digestIn(text);
  if (!digest) {
    const detail = { digest: cut(text, MAX_LENGTH) };
    throw new OciError("DIGEST_INVALID", "Malformed digest", { detail });
  }
  return digest;
}

/** Returns the parts of `text`, or undefined if it is not a digest. */
function digestIn(text: string): Digest | undefined {
  if (text.length > MAX_LENGTH) return undefined;
  const [, algorithm, encoded] = DIGEST.exec(text) ?? [];
  if (algorithm === undefined || encoded === undefined) return undefined;
  return ENCODED.get(algorithm)?.test(encoded) === false ? undefined : { algorithm, encoded };
}

/** Whether `text` is a well-formed digest of any algorithm. Never throws. */
export function isWellFormed(text: string): boolean {
  return digestIn(text) !== undefined;
}

/** Whether `text` looks like a digest, well-formed or not. Tags contain no colon. */
export function isDigest(text: string): boolean {
  return text.includes(":");
}

/** Whether `text` is a well-formed digest of an algorithm that this proxy can verify. */
export function isStorable(text: string): boolean {
  const colon = text.indexOf(":");
  return ENCODED.get(text.slice(0, colon))?.test(text.slice(colon + 1)) ?? false;
}

/**
 * Returns an incremental hash of the algorithm of `digest`; its hex must equal the encoded part.
 * `node:crypto`, because `crypto.subtle` has no incremental form.
 *
 * @throws {OciError} `DIGEST_INVALID` (400) where {@linkcode isStorable} is false.
 */
export function createHasher(digest: string): Hash {
  const { algorithm } = parseDigest(digest);
  if (!isStorable(digest)) {
    throw new OciError("DIGEST_INVALID", `Unsupported digest algorithm: ${algorithm}`);
  }
  return createHash(algorithm);
}

/** Returns the digest of `bytes`. */
export function digestOf(bytes: Uint8Array, algorithm: StorableAlgorithm = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}
