/**
 * Who a request is made for, as something that may be kept.
 *
 * @module
 */
import { createHmac, randomBytes } from "node:crypto";
import type { Credential } from "../transforms/auth.ts";

/** This process's own: an id alone is no help in guessing a password. */
const SALT = randomBytes(32);

/**
 * A name for the credential that does not reveal it: `anonymous`, or an HMAC-SHA-256 in hex under a salt of this
 * process. It stands for the credential in every key in memory, so that no secret is ever part of one. It means nothing
 * to another process: what instances share has keys of its own (`cache/grants.ts`).
 */
export function credentialId(credential: Credential): string {
  if (credential.kind === "anonymous") return "anonymous";
  return createHmac("sha256", SALT).update(credentialText(credential)).digest("hex");
}

/** A text that tells credentials apart, and holds their secrets: only ever to be hashed with a key. */
export function credentialText(credential: Credential): string {
  switch (credential.kind) {
    case "anonymous":
      return "anonymous";
    case "bearer":
      return JSON.stringify(["bearer", credential.token]);
    case "basic":
      return JSON.stringify(["basic", credential.username, credential.password]);
  }
}

/** The value of an Authorization header for HTTP Basic, RFC 7617 with UTF-8. */
export function basicAuthorization(username: string, password: string): string {
  return `Basic ${new TextEncoder().encode(`${username}:${password}`).toBase64()}`;
}
