/**
 * Decides which headers are forwarded in each direction. Headers are copied by allow-list only.
 *
 * @module
 */
import { API_VERSION } from "../oci/api_version.ts";
import { essence } from "../oci/media_type.ts";
import { contentRange, type Part } from "./range.ts";
import type { TargetKind } from "./route.ts";

/** The kind of an exchange with upstream. */
export type ExchangeKind = TargetKind | "catalog" | "ping";

/**
 * Headers of a client's request that are forwarded. Authorization (see the token code), Cookie, Host and
 * X-Forwarded-* are never forwarded.
 */
const REQUEST: Readonly<Record<ExchangeKind, readonly string[]>> = {
  manifest: ["accept", "user-agent"],
  blob: ["if-range", "range", "user-agent"],
  tags: ["accept", "user-agent"],
  referrers: ["accept", "user-agent"],
  catalog: ["accept", "user-agent"],
  ping: ["user-agent"],
};

const EVERY_REPLY = ["content-type", "retry-after"];
const CONTENT_REPLY = [...EVERY_REPLY, "content-length", "docker-content-digest", "etag"];

/**
 * Headers of upstream's answer that are forwarded. Set-Cookie, RateLimit-* and WWW-Authenticate are never
 * forwarded, and Link only through {@linkcode rewriteLink}.
 */
const REPLY: Readonly<Record<ExchangeKind, readonly string[]>> = {
  manifest: [...CONTENT_REPLY, "last-modified", "oci-subject"],
  blob: [...CONTENT_REPLY, "accept-ranges", "content-range", "last-modified"],
  tags: CONTENT_REPLY,
  referrers: [...CONTENT_REPLY, "oci-filters-applied"],
  catalog: CONTENT_REPLY,
  ping: [...EVERY_REPLY, "content-length"],
};

/**
 * Returns the headers of an upstream request for a client's `headers`. It always sets `accept-encoding:
 * identity`. Otherwise fetch would decode the body, which changes its length and digest.
 */
export function upstreamHeaders(headers: Headers, options: { kind: ExchangeKind }): Headers {
  const result = pick(headers, REQUEST[options.kind]);
  result.set("accept-encoding", "identity");
  return result;
}

/** Options for {@linkcode replyHeaders}. */
export interface ReplyHeadersOptions {
  /** The kind of request. */
  readonly kind: ExchangeKind;
  /** Upstream's status. Retry-After is only kept with 429 and 503. */
  readonly status: number;
  /** How to rewrite Link. If undefined, Link is dropped. */
  readonly link?: LinkOptions;
}

/** Returns the headers of upstream's answer that are passed through to the client. */
export function replyHeaders(upstream: Headers, options: ReplyHeadersOptions): Headers {
  const { kind, status, link } = options;
  const result = pick(upstream, REPLY[kind]);
  // fetch has decoded the body, so its length and ranges no longer apply.
  const encoding = upstream.get("content-encoding") ?? "identity";
  if (encoding.trim().toLowerCase() !== "identity") {
    result.delete("content-length");
    result.delete("content-range");
  }
  if (status !== 429 && status !== 503) result.delete("retry-after");
  const type = result.get("content-type");
  if (kind === "manifest" && type !== null) result.set("content-type", essence(type));
  const next = link && rewriteLink(upstream.get("link"), link);
  if (next !== undefined) result.set("link", next);
  for (const [name, value] of Object.entries(API_VERSION)) result.set(name, value);
  return result;
}

/** The inputs of {@linkcode rewriteLink}. */
export interface LinkOptions {
  /** The URL of upstream's answer. */
  readonly upstream: URL;
  /** The URL that the client requested. */
  readonly client: URL;
}

/**
 * Returns upstream's Link rewritten to this proxy, or undefined if it has no `rel="next"` or points to
 * another host. Every list of this API continues at its own path (distribution specification, "Listing
 * Tags"), so only the query comes from upstream. The client's `ns` is kept.
 */
export function rewriteLink(link: string | null, options: LinkOptions): string | undefined {
  const { upstream, client } = options;
  for (const [, target = "", params = ""] of (link ?? "").matchAll(/<([^<>]*)>([^<>]*)/g)) {
    if (!/;\s*rel\s*=\s*"?next"?\s*(?:[;,]|$)/i.test(params)) continue;
    if (!URL.canParse(target, upstream)) continue;
    const next = new URL(target, upstream);
    // Compare hosts, not origins: registries behind a TLS proxy write http:// in their own links.
    if (next.host !== upstream.host) continue;
    const ns = client.searchParams.get("ns");
    // Append it as text: URLSearchParams would re-encode upstream's query.
    const kept = ns !== null && !next.searchParams.has("ns")
      ? `${next.search ? "&" : "?"}ns=${encodeURIComponent(ns)}`
      : "";
    return `<${client.pathname}${next.search}${kept}>; rel="next"`;
  }
  return undefined;
}

/** The inputs of a manifest's or blob's headers. */
export interface ContentOptions {
  /** The kind of content. */
  readonly kind: "manifest" | "blob";
  /** The digest of the whole content. */
  readonly digest: string;
  /** The size of the whole content, in bytes. */
  readonly size: number;
  /** The media type. @default {"application/octet-stream"} */
  readonly mediaType?: string;
  /** The cache result, sent as `X-Cache`. */
  readonly cache: "HIT" | "MISS" | "STALE" | "BYPASS";
  /** Seconds since upstream last confirmed the content. */
  readonly ageSeconds?: number;
  /** The range sent. Undefined for the whole content. */
  readonly range?: Part;
  /** Whether it was requested by tag, so that the content may change. @default {false} */
  readonly byTag?: boolean;
}

/**
 * Returns the headers of stored content. `private` keeps shared HTTP caches from serving it to clients
 * without access, `no-transform` keeps them from compressing it.
 */
export function contentHeaders(options: ContentOptions): Headers {
  const { kind, digest, size, mediaType, cache, ageSeconds, range, byTag } = options;
  return new Headers({
    ...API_VERSION,
    "content-type": mediaType ? essence(mediaType) : "application/octet-stream",
    "content-length": String(range ? range.end - range.start + 1 : size),
    "docker-content-digest": digest,
    "etag": `"${digest}"`,
    "cache-control": byTag
      ? "private, no-transform, no-cache"
      : "private, no-transform, max-age=31536000, immutable",
    "x-cache": cache,
    "x-content-type-options": "nosniff",
    ...kind === "blob" && { "accept-ranges": "bytes" },
    ...range && { "content-range": contentRange(range, size) },
    ...ageSeconds !== undefined && { "age": String(Math.max(0, Math.floor(ageSeconds))) },
  });
}

function pick(headers: Headers, names: readonly string[]): Headers {
  const result = new Headers();
  for (const name of names) {
    const value = headers.get(name);
    if (value !== null) result.set(name, value);
  }
  return result;
}
