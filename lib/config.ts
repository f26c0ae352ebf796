/**
 * Environment and flags → one frozen, validated {@linkcode Config}; all problems reported at once.
 * Nothing else in the program reads the environment.
 *
 * @module
 */
import { isIP } from "node:net";
import * as v from "valibot";
import {
  DEFAULT_REGISTRY,
  type Registry,
  registryOf,
  SEEDS,
  type ServiceCredential,
} from "./registry.ts";
import {
  checkEngines,
  type IndexSetting,
  parseIndexSetting,
  parseStoreSetting,
  type StoreSetting,
} from "./engine_url.ts";
import { resolveImage } from "./image_name.ts";
import { parseThreshold, type QuotaThreshold } from "./limits/quota.ts";
import { parseRateLimits, type RateLimits } from "./limits/rate.ts";
import { parsePlatforms, type Platforms } from "./platform.ts";
import { parseNetwork, parsePattern, type RepositoryRules } from "./transforms/policy.ts";
import { parseDuration, parseSize } from "./units.ts";

/** Everything the proxy may be told, parsed. Durations in milliseconds, sizes in bytes. */
export interface Config {
  readonly customDomain: string;
  readonly listen: {
    readonly host: string;
    readonly port: number;
    /** Paths of PEM files; present for https. */
    readonly tls?: { readonly cert: string; readonly key: string };
  };
  /**
   * Whether plain HTTP is served by the listener of our own. `Deno.serve` does it on Deno Deploy, and where
   * it is to be traced (`OTEL_DENO`); with TLS it always does.
   */
  readonly ownHttp: boolean;
  /** Absent: nothing is stored. */
  readonly cache?: {
    readonly dir: string;
    readonly maxSize: number;
    readonly manifestTtl: number;
    readonly blobTtl: number;
    readonly store: StoreSetting;
    readonly index: IndexSetting;
    /** Whether clients are sent to the store for blobs that are in it. */
    readonly storeRedirect: boolean;
    /** How the instances that share the cache reach this one; absent: by its first address. */
    readonly peerUrl?: string;
    /** Whether upstream is never asked: what is not here does not exist. */
    readonly only: boolean;
  };
  /** What is kept warm, and how often it is looked after. */
  readonly warm: {
    readonly images: readonly string[];
    readonly platforms: Platforms;
    readonly interval: number;
  };
  /** Absent: nobody is turned away. Each of them absent: not for that. */
  readonly limits?: {
    readonly repositories?: RepositoryRules;
    /** Networks. */
    readonly clients?: readonly string[];
    /** Of each client. */
    readonly rate?: RateLimits;
    /** Downloads from upstream at once. */
    readonly maxFills?: number;
  };
  /** From when on pulls are spared, and how long tags are fresh then. */
  readonly quota: { readonly threshold: QuotaThreshold; readonly manifestTtl: number };
  readonly registries: readonly Registry[];
  /** Where every unmatched host goes (`TARGET_UPSTREAM`, only with `DEBUG`). */
  readonly fallback?: Registry;
  readonly redirects: {
    readonly followAll: boolean;
    readonly blockedHosts: readonly string[];
    readonly storageHosts: readonly string[];
  };
  readonly allowPrivateNetworks: boolean;
  /** Whether an outbound proxy (`HTTPS_PROXY` and its kin) makes the connections. */
  readonly outboundProxy: boolean;
  /** Whose X-Forwarded headers are believed: nobody's, whoever's it is that connects, or these networks'. */
  readonly trustProxy: boolean | readonly string[];
  readonly publicScheme?: "http" | "https";
  /** How long an upstream body may stand still before it is cut and resumed. */
  readonly upstreamIdleTimeout: number;
  /** How long transfers may go on after SIGTERM. */
  readonly shutdownTimeout: number;
  readonly log: { readonly level: LogLevel; readonly format: "text" | "json" };
  readonly debug: boolean;
}

/** The least severe level that is logged. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** A configuration that cannot be used: every problem, one line each. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.problems = problems;
  }
}

/** Options for {@linkcode parseConfig}. */
export interface ConfigOptions {
  /** Reads `UPSTREAM_<NAME>_PASSWORD_FILE`. @default {Deno.readTextFileSync} */
  readonly readFile?: (path: string) => string;
}

