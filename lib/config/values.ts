/**
 * The values of settings, from text. Each parser throws a `RangeError` that says what is accepted, and that
 * becomes the setting's problem as it is: it must repeat no secret.
 *
 * @module
 */
import { formatDuration, parseDuration } from "../util/units.ts";

import { plainAddress } from "../util/address.ts";
import { isIP } from "node:net";
import type { ServiceCredential } from "../oci/registry.ts";

/** `true`, `1`, `yes`, `on`, or their opposites, in any case. */
export function parseBoolean(text: string): boolean {
  const value = text.toLowerCase();
  if (["true", "1", "yes", "on"].includes(value)) return true;
  if (["false", "0", "no", "off"].includes(value)) return false;
  throw new RangeError(`Expected true or false: ${text}`);
}

/** A port, 0 for any that is free. */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : NaN;
  if (!(port <= 65535)) throw new RangeError(`Expected a port from 0 to 65535: ${text}`);
  return port;
}

/** A host name, in lower case and without a trailing dot. */
export function parseDomain(text: string): string {
  const domain = text.toLowerCase().replace(/\.$/, "");
  if (!/^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(domain)) {
    throw new RangeError(`Expected a host name without scheme, port or path: ${text}`);
  }
  return domain;
}

/** An address to listen at, an IPv6 one without brackets. */
export function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (isIP(host) !== 0) return host;
  if (!/^[\w-]+(\.[\w-]+)*$/.test(host)) {
    throw new RangeError(`Expected an address or a host name, without port: ${text}`);
  }
  return host;
}

/** An address and a port, `127.0.0.1:9090` or `[::1]:9090`, or `off`. */
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

/** The operator's token: long enough not to be guessed, and such that an HTTP header can carry it. */
export function parseAdminToken(text: string): string {
  // Never the text itself: it is a secret all the same.
  if (text.length < 16) throw new RangeError("Expected at least 16 characters");
  if (!/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text)) {
    throw new RangeError("Expected ASCII characters, and no space around them");
  }
  return text;
}

/** Whether only this machine reaches `host`. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Longer timers than this (24.8 days) would run out at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** A time to wait: `parseDuration` within what a timer can do, and at least `least` ms. */
export function parseWait(least: number): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms < least) throw new RangeError(`Expected a longer time: ${text}`);
    if (ms > LONGEST_TIMER) throw new RangeError(`Expected at most 24d: ${text}`);
    return ms;
  };
}

/** The URL of a registry or of an instance: https unless it says http, without credentials and query. */
export function parseUpstream(text: string): URL {
  // Before anything that repeats the text in its message.
  if (text.includes("@")) {
    throw new RangeError("Credentials do not belong in the URL: use _USERNAME and _PASSWORD");
  }
  const hasScheme = text.includes("://");
  // A word alone is more likely somebody's password in the wrong place: neither taken nor repeated.
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

/** Entries by commas or spaces. */
export function parseList(text: string): readonly string[] {
  return Object.freeze(text.split(/[\s,]+/).filter((entry) => entry !== ""));
}

/** Parses each entry of a list. */
export function listOf<T>(parse: (text: string) => T): (text: string) => readonly T[] {
  return (text) => Object.freeze(parseList(text).map(parse));
}

/** `true`, `false`, or the networks of the proxies that are trusted. */
export function parseTrust(text: string): boolean | readonly string[] {
  return /^(true|false|1|0|yes|no|on|off)$/i.test(text)
    ? parseBoolean(text)
    : listOf(parseNetwork)(text);
}

/** A number from 1. */
export function parseCount(text: string): number {
  const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (count < 1) throw new RangeError(`Expected a number from 1: ${text}`);
  return count;
}

/** `username:password` lines; empty ones and those that begin with `#` are none. */
export function parseCredentials(text: string): ServiceCredential[] {
  const lines = text.split(/\r?\n/).map((line, i) => ({ line: line.trim(), number: i + 1 }));
  const credentials = lines.filter(({ line }) => line !== "" && !line.startsWith("#"))
    .map(({ line, number }) => {
      const [, username, password] = /^([^:]+):(.+)$/.exec(line) ?? [];
      // Never the line itself: it may hold a password.
      if (username === undefined || password === undefined) {
        throw new RangeError(`Expected username:password in line ${number}`);
      }
      return Object.freeze({ username, password });
    });
  if (credentials.length === 0) throw new RangeError("Expected lines of username:password");
  return credentials;
}

/** Host names; a leading `.` or `*.` of one means nothing. */
export function parseHosts(text: string): readonly string[] {
  return Object.freeze(parseList(text).map((host) => parseDomain(host.replace(/^\*?\./, ""))));
}

/** Which repositories may be read. Patterns as {@linkcode parsePattern} gives them. */
export interface RepositoryRules {
  /** Empty: all of them. */
  readonly allow: readonly string[];
  /** Wins over `allow`. */
  readonly deny: readonly string[];
}

/**
 * Returns the pattern in `text`: a registry's name, host or alias, and a repository, with `*` for any
 * characters, a slash too, and `?` for one: `docker.io/library/*`, `ghcr.io/*`.
 *
 * @throws {RangeError} for one without a registry, which would silently match nothing.
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
 * @throws {RangeError} for what is none.
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

/** Below which a quota is low: a number of pulls, or a share of the limit from 0 to 1. */
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

/** `threshold` as {@linkcode parseThreshold} reads it. */
export function formatThreshold(threshold: QuotaThreshold): string {
  return "count" in threshold
    ? String(threshold.count)
    : `${Number((threshold.share * 100).toFixed())}%`;
}

/** At most `count` times in any `period` ms. */
export interface Rate {
  /** How many. */
  readonly count: number;
  /** Milliseconds. */
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

/** Budgets of one client; absent: without limit. A hit costs a disk read, a miss costs upstream. */
export interface RateLimits {
  /** Of answers from the cache. */
  readonly hits?: Rate;
  /** Of everything that upstream is asked. */
  readonly misses?: Rate;
}

/**
 * Returns the limits in `text`: `500/3h` for hits and for misses, each counted by itself, or one by name:
 * `misses=500/3h,hits=20000/1h`. Throws a `RangeError` that says what is accepted.
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

/** `limits` as {@linkcode parseRateLimits} reads them. */
export function formatRateLimits({ hits, misses }: RateLimits): string {
  const format = ({ count, period }: Rate) => `${count}/${formatDuration(period)}`;
  return [misses && `misses=${format(misses)}`, hits && `hits=${format(hits)}`]
    .filter(Boolean).join(",");
}
