/**
 * The schema of every setting with a fixed name, and its default. docs/settings.md documents the same
 * table.
 *
 * @module
 */
import type { LogLevel } from "../telemetry/log.ts";
import * as v from "valibot";
import { parseIndexSetting, parseStoreSetting } from "./engine_url.ts";
import {
  listOf,
  parseAdminAddress,
  parseAdminToken,
  parseBoolean,
  parseCount,
  parseDomain,
  parseHost,
  parseHosts,
  parseList,
  parseNetwork,
  parsePattern,
  parsePort,
  parseRateLimits,
  parseThreshold,
  parseTrust,
  parseUpstream,
  parseWait,
} from "./values.ts";
import { parsePlatforms } from "../oci/platform.ts";
import { parseDuration, parseSize } from "../util/units.ts";

/** Transforms a string with `parse`. The message of an error that it throws becomes the problem's message. */
function parsed<T>(parse: (text: string) => T) {
  return v.pipe(
    v.string(),
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return parse(dataset.value);
      } catch (error) {
        addIssue({ message: (error as Error).message });
        return NEVER;
      }
    }),
  );
}

const flag = (fallback: "true" | "false") => v.optional(parsed(parseBoolean), fallback);
const optionalFlag = v.optional(parsed(parseBoolean));
const duration = (fallback: string) => v.optional(parsed(parseDuration), fallback);
const hosts = v.optional(parsed(parseHosts), "");

/** Accepts one of `words`, ignoring case. */
function word<const T extends string>(words: readonly T[], fallback: T) {
  return v.optional(
    parsed((text) => {
      const found = words.find((known) => known === text.toLowerCase());
      if (found === undefined) throw new RangeError(`Expected ${words.join(", ")}: ${text}`);
      return found;
    }),
    fallback,
  );
}

/** The schema of the environment. */
export const Environment = v.object({
  CUSTOM_DOMAIN: v.optional(parsed(parseDomain), "localhost"),
  HOST: v.optional(parsed(parseHost), "0.0.0.0"),
  PORT: v.optional(parsed(parsePort), "8080"),
  TLS_CERT: v.optional(v.string()),
  TLS_KEY: v.optional(v.string()),
  CACHE_ENABLED: optionalFlag,
  CACHE_DIR: v.optional(v.string(), "./cache"),
  CACHE_MAX_SIZE: v.optional(parsed(parseSize), "10GiB"),
  CACHE_MANIFEST_TTL: duration("5m"),
  CACHE_BLOB_TTL: duration("1y"),
  CACHE_STORE: v.optional(parsed(parseStoreSetting), "files"),
  CACHE_INDEX: v.optional(parsed(parseIndexSetting)),
  CACHE_INDEX_SIZE: v.optional(parsed(parseSize), "256MiB"),
  CACHE_STAGING_SIZE: v.optional(parsed(parseSize), "10GiB"),
  STORE_REDIRECT: flag("false"),
  ADVERTISE_URL: v.optional(parsed(parseUpstream)),
  AWS_ACCESS_KEY_ID: v.optional(v.string()),
  AWS_SECRET_ACCESS_KEY: v.optional(v.string()),
  AWS_SESSION_TOKEN: v.optional(v.string()),
  AWS_REGION: v.optional(v.string()),
  OFFLINE: flag("false"),
  ADMIN_ADDR: v.optional(parsed(parseAdminAddress), "127.0.0.1:9090"),
  ADMIN_TOKEN: v.optional(parsed(parseAdminToken)),
  WARM_IMAGES: v.optional(parsed(parseList), ""),
  WARM_INTERVAL: v.optional(parsed(parseWait(1)), "1h"),
  WARM_PLATFORMS: v.optional(parsed(parsePlatforms), "all"),
  BLOCKED_HOSTS: hosts,
  STORAGE_HOSTS: hosts,
  FOLLOW_ALL_REDIRECTS: optionalFlag,
  ALLOW_PRIVATE_NETWORKS: flag("false"),
  TRUST_PROXY: v.optional(parsed(parseTrust), "false"),
  PUBLIC_SCHEME: word(["auto", "http", "https"], "auto"),
  ALLOW_REPOS: v.optional(parsed(listOf(parsePattern)), ""),
  DENY_REPOS: v.optional(parsed(listOf(parsePattern)), ""),
  ALLOW_CLIENTS: v.optional(parsed(listOf(parseNetwork)), ""),
  RATE_LIMIT: v.optional(parsed(parseRateLimits)),
  MAX_CONCURRENT_FILLS: v.optional(parsed(parseCount), "64"),
  QUOTA_THRESHOLD: v.optional(parsed(parseThreshold), "20%"),
  QUOTA_MANIFEST_TTL: v.optional(parsed(parseWait(0)), "1h"),
  UPSTREAM_IDLE_TIMEOUT: v.optional(parsed(parseWait(1)), "30s"),
  SHUTDOWN_TIMEOUT: v.optional(parsed(parseWait(0)), "30s"),
  DEBUG: optionalFlag,
  MODE: word(["production", "debug"], "production"),
  LOG_LEVEL: v.optional(
    parsed((text) => {
      const level = { warn: "warning" }[text.toLowerCase()] ?? text.toLowerCase();
      const levels: readonly LogLevel[] = ["debug", "info", "warning", "error"];
      const found = levels.find((known) => known === level);
      if (!found) throw new RangeError(`Expected debug, info, warning or error: ${text}`);
      return found;
    }),
  ),
  LOG_FORMAT: word(["text", "json"], "text"),
  TARGET_UPSTREAM: v.optional(parsed(parseUpstream)),
  DENO_DEPLOY: optionalPresence(),
  DENO_DEPLOYMENT_ID: optionalPresence(),
});

/** Accepts any value, and returns whether one is set. */
function optionalPresence() {
  return v.optional(parsed((text) => text !== "0" && text !== "false"));
}

/** Deprecated names of settings, and their current names. */
export const RENAMED: Readonly<Record<string, string>> = {
  CACHE_FILLS_SIZE: "CACHE_STAGING_SIZE",
  PEER_URL: "ADVERTISE_URL",
  CACHE_ONLY: "OFFLINE",
};

/**
 * Returns `set` with deprecated names replaced by current ones. If both have a value, the current name
 * wins.
 */
export function withCurrentNames(set: Readonly<Record<string, string>>): Record<string, string> {
  const current = Object.entries(set).map(([name, value]) =>
    [Object.hasOwn(RENAMED, name) ? RENAMED[name]! : name, value] as const
  );
  return { ...Object.fromEntries(current), ...set };
}

/** The names of all settings that have a fixed name, in documentation order. */
export const SETTINGS: readonly string[] = Object.keys(Environment.entries);
