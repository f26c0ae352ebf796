/**
 * Parses the environment and flags into one frozen, validated {@linkcode Config}, and reports all problems
 * at once. No other part of the program reads the environment.
 *
 * @module
 */
import * as v from "valibot";
import { checkEngines, type IndexSetting, type StoreSetting } from "./engine_url.ts";
import type { QuotaThreshold, RateLimits, RepositoryRules } from "./values.ts";
import type { Platforms } from "../oci/platform.ts";
import { isDockerHub, type Registry, registryOf } from "../oci/registry.ts";
import { OUTBOUND_PROXY, warningsAbout } from "./warnings.ts";
import { Environment, withCurrentNames } from "./environment.ts";
import type { LogSettings } from "../telemetry/log.ts";
import { cacheProblems, combinationProblems } from "./combinations.ts";
import { readRegistries } from "./upstreams.ts";

export { SETTINGS } from "./environment.ts";
export { type LogLevel } from "../telemetry/log.ts";
export { UPSTREAM_SUFFIXES } from "./upstreams.ts";

/** The parsed configuration. Durations are in milliseconds, sizes in bytes. */
export interface Config {
  /** The domain below which each registry has its own host name. */
  readonly customDomain: string;
  /** The public listener. */
  readonly listen: {
    readonly host: string;
    readonly port: number;
    /** Paths of PEM files. Set for https. */
    readonly tls?: { readonly cert: string; readonly key: string };
  };
  /**
   * Whether to use the proxy's own HTTP listener. `Deno.serve` is used instead on Deno Deploy, and when
   * requests are traced (`OTEL_DENO`).
   */
  readonly ownHttp: boolean;
  /** Whether Deno exports traces (`OTEL_DENO=true`). */
  readonly traced: boolean;
  /** Undefined if the cache is off. */
  readonly cache?: {
    readonly dir: string;
    readonly maxSize: number;
    readonly manifestTtl: number;
    readonly blobTtl: number;
    readonly store: StoreSetting;
    readonly index: IndexSetting;
    /**
     * Maximum size of the index in bytes. Tags, links, public marks and referrer notes get a tenth of it
     * each.
     */
    readonly indexSize: number;
    /** Maximum bytes of local staging for downloads in progress, if the store is remote. */
    readonly fillsSize: number;
    /** Whether clients are redirected to the store for blobs that it holds. */
    readonly storeRedirect: boolean;
    /**
     * The URL at which instances that share the cache reach this one. Defaults to this host's first
     * non-loopback address.
     */
    readonly peerUrl?: string;
    /** Whether the proxy never contacts upstreams. Uncached content then returns 404. */
    readonly only: boolean;
  };
  /** The operator's listener. Undefined if it is off. */
  readonly admin?: {
    readonly host: string;
    readonly port: number;
    /** The operator's token. If undefined, every client that reaches the address is the operator. */
    readonly token?: string;
    /** Whether `ADMIN_ADDR` was set explicitly. Failing to listen is then an error. */
    readonly isWanted: boolean;
  };
  /** The images to keep warm, and how often they are checked. */
  readonly warm: {
    readonly images: readonly string[];
    readonly platforms: Platforms;
    readonly interval: number;
  };
  /** Limits on clients. Undefined if none is set; a member is undefined if that limit is not set. */
  readonly limits?: {
    readonly repositories?: RepositoryRules;
    /** Networks whose clients are allowed. */
    readonly clients?: readonly string[];
    /** Rate limits of each client. */
    readonly rate?: RateLimits;
    /** Maximum number of concurrent downloads from upstream. */
    readonly maxFills?: number;
  };
  /** The quota below which the proxy conserves pulls, and how long tags then stay fresh. */
  readonly quota: { readonly threshold: QuotaThreshold; readonly manifestTtl: number };
  /** The upstream registries. */
  readonly registries: readonly Registry[];
  /** The upstream for every unmatched host (`TARGET_UPSTREAM`, only with `DEBUG`). */
  readonly fallback?: Registry;
  /** Redirects that the proxy follows itself, in addition to those that it always follows. */
  readonly redirects: {
    readonly followAll: boolean;
    readonly blockedHosts: readonly string[];
    readonly storageHosts: readonly string[];
  };
  /** Whether upstreams may resolve to private, loopback and link-local addresses. */
  readonly allowPrivateNetworks: boolean;
  /** Whether an outbound proxy (`HTTPS_PROXY` and related variables) makes the connections. */
  readonly outboundProxy: boolean;
  /** Path of a PEM file of certificate authorities that Deno trusts in addition to its own (`DENO_CERT`). */
  readonly authoritiesFile?: string;
  /**
   * Which peers' X-Forwarded headers are trusted: none (`false`), all (`true`), or those in these networks.
   */
  readonly trustProxy: boolean | readonly string[];
  /** The scheme of URLs sent to clients. If undefined, it is derived from each request. */
  readonly publicScheme?: "http" | "https";
  /** How long an upstream body may stall before the download is aborted and resumed. */
  readonly upstreamIdleTimeout: number;
  /** How long transfers may continue after SIGTERM. */
  readonly shutdownTimeout: number;
  /** Log level and format. */
  readonly log: LogSettings;
  /** Whether `DEBUG` is on. */
  readonly debug: boolean;
  /**
   * Warnings about names that look like misspelled or unused settings, one line each. They do not stop the
   * start.
   */
  readonly warnings: readonly string[];
}

