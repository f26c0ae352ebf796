/**
 * Environment and flags → one frozen, validated {@linkcode Config}; all problems reported at once.
 * Nothing else in the program reads the environment.
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

/** Everything the proxy may be told, parsed. Durations in milliseconds, sizes in bytes. */
export interface Config {
  /** The domain below which each registry has a host name of its own. */
  readonly customDomain: string;
  /** Where clients connect. */
  readonly listen: {
    readonly host: string;
    readonly port: number;
    /** Paths of PEM files; present for https. */
    readonly tls?: { readonly cert: string; readonly key: string };
  };
  /**
   * Whether the listener is our own. On Deno Deploy, and where requests are to be traced (`OTEL_DENO`), it is
   * `Deno.serve`.
   */
  readonly ownHttp: boolean;
  /** Whether Deno exports traces (`OTEL_DENO=true`). */
  readonly traced: boolean;
  /** Absent: nothing is stored. */
  readonly cache?: {
    readonly dir: string;
    readonly maxSize: number;
    readonly manifestTtl: number;
    readonly blobTtl: number;
    readonly store: StoreSetting;
    readonly index: IndexSetting;
    /** What the index may take, bytes: tags, links, marks and notes of referrers a tenth of it each. */
    readonly indexSize: number;
    /** With a store elsewhere: what downloads under way may take here, bytes. */
    readonly fillsSize: number;
    /** Whether clients are sent to the store for blobs that are in it. */
    readonly storeRedirect: boolean;
    /** How the instances that share the cache reach this one; absent: by its first address. */
    readonly peerUrl?: string;
    /** Whether upstream is never asked: what is not here does not exist. */
    readonly only: boolean;
  };
  /** The operator's listener; absent: there is none. */
  readonly admin?: {
    readonly host: string;
    readonly port: number;
    /** Absent: whoever reaches the address is the operator. */
    readonly token?: string;
    /** Whether the address was asked for: then it is an error when it cannot be had. */
    readonly isWanted: boolean;
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
  /** The upstream registries. */
  readonly registries: readonly Registry[];
  /** Where every unmatched host goes (`TARGET_UPSTREAM`, only with `DEBUG`). */
  readonly fallback?: Registry;
  /** Which redirects are followed here, beside those that always are. */
  readonly redirects: {
    readonly followAll: boolean;
    readonly blockedHosts: readonly string[];
    readonly storageHosts: readonly string[];
  };
  /** Whether upstreams may name private, loopback and link-local addresses. */
  readonly allowPrivateNetworks: boolean;
  /** Whether an outbound proxy (`HTTPS_PROXY` and its kin) makes the connections. */
  readonly outboundProxy: boolean;
  /** A file of authorities that Deno trusts beside its own (`DENO_CERT`), PEM. */
  readonly authoritiesFile?: string;
  /** Whose X-Forwarded headers are believed: nobody's, whoever's it is that connects, or these networks'. */
  readonly trustProxy: boolean | readonly string[];
  /** The scheme that clients are told; absent: found out for each request. */
  readonly publicScheme?: "http" | "https";
  /** How long an upstream body may stand still before it is cut and resumed. */
  readonly upstreamIdleTimeout: number;
  /** How long transfers may go on after SIGTERM. */
  readonly shutdownTimeout: number;
  /** What is logged, and how. */
  readonly log: LogSettings;
  /** Whether `DEBUG` is on. */
  readonly debug: boolean;
  /** What looks like a setting and is none, a line each: to be told, not to stop for. */
  readonly doubts: readonly string[];
}

/** A configuration that cannot be used: every problem, one line each. */
export class ConfigError extends Error {
  /** Tells it from other errors. */
  override readonly name = "ConfigError";
  /** The problems, one line each. */
  readonly problems: readonly string[];

  /** Makes the error of `problems`. */
  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.problems = problems;
  }
}

/** Options for {@linkcode parseConfig}. */
export interface ConfigOptions {
  /** Reads `UPSTREAM_<NAME>_PASSWORD_FILE`. @default {Deno.readTextFileSync} */
  readonly readFile?: (path: string) => string;
  /** Names in `env` that come from a file of settings, where nothing else belongs. @default {[]} */
  readonly file?: readonly string[];
}

/**
 * The configuration in `env` (an empty value counts as unset). Throws a {@linkcode ConfigError} that
 * lists every problem.
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
  const engines = checkEngines(values, []); // its problems are among those of `combinationProblems`
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
    doubts: warningsAbout(Object.keys(given), { file: options.file, debug }),
  });
}

function adminOf(
  { ADMIN_ADDR: address, ADMIN_TOKEN: token }: v.InferOutput<typeof Environment>,
  set: Readonly<Record<string, string>>,
): Config["admin"] {
  if (address === "off") return undefined;
  return { ...address, token, isWanted: set["ADMIN_ADDR"] !== undefined };
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

/** `TARGET_UPSTREAM` as a registry; Docker Hub keeps its `library/` habit there too. */
function fallbackFor(url: URL): Registry {
  return registryOf("target", url, { library: isDockerHub(url) });
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === "object" && inner !== null && !Object.isFrozen(inner)) deepFreeze(inner);
  }
  return Object.freeze(value);
}
