/**
 * Authentication between clients and this proxy: challenges, scopes and credentials.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { formatBearer } from "../oci/challenge.ts";
import { OciError } from "../oci/error.ts";
import { formatScope, parseScope, splitScopes } from "../oci/scope.ts";
import { libraryScopeName, type Registry } from "../oci/registry.ts";
import {
  defaultRegistry,
  hostnameOf,
  isIpLiteral,
  type RouteTable,
  stripRegistry,
} from "../oci/registry_table.ts";

/** The service named in every challenge of this proxy. */
export const SERVICE = "deno-docker-proxy";

/** The token of anonymous clients, for registries that need none. */
export const ANONYMOUS_TOKEN = "anonymous";

const SEALED = "basic.";

/** The inputs of {@linkcode publicScheme}. */
export interface PublicSchemeOptions {
  /** The scheme of the listener that accepted the connection. */
  readonly listener: "http" | "https";
  /** The host as the client named it, including the port. */
  readonly host: string;
  /** `PUBLIC_SCHEME`. */
  readonly setting?: "http" | "https";
  /** `TRUST_PROXY`. */
  readonly trustProxy: boolean;
  /** X-Forwarded-Proto. */
  readonly forwardedProto: string | null;
}

/**
 * Returns the scheme with which clients reach this proxy. Even on a plain http listener it is https, unless
 * the host is loopback or an IP literal: other hosts have a TLS proxy in front, and crane rejects an http
 * realm on an https registry.
 */
export function publicScheme(options: PublicSchemeOptions): "http" | "https" {
  const { listener, host, setting, trustProxy, forwardedProto } = options;
  if (setting !== undefined) return setting;
  const forwarded = trustProxy ? forwardedProto?.split(",", 1)[0]?.trim().toLowerCase() : undefined;
  if (forwarded === "http" || forwarded === "https") return forwarded;
  return listener === "http" && (isLoopbackName(host) || isIpLiteral(host)) ? "http" : "https";
}

/** The inputs of a challenge. */
export interface ChallengeOptions {
  /** The scheme with which clients reach this proxy. */
  readonly scheme: "http" | "https";
  /** The host, including the port. */
  readonly host: string;
  /** The scope that this client must request: see {@linkcode clientScope}. */
  readonly scope?: string;
  /**
   * The `ns` of the request, if it selects another registry than the host does. `/v2/auth` could not know
   * it otherwise.
   */
  readonly ns?: string;
}

/** Returns the only challenge. skopeo fails with two, or with a Basic one before it. */
export function challengeFor(options: ChallengeOptions): string {
  const { scheme, host, scope, ns } = options;
  const query = ns ? `?ns=${encodeURIComponent(ns)}` : "";
  return formatBearer({ realm: `${scheme}://${host}/v2/auth${query}`, service: SERVICE, scope });
}

/**
 * Returns the registry whose token a client in path mode requests: that of the first scope whose repository
 * starts with a registry's name or alias. Defaults to `fallback`.
 */
export function chooseTokenRegistry(
  scopes: readonly string[],
  table: RouteTable,
  fallback: Registry,
): Registry {
  for (const text of splitScopes(scopes)) {
    const scope = parseScope(text);
    const stripped = scope?.type === "repository" ? stripRegistry(scope.name, table) : undefined;
    if (stripped !== undefined) return stripped.registry;
  }
  return fallback;
}

/** Options for {@linkcode upstreamScopes}. */
export interface UpstreamScopesOptions {
  /** Whether scopes start with the registry. */
  readonly pathMode: boolean;
  /** The configured registries. */
  readonly table: RouteTable;
}

/**
 * Returns the scopes to request from `registry` when a client requests `scopes` from this proxy. In path
 * mode it removes the registry prefix, and drops scopes of other registries so that `registry` does not
 * learn of them. Scopes without a repository are kept.
 */
export function upstreamScopes(
  scopes: readonly string[],
  registry: Registry,
  options: UpstreamScopesOptions,
): string[] {
  const { pathMode, table } = options;
  return splitScopes(
    splitScopes(scopes).flatMap((text) => {
      const scope = parseScope(text);
      if (scope?.type !== "repository") return [text];
      const stripped = pathMode ? stripRegistry(scope.name, table) : undefined;
      const owner = stripped?.registry ?? (pathMode ? defaultRegistry(table) : registry);
      if (owner?.name !== registry.name) return [];
      const name = libraryScopeName(registry, stripped?.repository ?? scope.name);
      return [formatScope({ ...scope, name })];
    }),
  );
}

