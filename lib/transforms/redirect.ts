/**
 * Decides which upstream redirects the proxy follows, and which it passes to the client.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import type { Registry } from "../oci/registry.ts";

/** Hosts whose redirects are always followed by the proxy, because clients may not reach them. */
export const FOLLOW_SUFFIXES: readonly string[] = ["docker.io", "docker.com"];

/** External storage hosts, which clients can reach. */
export const STORAGE_SUFFIXES: readonly string[] = [
  "amazonaws.com",
  "cloudfront.net",
  "cloudflarestorage.com",
  "storage.googleapis.com",
  "blob.core.windows.net",
];

/** Maximum number of redirects per request. */
export const MAX_HOPS = 10;

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Whether `status` is a redirect. 300, 304 and 305 are not. */
export function isRedirect(status: number): boolean {
  return REDIRECTS.has(status);
}

/**
 * Whether `host` equals or is below one of `suffixes`, by label and ignoring case: "evildocker.io" is not
 * below "docker.io". A leading "." or "*." of a suffix is ignored.
 */
export function matchesSuffix(host: string, suffixes: readonly string[]): boolean {
  const name = host.toLowerCase().replace(/\.$/, "");
  return suffixes.some((suffix) => {
    const wanted = suffix.trim().toLowerCase().replace(/^(\*?\.)/, "").replace(/\.$/, "");
    return wanted !== "" && (name === wanted || name.endsWith(`.${wanted}`));
  });
}

/** The settings of {@linkcode classifyRedirect}. */
export interface RedirectPolicy {
  /** `FOLLOW_ALL_REDIRECTS`. */
  readonly followAll: boolean;
  /** `BLOCKED_HOSTS`: suffixes that are followed like {@linkcode FOLLOW_SUFFIXES}. */
  readonly blockedHosts: readonly string[];
  /** `STORAGE_HOSTS`: suffixes that are storage like {@linkcode STORAGE_SUFFIXES}. */
  readonly storageHosts: readonly string[];
}

/** The target of a redirect: hosts that clients may be unable to reach, external storage, or other. */
export type RedirectClass = "blocked" | "storage" | "other";

/** Returns the class of a redirect to `location`. "blocked" takes precedence over "storage". */
export function redirectClass(
  { hostname }: URL,
  policy: Pick<RedirectPolicy, "blockedHosts" | "storageHosts">,
): RedirectClass {
  if (matchesSuffix(hostname, [...FOLLOW_SUFFIXES, ...policy.blockedHosts])) return "blocked";
  return matchesSuffix(hostname, [...STORAGE_SUFFIXES, ...policy.storageHosts])
    ? "storage"
    : "other";
}

/** Returns whether the proxy follows a redirect to `location` or passes it to the client. */
export function classifyRedirect(location: URL, policy: RedirectPolicy): "follow" | "hand-over" {
  const isStorage = redirectClass(location, policy) === "storage";
  return isStorage && !policy.followAll ? "hand-over" : "follow";
}

/** One answer with a redirect status. */
export interface Hop {
  /** The URL that returned it. */
  readonly from: URL;
  /** Its Location, which may be relative. */
  readonly location: string | null;
  /** The registry of the first request. */
  readonly registry: Pick<Registry, "url">;
}

/**
 * Returns the target of `hop` without its fragment. Only https is allowed, and http if the registry itself
 * uses it. The address is checked when connecting.
 *
 * @throws {OciError} `UNAVAILABLE` (502) with the reason. The message contains no path or query, because
 * those of storage URLs are credentials.
 */
export function nextHop(hop: Hop): URL {
  const { from, location, registry } = hop;
  if (!location?.trim()) throw unusable(from, "No Location");
  if (!URL.canParse(location, from)) throw unusable(from, "Malformed Location");
  const to = new URL(location, from);
  const schemes = registry.url.protocol === "http:" ? ["https:", "http:"] : ["https:"];
  if (!schemes.includes(to.protocol)) throw unusable(from, `Scheme not allowed: ${to.protocol}`);
  if (to.username !== "" || to.password !== "") throw unusable(from, "Credentials in Location");
  to.hash = "";
  return to;
}

/**
 * Whether a request to `url` may carry the registry's Authorization: only on the same origin. Storage
 * rejects signed URLs with one, and other hosts must not see it.
 */
export function mayCarryAuthorization(url: URL, registry: Pick<Registry, "url">): boolean {
  return url.origin === registry.url.origin;
}

function unusable(from: URL, reason: string): OciError {
  return new OciError("UNAVAILABLE", "Unusable redirect from upstream", {
    detail: { host: from.host, reason },
  });
}