/** Thrown for an invalid configuration. Lists every problem, one per line. */
export class ConfigError extends Error {
  /** The name of this class of error. */
  override readonly name = "ConfigError";
  /** The problems, one line each. */
  readonly problems: readonly string[];

  /** Creates an error that lists `problems`. */
  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.problems = problems;
  }
}

/** Options for {@linkcode parseConfig}. */
export interface ConfigOptions {
  /** Reads the file named by `UPSTREAM_<NAME>_PASSWORD_FILE`. @default {Deno.readTextFileSync} */
  readonly readFile?: (path: string) => string;
  /**
   * Names in `env` that come from an environment file. Every unknown name among them is reported. @default
   * {[]}
   */
  readonly file?: readonly string[];
}

/**
 * Parses `env` into a configuration. An empty value counts as unset.
 *
 * @throws {ConfigError} that lists every problem.
 */
export function parseConfig(
  env: Readonly<Record<string, string | undefined>>,
  options: ConfigOptions = {},
): Config {
  const given = Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, string] => !!entry[1]),
  );
  const set = withCurrentNames(given);
  const problems: string[] = [];
  const readFile = options.readFile ?? Deno.readTextFileSync;
  const registries = readRegistries(set, { readFile, problems });
  const result = v.safeParse(Environment, set);
  problems.push(...combinationProblems(set), ...cacheProblems(set, registries));
  if (!result.success) {
    problems.push(
      ...result.issues.map((issue) => `${v.getDotPath(issue) ?? "environment"}: ${issue.message}`),
    );
  }
  if (!result.success || problems.length > 0) throw new ConfigError(problems);
  const values = result.output;
  const debug = values.DEBUG ?? values.MODE === "debug";
  const engines = checkEngines(values, []); // these problems are already in `combinationProblems`
  const onDeploy = values.DENO_DEPLOY ?? values.DENO_DEPLOYMENT_ID ?? false;
  const isTraced = /^(true|1)$/i.test(set["OTEL_DENO"] ?? "");
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
    ownHttp: !onDeploy && !isTraced,
    traced: isTraced,
    cache: cacheEnabled
      ? {
        dir: values.CACHE_DIR,
        maxSize: values.CACHE_MAX_SIZE,
        manifestTtl: values.CACHE_MANIFEST_TTL,
        blobTtl: values.CACHE_BLOB_TTL,
        ...engines,
        indexSize: values.CACHE_INDEX_SIZE,
        fillsSize: values.CACHE_STAGING_SIZE,
        storeRedirect: values.STORE_REDIRECT,
        peerUrl: values.ADVERTISE_URL?.href.replace(/\/$/, ""),
        only: values.OFFLINE,
      }
      : undefined,
    admin: onDeploy ? undefined : adminOf(values, set),
    warm: {
      images: values.WARM_IMAGES,
      platforms: values.WARM_PLATFORMS,
      interval: values.WARM_INTERVAL,
    },
    limits: limitsOf(values),
    quota: { threshold: values.QUOTA_THRESHOLD, manifestTtl: values.QUOTA_MANIFEST_TTL },
    registries,
    fallback: debug && values.TARGET_UPSTREAM ? fallbackFor(values.TARGET_UPSTREAM) : undefined,
    redirects: {
      followAll: values.FOLLOW_ALL_REDIRECTS ?? cacheEnabled,
      blockedHosts: values.BLOCKED_HOSTS,
      storageHosts: values.STORAGE_HOSTS,
    },
    allowPrivateNetworks: values.ALLOW_PRIVATE_NETWORKS,
    outboundProxy: OUTBOUND_PROXY.some((name) => set[name] !== undefined),
    authoritiesFile: set["DENO_CERT"],
    trustProxy: values.TRUST_PROXY,
    publicScheme: values.PUBLIC_SCHEME === "auto" ? undefined : values.PUBLIC_SCHEME,
    upstreamIdleTimeout: values.UPSTREAM_IDLE_TIMEOUT,
    shutdownTimeout: values.SHUTDOWN_TIMEOUT,
    log: { level: values.LOG_LEVEL ?? (debug ? "debug" : "info"), format: values.LOG_FORMAT },
    debug,
    warnings: warningsAbout(Object.keys(given), { file: options.file, debug }),
  });
}

function adminOf(
  { ADMIN_ADDR: address, ADMIN_TOKEN: token }: v.InferOutput<typeof Environment>,
  set: Readonly<Record<string, string>>,
): Config["admin"] {
  if (address === "off") return undefined;
  return { ...address, token, isWanted: set["ADMIN_ADDR"] !== undefined };
}

/** Returns the limits that are set, or undefined if there are none. */
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

/** Returns `TARGET_UPSTREAM` as a registry. For Docker Hub it also adds the `library/` prefix. */
function fallbackFor(url: URL): Registry {
  return registryOf("target", url, { library: isDockerHub(url) });
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === "object" && inner !== null && !Object.isFrozen(inner)) deepFreeze(inner);
  }
  return Object.freeze(value);
}
