/**
 * Which redirects of an upstream are followed here, and which are handed to the client.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import type { Registry } from "../oci/registry.ts";

/** Hosts whose redirects are followed here, always: where they cannot be reached is why we exist. */
export const FOLLOW_SUFFIXES: readonly string[] = ["docker.io", "docker.com"];

/** External storage: clients can be sent there. */
export const STORAGE_SUFFIXES: readonly string[] = [
  "amazonaws.com",
  "cloudfront.net",
  "cloudflarestorage.com",
  "storage.googleapis.com",
  "blob.core.windows.net",
];

/** The most redirects followed for one request. */
export const MAX_HOPS = 10;

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** Whether `status` sends the client elsewhere. 300, 304 and 305 do not. */
export function isRedirect(status: number): boolean {
  return REDIRECTS.has(status);
}

/**
 * Whether `host` is one of `suffixes` or below one, label by label and whatever the case:
 * "evildocker.io" is not below "docker.io". A leading "." or "*." of a suffix means nothing.
 */
export function matchesSuffix(host: string, suffixes: readonly string[]): boolean {
  const name = host.toLowerCase().replace(/\.$/, "");
  return suffixes.some((suffix) => {
    const wanted = suffix.trim().toLowerCase().replace(/^(\*?\.)/, "").replace(/\.$/, "");
    return wanted !== "" && (name === wanted || name.endsWith(`.${wanted}`));
  });
}

/** What {@linkcode classifyRedirect} depends on. */
export interface RedirectPolicy {
  /** `FOLLOW_ALL_REDIRECTS`. */
  readonly followAll: boolean;
  /** `BLOCKED_HOSTS`: suffixes that are followed like {@linkcode FOLLOW_SUFFIXES}. */
  readonly blockedHosts: readonly string[];
  /** `STORAGE_HOSTS`: suffixes that are storage like {@linkcode STORAGE_SUFFIXES}. */
  readonly storageHosts: readonly string[];
}

/** What a redirect leads to: hosts that clients may not reach, external storage, or anything else. */
export type RedirectClass = "blocked" | "storage" | "other";

/** Returns the class of a redirect to `location`; a host that is of two is of the first of them. */
export function redirectClass(
  { hostname }: URL,
  policy: Pick<RedirectPolicy, "blockedHosts" | "storageHosts">,
): RedirectClass {
  if (matchesSuffix(hostname, [...FOLLOW_SUFFIXES, ...policy.blockedHosts])) return "blocked";
  return matchesSuffix(hostname, [...STORAGE_SUFFIXES, ...policy.storageHosts])
    ? "storage"
    : "other";
}

/** Returns whether a redirect to `location` is followed here or handed to the client untouched. */
export function classifyRedirect(location: URL, policy: RedirectPolicy): "follow" | "hand-over" {
  const isStorage = redirectClass(location, policy) === "storage";
  return isStorage && !policy.followAll ? "hand-over" : "follow";
}

/** One answer with a redirect status. */
export interface Hop {
  /** The URL that answered. */
  readonly from: URL;
  /** Its Location; may be relative. */
  readonly location: string | null;
  /** The registry the first request went to. */
  readonly registry: Pick<Registry, "url">;
}

/**
 * Returns where `hop` leads, without a fragment. https only, or http too if the registry itself is
 * configured as http. Whether the address may be connected to is the guard's to say.
 *
 * @throws {OciError} `UNAVAILABLE` (502) with the reason; never with a path or query: those of
 * storage URLs are credentials.
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
 * Whether a request to `url` may carry the Authorization meant for `registry`: the same origin only.
 * Storage refuses a signed URL with one, and anybody else must not see it.
 */
export function mayCarryAuthorization(url: URL, registry: Pick<Registry, "url">): boolean {
  return url.origin === registry.url.origin;
}

function unusable(from: URL, reason: string): OciError {
  return new OciError("UNAVAILABLE", "Unusable redirect from upstream", {
    detail: { host: from.host, reason },
  });
}
