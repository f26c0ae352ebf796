/**
 * Which headers go where. Headers are copied by allow-list, never by deny-list.
 *
 * @module
 */
import { API_VERSION } from "../oci/api_version.ts";
import { essence } from "../oci/media_type.ts";
import { contentRange, type Part } from "./range.ts";
import type { TargetKind } from "./route.ts";

/** What an exchange with upstream is about. */
export type ExchangeKind = TargetKind | "catalog" | "ping";

/**
 * What of a client's request goes upstream. Never Authorization (the token code decides on that),
 * Cookie, Host or X-Forwarded-*: they are between the client and us.
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
 * What of upstream's answer goes to the client. Never Set-Cookie, RateLimit-*, WWW-Authenticate:
 * they are between upstream and us. Link only by way of {@linkcode rewriteLink}.
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
 * Returns the headers of a request upstream for the client's `headers`. Always with
 * `accept-encoding: identity`: anything else, or nothing, makes fetch decode the body, whose
 * length and digest are then wrong.
 */
export function upstreamHeaders(headers: Headers, options: { kind: ExchangeKind }): Headers {
  const result = pick(headers, REQUEST[options.kind]);
  result.set("accept-encoding", "identity");
  return result;
}

/** Options for {@linkcode replyHeaders}. */
export interface ReplyHeadersOptions {
  /** What was asked for. */
  readonly kind: ExchangeKind;
  /** Of upstream's answer: Retry-After is kept with 429 and 503 only. */
  readonly status: number;
  /** Without it a Link is left out. */
  readonly link?: LinkOptions;
}

/** Returns the headers of a client's answer that is upstream's `upstream` passed through. */
export function replyHeaders(upstream: Headers, options: ReplyHeadersOptions): Headers {
  const { kind, status, link } = options;
  const result = pick(upstream, REPLY[kind]);
  // fetch has decoded the body by now: its length is another, and an exact range of it means nothing.
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

/** What {@linkcode rewriteLink} depends on. */
export interface LinkOptions {
  /** The URL that upstream answered at. */
  readonly upstream: URL;
  /** The URL that the client asked for. */
  readonly client: URL;
}

/**
 * Returns upstream's Link as one to this proxy, or undefined where there is no `rel="next"` or it
 * points to another host. Every list of this API is continued at its own path (distribution
 * specification, "Listing Tags"), so only the query is upstream's; the client's `ns` is kept.
 */
export function rewriteLink(link: string | null, options: LinkOptions): string | undefined {
  const { upstream, client } = options;
  for (const [, target = "", params = ""] of (link ?? "").matchAll(/<([^<>]*)>([^<>]*)/g)) {
    if (!/;\s*rel\s*=\s*"?next"?\s*(?:[;,]|$)/i.test(params)) continue;
    if (!URL.canParse(target, upstream)) continue;
    const next = new URL(target, upstream);
    // The host and not the origin: registries behind a TLS proxy write http:// of themselves.
    if (next.host !== upstream.host) continue;
    const ns = client.searchParams.get("ns");
    // Appended as text: URLSearchParams would write upstream's own query anew.
    const kept = ns !== null && !next.searchParams.has("ns")
      ? `${next.search ? "&" : "?"}ns=${encodeURIComponent(ns)}`
      : "";
    return `<${client.pathname}${next.search}${kept}>; rel="next"`;
  }
  return undefined;
}

/** What the headers of a manifest or blob say. */
export interface ContentOptions {
  /** What it is. */
  readonly kind: "manifest" | "blob";
  /** Of the whole content. */
  readonly digest: string;
  /** Of the whole content, in bytes. */
  readonly size: number;
  /** Of the content. @default {"application/octet-stream"} */
  readonly mediaType?: string;
  /** How the cache answered: `X-Cache`. */
  readonly cache: "HIT" | "MISS" | "STALE" | "BYPASS";
  /** How long ago upstream last said so, in seconds. */
  readonly ageSeconds?: number;
  /** The part that is sent, if not all. */
  readonly range?: Part;
  /** Whether it was asked for by tag, and may be something else next time. @default {false} */
  readonly byTag?: boolean;
}

/**
 * Returns the headers of a manifest or blob from the store. `private`, so that no shared HTTP cache
 * in front serves it to somebody who may not read it; `no-transform`, so that none compresses it.
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