/** What `parse` makes of a string; the message of what it throws becomes the problem's. */
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

function parseBoolean(text: string): boolean {
  const value = text.toLowerCase();
  if (["true", "1", "yes", "on"].includes(value)) return true;
  if (["false", "0", "no", "off"].includes(value)) return false;
  throw new RangeError(`Expected true or false: ${text}`);
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : NaN;
  if (!(port <= 65535)) throw new RangeError(`Expected a port from 0 to 65535: ${text}`);
  return port;
}

function parseDomain(text: string): string {
  const domain = text.toLowerCase().replace(/\.$/, "");
  if (!/^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(domain)) {
    throw new RangeError(`Expected a host name without scheme, port or path: ${text}`);
  }
  return domain;
}

function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (isIP(host) !== 0) return host;
  if (!/^[\w-]+(\.[\w-]+)*$/.test(host)) {
    throw new RangeError(`Expected an address or a host name, without port: ${text}`);
  }
  return host;
}

/** Longer timers than this (24.8 days) would run out at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** A time to wait: `parseDuration` within what a timer can do, and at least `least` ms. */
function parseWait(least: number): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms < least) throw new RangeError(`Expected a longer time: ${text}`);
    if (ms > LONGEST_TIMER) throw new RangeError(`Expected at most 24d: ${text}`);
    return ms;
  };
}

function parseUpstream(text: string): URL {
  // Before anything that repeats the text in its message.
  if (text.includes("@")) {
    throw new RangeError("Credentials do not belong in the URL: use _USERNAME and _PASSWORD");
  }
  const url = URL.parse(text.includes("://") ? text : `https://${text}`);
  if (!url || !["http:", "https:"].includes(url.protocol)) {
    throw new RangeError(`Expected an http or https URL: ${text}`);
  }
  if (url.search || url.hash) throw new RangeError(`Expected a URL without query: ${text}`);
  return url;
}

function parseList(text: string): readonly string[] {
  return Object.freeze(text.split(/[\s,]+/).filter((entry) => entry !== ""));
}

/** Parses each entry of a list. */
function listOf<T>(parse: (text: string) => T): (text: string) => readonly T[] {
  return (text) => Object.freeze(parseList(text).map(parse));
}

/** `true`, `false`, or the networks of the proxies that are trusted. */
function parseTrust(text: string): boolean | readonly string[] {
  return /^(true|false|1|0|yes|no|on|off)$/i.test(text)
    ? parseBoolean(text)
    : listOf(parseNetwork)(text);
}

function parseCount(text: string): number {
  const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (count < 1) throw new RangeError(`Expected a number from 1: ${text}`);
  return count;
}

