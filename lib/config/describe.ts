/**
 * Prints the configuration in force: every setting, with secrets masked.
 *
 * @module
 */
import type { Config } from "./config.ts";
import { describeEngine } from "./engine_url.ts";
import { formatRateLimits, formatThreshold } from "./values.ts";
import type { Registry } from "../oci/registry.ts";
import { formatDuration, formatExactSize } from "../util/units.ts";

const MASK = "********";

function registryLines(registry: Registry): string[] {
  const name = `UPSTREAM_${registry.name.toUpperCase().replaceAll("-", "_")}`;
  const lines = [`${name}=${registry.url.href.replace(/\/$/, "")}`];
  const { credentials, credentialsFile: file } = registry;
  const [own] = credentials.slice(0, credentials.length - (file?.count ?? 0));
  if (own) lines.push(`${name}_USERNAME=${own.username}`, `${name}_PASSWORD=${MASK}`);
  if (file) lines.push(`${name}_CREDENTIALS_FILE=${file.path}`);
  if (registry.sharePrivate) lines.push(`${name}_SHARE_PRIVATE=true`);
  return lines;
}

function adminLines({ admin }: Config): string[] {
  if (!admin) return ["ADMIN_ADDR=off"];
  const host = admin.host.includes(":") ? `[${admin.host}]` : admin.host;
  return [
    `ADMIN_ADDR=${host}:${admin.port}`,
    ...admin.token === undefined ? [] : [`ADMIN_TOKEN=${MASK}`],
  ];
}

function limitLines({ limits, quota }: Config): string[] {
  const { repositories, clients, rate, maxFills } = limits ?? {};
  return [
    `ALLOW_REPOS=${repositories?.allow.join(",") ?? ""}`,
    `DENY_REPOS=${repositories?.deny.join(",") ?? ""}`,
    `ALLOW_CLIENTS=${clients?.join(",") ?? ""}`,
    ...rate ? [`RATE_LIMIT=${formatRateLimits(rate)}`] : [],
    ...maxFills === undefined ? [] : [`MAX_CONCURRENT_FILLS=${maxFills}`],
    `QUOTA_THRESHOLD=${formatThreshold(quota.threshold)}`,
    `QUOTA_MANIFEST_TTL=${formatDuration(quota.manifestTtl)}`,
  ];
}

/** Quotes the value in `line` if an environment file requires it. */
function quoted(line: string): string {
  const [, name, value = ""] = /^([^=]*)=(.*)$/s.exec(line) ?? [];
  if (!/[\s#'"`]/.test(value)) return line;
  const quote = ["'", '"', "`"].find((mark) => !value.includes(mark)) ?? "'";
  return `${name}=${quote}${value}${quote}`;
}

/** Returns `config` as lines of an environment file, with secrets masked. */
export function describeConfig(config: Config): string {
  return linesOf(config).map(quoted).join("\n");
}

/** Returns `config` as an object of settings by name, with secrets masked. */
export function settingsInForce(config: Config): Record<string, string> {
  return Object.fromEntries(
    linesOf(config).map((line) => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}

function linesOf(config: Config): string[] {
  const { listen, cache, redirects, log } = config;
  return [
    `CUSTOM_DOMAIN=${config.customDomain}`,
    `HOST=${listen.host}`,
    `PORT=${listen.port}`,
    ...listen.tls ? [`TLS_CERT=${listen.tls.cert}`, `TLS_KEY=${listen.tls.key}`] : [],
    `CACHE_ENABLED=${cache !== undefined}`,
    ...cache
      ? [
        `CACHE_DIR=${cache.dir}`,
        `CACHE_MAX_SIZE=${formatExactSize(cache.maxSize)}`,
        `CACHE_MANIFEST_TTL=${formatDuration(cache.manifestTtl)}`,
        `CACHE_BLOB_TTL=${formatDuration(cache.blobTtl)}`,
        `CACHE_STORE=${describeEngine(cache.store)}`,
        `CACHE_INDEX=${describeEngine(cache.index)}`,
        `CACHE_INDEX_SIZE=${formatExactSize(cache.indexSize)}`,
        `OFFLINE=${cache.only}`,
        `CACHE_STAGING_SIZE=${formatExactSize(cache.fillsSize)}`,
        `STORE_REDIRECT=${cache.storeRedirect}`,
        ...cache.peerUrl ? [`ADVERTISE_URL=${cache.peerUrl}`] : [],
      ]
      : [],
    ...adminLines(config),
    ...config.registries.flatMap(registryLines),
    ...config.fallback ? [`TARGET_UPSTREAM=${config.fallback.url.href}`] : [],
    `BLOCKED_HOSTS=${redirects.blockedHosts.join(",")}`,
    `STORAGE_HOSTS=${redirects.storageHosts.join(",")}`,
    `FOLLOW_ALL_REDIRECTS=${redirects.followAll}`,
    `ALLOW_PRIVATE_NETWORKS=${config.allowPrivateNetworks}`,
    `TRUST_PROXY=${config.trustProxy}`,
    ...limitLines(config),
    `WARM_IMAGES=${config.warm.images.join(",")}`,
    `WARM_INTERVAL=${formatDuration(config.warm.interval)}`,
    `WARM_PLATFORMS=${[config.warm.platforms].flat().join(",")}`,
    `PUBLIC_SCHEME=${config.publicScheme ?? "auto"}`,
    `UPSTREAM_IDLE_TIMEOUT=${formatDuration(config.upstreamIdleTimeout)}`,
    `SHUTDOWN_TIMEOUT=${formatDuration(config.shutdownTimeout)}`,
    `DEBUG=${config.debug}`,
    `LOG_LEVEL=${log.level}`,
    `LOG_FORMAT=${log.format}`,
  ];
}
