/**
 * Parses the values of settings. Each parser throws a `RangeError` that says what is accepted. Its message
 * is reported to the user unchanged, so it must not contain a secret.
 *
 * @module
 */
import { formatDuration, parseDuration } from "../util/units.ts";

import { plainAddress } from "../util/address.ts";
import { isIP } from "node:net";
import type { ServiceCredential } from "../oci/registry.ts";

/** Parses `true`, `1`, `yes`, `on`, or their opposites, ignoring case. */
export function parseBoolean(text: string): boolean {
  const value = text.toLowerCase();
  if (["true", "1", "yes", "on"].includes(value)) return true;
  if (["false", "0", "no", "off"].includes(value)) return false;
  throw new RangeError(`Expected true or false: ${text}`);
}

/** Parses a port. 0 means any free port. */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : NaN;
  if (!(port <= 65535)) throw new RangeError(`Expected a port from 0 to 65535: ${text}`);
  return port;
}

/** Parses a host name. Returns it in lower case, without a trailing dot. */
export function parseDomain(text: string): string {
  const domain = text.toLowerCase().replace(/\.$/, "");
  if (!/^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(domain)) {
    throw new RangeError(`Expected a host name without scheme, port or path: ${text}`);
  }
  return domain;
}

/** Parses an address to listen on. An IPv6 address has no brackets. */
export function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (isIP(host) !== 0) return host;
  if (!/^[\w-]+(\.[\w-]+)*$/.test(host)) {
    throw new RangeError(`Expected an address or a host name, without port: ${text}`);
  }
  return host;
}

/** Parses an address and a port, `127.0.0.1:9090` or `[::1]:9090`, or `off`. */
export function parseAdminAddress(
  text: string,
): { readonly host: string; readonly port: number } | "off" {
  if (text.toLowerCase() === "off") return "off";
  const [, host, port] = /^(.+):([^:]+)$/.exec(text) ?? [];
  if (host === undefined || port === undefined) {
    throw new RangeError(`Expected an address with a port, or off: ${text}`);
  }
  return Object.freeze({ host: parseHost(host), port: parsePort(port) });
}

/** Parses the operator's token. It must be long enough to resist guessing, and valid in an HTTP header. */
export function parseAdminToken(text: string): string {
  // Do not include the text: it is a secret even if it is too short.
  if (text.length < 16) throw new RangeError("Expected at least 16 characters");
  if (!/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text)) {
    throw new RangeError("Expected ASCII characters, and no space around them");
  }
  return text;
}

/** Returns whether `host` is a loopback address or `localhost`. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** The longest delay of a timer, 24.8 days in ms. A longer timer fires at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** Returns a parser of durations from `least` ms up to the longest delay of a timer. */
export function parseWait(least: number): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms < least) throw new RangeError(`Expected a longer time: ${text}`);
    if (ms > LONGEST_TIMER) throw new RangeError(`Expected at most 24d: ${text}`);
    return ms;
  };
}

/**
 * Parses the URL of a registry or an instance. The scheme defaults to https. Credentials and a query are
 * rejected.
 */
export function parseUpstream(text: string): URL {
  // Check this before any message that includes the text.
  if (text.includes("@")) {
    throw new RangeError("Credentials do not belong in the URL: use _USERNAME and _PASSWORD");
  }
  const hasScheme = text.includes("://");
  // A single word is more likely a misplaced password. Reject it, and do not include it in the message.
  if (!hasScheme && !/[.:]/.test(text)) {
    throw new RangeError("Expected an http or https URL, or a host with a dot or a port");
  }
  const url = URL.parse(hasScheme ? text : `https://${text}`);
  if (!url || !["http:", "https:"].includes(url.protocol)) {
    throw new RangeError(`Expected an http or https URL: ${text}`);
  }
  if (url.search || url.hash) throw new RangeError(`Expected a URL without query: ${text}`);
  return url;
}

/** Splits a list at commas or spaces. */
export function parseList(text: string): readonly string[] {
  return Object.freeze(text.split(/[\s,]+/).filter((entry) => entry !== ""));
}

/** Returns a parser that applies `parse` to each entry of a list. */
export function listOf<T>(parse: (text: string) => T): (text: string) => readonly T[] {
  return (text) => Object.freeze(parseList(text).map(parse));
}

/** Parses `true`, `false`, or the networks of trusted proxies. */
export function parseTrust(text: string): boolean | readonly string[] {
  return /^(true|false|1|0|yes|no|on|off)$/i.test(text)
    ? parseBoolean(text)
    : listOf(parseNetwork)(text);
}

/** Parses a positive integer. */
export function parseCount(text: string): number {
  const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (count < 1) throw new RangeError(`Expected a number from 1: ${text}`);
  return count;
}

/** Parses lines of `username:password`. Empty lines and lines that start with `#` are ignored. */
export function parseCredentials(text: string): ServiceCredential[] {
  const lines = text.split(/\r?\n/).map((line, i) => ({ line: line.trim(), number: i + 1 }));
  const credentials = lines.filter(({ line }) => line !== "" && !line.startsWith("#"))
    .map(({ line, number }) => {
      const [, username, password] = /^([^:]+):(.+)$/.exec(line) ?? [];
      // Do not include the line: it may contain a password.
      if (username === undefined || password === undefined) {
        throw new RangeError(`Expected username:password in line ${number}`);
      }
      return Object.freeze({ username, password });
    });
  if (credentials.length === 0) throw new RangeError("Expected lines of username:password");
  return credentials;
}