/** `username:password` lines; empty ones and those that begin with `#` are none. */
function parseCredentials(text: string): ServiceCredential[] {
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

function parseHosts(text: string): readonly string[] {
  return Object.freeze(parseList(text).map((host) => parseDomain(host.replace(/^\*?\./, ""))));
}

const flag = (fallback: "true" | "false") => v.optional(parsed(parseBoolean), fallback);
const optionalFlag = v.optional(parsed(parseBoolean));
const duration = (fallback: string) => v.optional(parsed(parseDuration), fallback);
const hosts = v.optional(parsed(parseHosts), "");

/** `one` of the given words, in any case. */
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

const Environment = v.object({
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
  STORE_REDIRECT: flag("false"),
  PEER_URL: v.optional(parsed(parseUpstream)),
  AWS_ACCESS_KEY_ID: v.optional(v.string()),
  AWS_SECRET_ACCESS_KEY: v.optional(v.string()),
  AWS_SESSION_TOKEN: v.optional(v.string()),
  AWS_REGION: v.optional(v.string()),
  CACHE_ONLY: flag("false"),
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
  MAX_CONCURRENT_FILLS: v.optional(parsed(parseCount)),
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

/** Set at all, to whatever. */
function optionalPresence() {
  return v.optional(parsed((text) => text !== "0" && text !== "false"));
}

/** The names of every setting that has a fixed name, in the order of the documentation. */
export const SETTINGS: readonly string[] = Object.keys(Environment.entries);

/** The suffixes of the settings that each registry has, after `UPSTREAM_<NAME>`. */
export const UPSTREAM_SUFFIXES = [
  "_PASSWORD_FILE",
  "_CREDENTIALS_FILE",
  "_PASSWORD",
  "_USERNAME",
  "_SHARE_PRIVATE",
] as const;

/** Deno reads these itself; here it only matters that there is one. */
const OUTBOUND_PROXY = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
  .flatMap((name) => [name, name.toLowerCase()]);

const UPSTREAM_PREFIX = "UPSTREAM_";
type UpstreamSuffix = typeof UPSTREAM_SUFFIXES[number] | "";

interface UpstreamSettings {
  readonly values: Partial<Record<UpstreamSuffix, string>>;
}

/** Groups `UPSTREAM_K8S_GCR_PASSWORD` and its kin by registry name (`k8s-gcr`). */
function groupUpstreams(env: Readonly<Record<string, string>>): Map<string, UpstreamSettings> {
  const groups = new Map<string, UpstreamSettings>();
  for (const [key, value] of Object.entries(env)) {
    if (!key.startsWith(UPSTREAM_PREFIX) || SETTINGS.includes(key)) continue;
    const suffix = UPSTREAM_SUFFIXES.find((known) => key.endsWith(known)) ?? "";
    const name = key.slice(UPSTREAM_PREFIX.length, key.length - suffix.length)
      .toLowerCase().replaceAll("_", "-");
    const group = groups.get(name) ?? { values: {} };
    group.values[suffix] = value;
    groups.set(name, group);
  }
  return groups;
}

/** The setting's full name, for messages: (`k8s-gcr`, `_PASSWORD`) → `UPSTREAM_K8S_GCR_PASSWORD`. */
function upstreamKey(name: string, suffix: UpstreamSuffix): string {
  return UPSTREAM_PREFIX + name.toUpperCase().replaceAll("-", "_") + suffix;
}

/** Reads the settings of one registry; `problems` collects what is wrong with them. */
function readUpstream(
  name: string,
  { values }: UpstreamSettings,
  context: { readFile: (path: string) => string; problems: string[] },
): Registry | undefined {
  const seed = SEEDS[name];
  const attempt = <T>(suffix: UpstreamSuffix, read: (text: string) => T): T | undefined => {
    const text = values[suffix];
    if (text === undefined) return undefined;
    try {
      return read(text);
    } catch (error) {
      context.problems.push(`${upstreamKey(name, suffix)}: ${(error as Error).message}`);
    }
  };
  if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) {
    context.problems.push(`${upstreamKey(name, "")}: Not a registry name: ${name}`);
    return undefined;
  }
  const url = attempt("", parseUpstream);
  const sharePrivate = attempt("_SHARE_PRIVATE", parseBoolean);
  const passwordFromFile = attempt("_PASSWORD_FILE", (path) => context.readFile(path).trimEnd());
  const password = values._PASSWORD ?? passwordFromFile;
  const username = values._USERNAME;
  if (!url && values[""] === undefined && !seed) {
    context.problems.push(`${upstreamKey(name, "")}: Missing: no registry is called ${name}`);
  }
  if (values._PASSWORD !== undefined && values._PASSWORD_FILE !== undefined) {
    context.problems.push(`${upstreamKey(name, "_PASSWORD")}: Set either this or _PASSWORD_FILE`);
  }
  const hasPassword = values._PASSWORD !== undefined || values._PASSWORD_FILE !== undefined;
  if ((username === undefined) === hasPassword) {
    const [missing, present]: [UpstreamSuffix, UpstreamSuffix] = hasPassword
      ? ["_USERNAME", "_PASSWORD"]
      : ["_PASSWORD", "_USERNAME"];
    context.problems.push(
      `${upstreamKey(name, missing)}: Missing beside ${upstreamKey(name, present)}`,
    );
  }
  const fromFile = attempt("_CREDENTIALS_FILE", (path) => parseCredentials(context.readFile(path)));
  if (sharePrivate && username === undefined && values._CREDENTIALS_FILE === undefined) {
    context.problems.push(
      `${upstreamKey(name, "_SHARE_PRIVATE")}: Needs ${upstreamKey(name, "_USERNAME")}`,
    );
  }
  const credentials: ServiceCredential[] = [
    ...username !== undefined && password !== undefined
      ? [Object.freeze({ username, password })]
      : [],
    ...fromFile ?? [],
  ];
  const base = url ?? (seed && new URL(seed.url));
  return base && registryOf(name, base, {
    // An override keeps the seed's own host as a name: clients go on saying "ghcr.io", wherever that leads.
    aliases: seed && [...seed.aliases ?? [], new URL(seed.url).host],
    library: seed?.library,
    credentials,
    credentialsFile: fromFile && { path: values._CREDENTIALS_FILE!, count: fromFile.length },
    sharePrivate,
  });
}

/** Seeds with their overrides, then the registries that only the environment names. */
function readRegistries(
  env: Readonly<Record<string, string>>,
  context: { readFile: (path: string) => string; problems: string[] },
): readonly Registry[] {
  const groups = groupUpstreams(env);
  const names = new Set([...Object.keys(SEEDS), ...groups.keys()]);
  const registries = [...names].map((name) =>
    readUpstream(name, groups.get(name) ?? { values: {} }, context)
  );
  return Object.freeze(registries.filter((registry) => registry !== undefined));
}

/**
 * The configuration in `env` (an empty value counts as unset). Throws a {@linkcode ConfigError} that
 * lists every problem.
 */
export function parseConfig(
  env: Readonly<Record<string, string | undefined>>,
  options: ConfigOptions = {},
): Config {
  const set = Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => !!entry[1]),
  );
  const problems: string[] = [];
  const readFile = options.readFile ?? Deno.readTextFileSync;
  const registries = readRegistries(set, { readFile, problems });
  const result = v.safeParse(Environment, set);
  problems.push(...crossProblems(set), ...cacheProblems(set, registries));
  if (!result.success) {
    problems.push(
      ...result.issues.map((issue) => `${v.getDotPath(issue) ?? "environment"}: ${issue.message}`),
    );
  }
  if (!result.success || problems.length > 0) throw new ConfigError(problems);
  const values = result.output;
  const debug = isDebug(values);
  const engines = checkEngines(values, []); // its problems are among those of `crossProblems`
  const onDeploy = values.DENO_DEPLOY ?? values.DENO_DEPLOYMENT_ID ?? false;
  const cacheEnabled = !onDeploy && (values.CACHE_ENABLED ?? true);
  return deepFreeze({
    customDomain: values.CUSTOM_DOMAIN,
    listen: {
      host: values.HOST,
      port: values.PORT,
      tls: values.TLS_CERT && values.TLS_KEY
        ? { cert: values.TLS_CERT, key: values.TLS_KEY }
        : undefined,
    },
    ownHttp: !onDeploy && !/^(true|1)$/i.test(set["OTEL_DENO"] ?? ""),
    cache: cacheEnabled
      ? {
        dir: values.CACHE_DIR,
        maxSize: values.CACHE_MAX_SIZE,
        manifestTtl: values.CACHE_MANIFEST_TTL,
        blobTtl: values.CACHE_BLOB_TTL,
        ...engines,
        storeRedirect: values.STORE_REDIRECT,
        peerUrl: values.PEER_URL?.href.replace(/\/$/, ""),
        only: values.CACHE_ONLY,
      }
      : undefined,
    warm: {
      images: values.WARM_IMAGES,
      platforms: values.WARM_PLATFORMS,
      interval: values.WARM_INTERVAL,
    },
    limits: limitsOf(values),
    quota: { threshold: values.QUOTA_THRESHOLD, manifestTtl: values.QUOTA_MANIFEST_TTL },
    registries,
    fallback: values.TARGET_UPSTREAM && fallbackFor(values.TARGET_UPSTREAM),
    redirects: {
      followAll: values.FOLLOW_ALL_REDIRECTS ?? cacheEnabled,
      blockedHosts: values.BLOCKED_HOSTS,
      storageHosts: values.STORAGE_HOSTS,
    },
    allowPrivateNetworks: values.ALLOW_PRIVATE_NETWORKS,
    outboundProxy: OUTBOUND_PROXY.some((name) => set[name] !== undefined),
    trustProxy: values.TRUST_PROXY,
    publicScheme: values.PUBLIC_SCHEME === "auto" ? undefined : values.PUBLIC_SCHEME,
    upstreamIdleTimeout: values.UPSTREAM_IDLE_TIMEOUT,
    shutdownTimeout: values.SHUTDOWN_TIMEOUT,
    log: { level: values.LOG_LEVEL ?? (debug ? "debug" : "info"), format: values.LOG_FORMAT },
    debug,
  });
}

