/**
 * What clients are told about authentication, and what is read from what they send.
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

/** The service that every challenge of this proxy names. */
export const SERVICE = "deno-docker-proxy";

/** The token of a client that has no credential, for registries that need none. */
export const ANONYMOUS_TOKEN = "anonymous";

const SEALED = "basic.";

/** What the scheme of this proxy's own URLs depends on. */
export interface PublicSchemeOptions {
  /** What the connection was accepted with. */
  readonly listener: "http" | "https";
  /** The host as the client named it, port included. */
  readonly host: string;
  /** `PUBLIC_SCHEME`. */
  readonly setting?: "http" | "https";
  /** `TRUST_PROXY`. */
  readonly trustProxy: boolean;
  /** X-Forwarded-Proto. */
  readonly forwardedProto: string | null;
}

/**
 * Returns the scheme that clients reach this proxy with. It is https even on a plain http listener
 * unless the host is loopback or an IP literal: anything else has a TLS proxy in front, and crane
 * refuses an http realm on an https registry.
 */
export function publicScheme(options: PublicSchemeOptions): "http" | "https" {
  const { listener, host, setting, trustProxy, forwardedProto } = options;
  if (setting !== undefined) return setting;
  const forwarded = trustProxy ? forwardedProto?.split(",", 1)[0]?.trim().toLowerCase() : undefined;
  if (forwarded === "http" || forwarded === "https") return forwarded;
  return listener === "http" && (isLoopbackName(host) || isIpLiteral(host)) ? "http" : "https";
}

/** What a challenge is made of. */
export interface ChallengeOptions {
  /** The scheme that clients reach this proxy by. */
  readonly scheme: "http" | "https";
  /** Port included. */
  readonly host: string;
  /** As this client must ask for it: see {@linkcode clientScope}. */
  readonly scope?: string;
  /**
   * The `ns` of the request, where it chose another registry than the host of a host-routed request
   * means: nothing else would tell `/v2/auth`.
   */
  readonly ns?: string;
}

/** Returns the one challenge: two, or a Basic before it, break skopeo. */
export function challengeFor(options: ChallengeOptions): string {
  const { scheme, host, scope, ns } = options;
  const query = ns ? `?ns=${encodeURIComponent(ns)}` : "";
  return formatBearer({ realm: `${scheme}://${host}/v2/auth${query}`, service: SERVICE, scope });
}

/**
 * Returns the registry whose token a client in path mode wants: that of the first scope whose
 * repository begins with a registry's name or alias, else `fallback`.
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
  /** Whether scopes begin with the registry. */
  readonly pathMode: boolean;
  /** The registries to choose from. */
  readonly table: RouteTable;
}

/**
 * Returns what to ask `registry` for where a client asks us for `scopes`. In path mode the registry
 * part is taken off, and what belongs to another registry is left out: it must not learn of it.
 * Scopes that name no repository are kept as they are.
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
 * Returns what a client must ask us for to get `scope` upstream: the {@linkcode Target} prefix put
 * back before each repository. Scopes that name no repository are kept as they are.
 */
export function clientScope(scope: string, prefix: string): string {
  return splitScopes([scope]).map((text) => {
    const parsed = parseScope(text);
    if (parsed?.type !== "repository") return text;
    return formatScope({ ...parsed, name: prefix + parsed.name });
  }).join(" ");
}

/** A username (without a colon) and password. */
export interface BasicCredential {
  /** Without a colon. */
  readonly username: string;
  /** May be empty. */
  readonly password: string;
}

/** Who a client says it is. */
export type Credential =
  | { readonly kind: "anonymous" }
  | { readonly kind: "bearer"; readonly token: string }
  | { readonly kind: "basic" } & BasicCredential;

const ANONYMOUS: Credential = Object.freeze({ kind: "anonymous" });

/**
 * Returns the credential in an Authorization header. Anonymous are also a Bearer with our own
 * placeholder, an empty one, and a Basic that is only ":" (what Docker sends for an empty login).
 *
 * @throws {OciError} `UNAUTHORIZED` (401) for another scheme and for a malformed Basic.
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
      // Visible ASCII only, as RFC 6750 has it: nothing else is anybody's token.
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

/** Whether both are one upstream, by whatever names. */
export function isSameRegistry({ id }: Registry, other: Registry): boolean {
  return id === other.id;
}

/**
 * Returns a token that is this credential: for registries that speak Basic only, whose clients are
 * still challenged with Bearer. No protection of any kind: it is as secret as the password.
 */
export function encodeBasicToken(credential: BasicCredential): string {
  const { username, password } = credential;
  return SEALED + Buffer.from(`${username}:${password}`, "utf-8").toString("base64url");
}

function unseal(encoded: string): Credential {
  const pair = decodeBase64(encoded);
  const colon = pair?.indexOf(":") ?? -1;
  if (pair === undefined || colon < 0) {
    // Neither the value nor the cause: both may hold the password.
    throw malformed("Basic");
  }
  if (pair === ":") return ANONYMOUS;
  return { kind: "basic", username: pair.slice(0, colon), password: pair.slice(colon + 1) };
}

function malformed(scheme: "Basic" | "Bearer"): OciError {
  return new OciError("UNAUTHORIZED", `Malformed ${scheme} credential`);
}

/** Returns the UTF-8 text in base64 or base64url, padded or not. */
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