/**
 * Returns the scope that a client must request from this proxy to get `scope` upstream: with the {@linkcode
 * Target} prefix before each repository. Scopes without a repository are kept.
 */
export function clientScope(scope: string, prefix: string): string {
  return splitScopes([scope]).map((text) => {
    const parsed = parseScope(text);
    if (parsed?.type !== "repository") return text;
    return formatScope({ ...parsed, name: prefix + parsed.name });
  }).join(" ");
}

/** A username and a password. */
export interface BasicCredential {
  /** The username, without a colon. */
  readonly username: string;
  /** The password. May be empty. */
  readonly password: string;
}

/** The identity that a client claims. */
export type Credential =
  | { readonly kind: "anonymous" }
  | { readonly kind: "bearer"; readonly token: string }
  | { readonly kind: "basic" } & BasicCredential;

const ANONYMOUS: Credential = Object.freeze({ kind: "anonymous" });

/**
 * Returns the credential in an Authorization header. A Bearer with the anonymous token or without a token,
 * and a Basic of only ":" (Docker's empty login) are anonymous.
 *
 * @throws {OciError} `UNAUTHORIZED` (401) for other schemes and for a malformed Basic or Bearer.
 */
export function credentialOf(authorization: string | null): Credential {
  const text = (authorization ?? "").trim();
  const [scheme = ""] = text.split(/\s/, 1);
  const value = text.slice(scheme.length).trim();
  switch (scheme.toLowerCase()) {
    case "":
      return ANONYMOUS;
    case "basic":
      return unseal(value);
    case "bearer":
      if (value === "" || value === ANONYMOUS_TOKEN) return ANONYMOUS;
      if (value.startsWith(SEALED)) return unseal(value.slice(SEALED.length));
      // Accept visible ASCII only (RFC 6750). Other tokens are invalid.
      if (!/^[\x21-\x7e]+$/.test(value)) throw malformed("Bearer");
      return { kind: "bearer", token: value };
    default:
      throw new OciError("UNAUTHORIZED", "Unsupported authorization scheme");
  }
}

/**
 * Returns the credential in an Authorization header that is meant for `registry`, at a host that means `hosted`: a
 * client logs in to a host, and what it sends there goes to no other registry than the one that the host means.
 *
 * @throws {OciError} `UNAUTHORIZED` (401) as {@linkcode credentialOf} does.
 */
export function credentialFor(
  registry: Registry,
  { authorization, hosted }: { authorization: string | null; hosted: Registry },
): Credential {
  const credential = credentialOf(authorization);
  return isSameRegistry(registry, hosted) ? credential : ANONYMOUS;
}

/** Whether both names refer to the same upstream. */
export function isSameRegistry({ id }: Registry, other: Registry): boolean {
  return id === other.id;
}

/**
 * Encodes a credential as a token, for registries that only support Basic. Their clients are still
 * challenged with Bearer. This protects nothing: the token is as secret as the password.
 */
export function encodeBasicToken(credential: BasicCredential): string {
  const { username, password } = credential;
  return SEALED + Buffer.from(`${username}:${password}`, "utf-8").toString("base64url");
}

function unseal(encoded: string): Credential {
  const pair = decodeBase64(encoded);
  const colon = pair?.indexOf(":") ?? -1;
  if (pair === undefined || colon < 0) {
    // Include neither the value nor the cause. Both may contain the password.
    throw malformed("Basic");
  }
  if (pair === ":") return ANONYMOUS;
  return { kind: "basic", username: pair.slice(0, colon), password: pair.slice(colon + 1) };
}

function malformed(scheme: "Basic" | "Bearer"): OciError {
  return new OciError("UNAUTHORIZED", `Malformed ${scheme} credential`);
}

/** Decodes UTF-8 text in base64 or base64url, with or without padding. */
function decodeBase64(encoded: string): string | undefined {
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(encoded)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(Buffer.from(encoded, "base64"));
  } catch {
    return undefined;
  }
}

function isLoopbackName(host: string): boolean {
  return /(^|\.)localhost$/.test(hostnameOf(host));
}