/** The limits that are set; undefined where none is, so that nothing need be asked of them. */
function limitsOf(values: v.InferOutput<typeof Environment>): Config["limits"] {
  const { ALLOW_REPOS: allow, DENY_REPOS: deny, ALLOW_CLIENTS: clients } = values;
  const limits = {
    repositories: allow.length + deny.length > 0 ? { allow, deny } : undefined,
    clients: clients.length > 0 ? clients : undefined,
    rate: values.RATE_LIMIT,
    maxFills: values.MAX_CONCURRENT_FILLS,
  };
  return Object.values(limits).some((limit) => limit !== undefined) ? limits : undefined;
}

const DebugSettings = v.pick(Environment, ["DEBUG", "MODE"]);
const EngineSettings = v.pick(Environment, [
  "CACHE_STORE",
  "CACHE_INDEX",
  "STORE_REDIRECT",
  "AWS_REGION",
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
]);

/**
 * What is wrong between settings that are right by themselves: told beside what is wrong in others, so
 * that everything is told at once.
 */
function crossProblems(set: Readonly<Record<string, string>>): string[] {
  const problems: string[] = [];
  if ((set["TLS_CERT"] === undefined) !== (set["TLS_KEY"] === undefined)) {
    problems.push("TLS_CERT: Set both TLS_CERT and TLS_KEY, or neither");
  }
  const debug = v.safeParse(DebugSettings, set);
  if (set["TARGET_UPSTREAM"] !== undefined && debug.success && !isDebug(debug.output)) {
    problems.push(
      "TARGET_UPSTREAM: Only with DEBUG=true: it opens every host name to one upstream",
    );
  }
  const engines = v.safeParse(EngineSettings, set);
  if (engines.success) checkEngines(engines.output, problems);
  return problems;
}

