/**
 * Who a request is made for, as something that may be kept.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Credential } from "../transforms/auth.ts";

/**
 * A name for the credential that does not reveal it: `anonymous`, or a SHA-256 in hex. It stands for
 * the credential in every cache key, so that no secret is ever part of one.
 */
export function credentialId(credential: Credential): string {
  if (credential.kind === "anonymous") return "anonymous";
  const hash = createHash("sha256").update(credential.kind).update("\0");
  if (credential.kind === "bearer") hash.update(credential.token);
  else hash.update(JSON.stringify([credential.username, credential.password]));
  return hash.digest("hex");
}

/** The value of an Authorization header for HTTP Basic, RFC 7617 with UTF-8. */
export function basicAuthorization(username: string, password: string): string {
  return `Basic ${new TextEncoder().encode(`${username}:${password}`).toBase64()}`;
}