/** Parses host names. A leading `.` or `*.` is ignored. */
export function parseHosts(text: string): readonly string[] {
  return Object.freeze(parseList(text).map((host) => parseDomain(host.replace(/^\*?\./, ""))));
}

/** The repositories that may be read. {@linkcode parsePattern} returns the patterns. */
export interface RepositoryRules {
  /** If empty, every repository is allowed. */
  readonly allow: readonly string[];
  /** Takes precedence over `allow`. */
  readonly deny: readonly string[];
}

/**
 * Returns the pattern in `text`: a registry's name, host or alias, a slash, and a repository. `*` matches
 * any characters including slashes, `?` matches one: `docker.io/library/*`, `ghcr.io/*`.
 *
 * @throws {RangeError} if the pattern names no registry. Such a pattern would never match.
 */
export function parsePattern(text: string): string {
  const pattern = text.toLowerCase();
  if (!/^[a-z0-9.:*?_-]+(\/[a-z0-9.*?_-]+)+$/.test(pattern)) {
    throw new RangeError(`Expected registry/repository such as docker.io/library/*: ${text}`);
  }
  return pattern;
}

/**
 * Returns the network in `text`, `10.0.0.0/8`, `2001:db8::/32` or a single address, for
 * {@linkcode addressSet}.
 *
 * @throws {RangeError} if `text` is neither an address nor a network.
 */
export function parseNetwork(text: string): string {
  const [, base = "", length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const address = plainAddress(base);
  const bits = address === undefined ? 0 : isIP(address) === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : Number(length);
  if (address === undefined || prefix > bits) {
    throw new RangeError(`Expected an address or a network such as 10.0.0.0/8: ${text}`);
  }
  return `${address}/${prefix}`;
}

/**
 * The quota below which the proxy conserves pulls: a number of pulls, or a share of the limit from 0 to 1.
 */
export type QuotaThreshold = { readonly count: number } | { readonly share: number };

/** Returns the threshold in `text`: `20%` or `30`. Throws a `RangeError` that says what is accepted. */
export function parseThreshold(text: string): QuotaThreshold {
  const [, digits, percent] = /^(\d{1,9})(%)?$/.exec(text.trim()) ?? [];
  const value = Number(digits ?? NaN);
  if (percent ? value <= 100 : value >= 0) {
    return percent ? { share: value / 100 } : { count: value };
  }
  throw new RangeError(`Expected a number of pulls or a share such as 20%: ${text}`);
}

/** Formats `threshold` so that {@linkcode parseThreshold} can read it. */
export function formatThreshold(threshold: QuotaThreshold): string {
  return "count" in threshold
    ? String(threshold.count)
    : `${Number((threshold.share * 100).toFixed())}%`;
}

/** A rate: at most `count` requests in any `period` ms. */
export interface Rate {
  /** Maximum number of requests. */
  readonly count: number;
  /** The window in milliseconds. */
  readonly period: number;
}

/** Returns the rate in `text`: `500/3h`. Throws a `RangeError` that says what is accepted. */
export function parseRate(text: string): Rate {
  const [, count = "", period = ""] = /^\s*(\d{1,9})\s*\/\s*(\S+)\s*$/.exec(text) ?? [];
  if (!(Number(count) > 0)) throw new RangeError(`Expected a rate such as 500/3h: ${text}`);
  const rate = {
    count: Number(count),
    period: parseDuration(/^\d/.test(period) ? period : `1${period}`),
  };
  if (rate.period <= 0) throw new RangeError(`Expected a rate such as 500/3h: ${text}`);
  return rate;
}

/**
 * The rate limits of one client. An undefined member means no limit. Hits and misses are separate, because
 * a hit costs a disk read and a miss costs upstream quota.
 */
export interface RateLimits {
  /** Limit for answers from the cache. */
  readonly hits?: Rate;
  /** Limit for requests that go to upstream. */
  readonly misses?: Rate;
}

/**
 * Returns the limits in `text`: `500/3h` limits hits and misses separately to that rate;
 * `misses=500/3h,hits=20000/1h` sets each by name. Throws a `RangeError` that says what is accepted.
 */
export function parseRateLimits(text: string): RateLimits {
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  const named = new Map<string, Rate>();
  for (const part of parts) {
    const [, name, rate = ""] = /^(?:(hits|misses)\s*=)?\s*(.*)$/.exec(part) ?? [];
    if (name === undefined && parts.length > 1) {
      throw new RangeError(`Expected 500/3h, or misses=500/3h,hits=20000/1h: ${text}`);
    }
    for (const key of name === undefined ? ["hits", "misses"] : [name]) {
      if (named.has(key)) throw new RangeError(`Expected one rate for ${key}: ${text}`);
      named.set(key, parseRate(rate));
    }
  }
  return { hits: named.get("hits"), misses: named.get("misses") };
}

/** Formats `limits` so that {@linkcode parseRateLimits} can read them. */
export function formatRateLimits({ hits, misses }: RateLimits): string {
  const format = ({ count, period }: Rate) => `${count}/${formatDuration(period)}`;
  return [misses && `misses=${format(misses)}`, hits && `hits=${format(hits)}`]
    .filter(Boolean).join(",");
}