const CacheSettings = v.pick(Environment, [
  "CACHE_ENABLED",
  "CACHE_ONLY",
  "CUSTOM_DOMAIN",
  "WARM_IMAGES",
]);

/** What is asked of a cache that is off, and images to keep warm that are none. */
function cacheProblems(
  set: Readonly<Record<string, string>>,
  registries: readonly Registry[],
): string[] {
  const settings = v.safeParse(CacheSettings, set);
  if (!settings.success) return [];
  const { CACHE_ENABLED, CACHE_ONLY, CUSTOM_DOMAIN: customDomain, WARM_IMAGES } = settings.output;
  const problems: string[] = [];
  if (CACHE_ENABLED === false && CACHE_ONLY) {
    problems.push("CACHE_ONLY: Needs the cache, and CACHE_ENABLED is false");
  }
  if (CACHE_ENABLED === false && WARM_IMAGES.length > 0) {
    problems.push("WARM_IMAGES: Needs the cache, and CACHE_ENABLED is false");
  }
  for (const image of WARM_IMAGES) {
    try {
      resolveImage(image, { customDomain, registries });
    } catch (error) {
      problems.push(`WARM_IMAGES: ${(error as Error).message}: ${image}`);
    }
  }
  return problems;
}

function isDebug({ DEBUG, MODE }: v.InferOutput<typeof DebugSettings>): boolean {
  return DEBUG ?? MODE === "debug";
}

/** `TARGET_UPSTREAM` as a registry; Docker Hub keeps its `library/` habit there too. */
function fallbackFor(url: URL): Registry {
  const isHub = url.hostname === new URL(SEEDS[DEFAULT_REGISTRY]!.url).hostname;
  return registryOf("target", url, { library: isHub });
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === "object" && inner !== null && !Object.isFrozen(inner)) deepFreeze(inner);
  }
  return Object.freeze(value);
}
