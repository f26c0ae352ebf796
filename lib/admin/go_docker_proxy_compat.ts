/**
 * Serves `/stats` and `/stats/cache` in go-docker-proxy's format (its main.go, cache_manager.go and
 * cache_memory.go), for existing scripts and dashboards. Sizes are in bytes, rates in percent.
 *
 * @module
 */
import type { Proxy } from "../proxy/proxy.ts";
import type { Stats } from "../telemetry/stats.ts";

/** The body of `/stats`. */
export async function goDockerProxyStats(proxy: Proxy) {
  return {
    uptime: formatGoDuration(Date.now() - proxy.stats.startedAt),
    enabled: proxy.cache !== undefined,
    ...proxy.cache && { cache: await cacheStats(proxy) },
  };
}

/** The body of `/stats/cache`. */
export async function goDockerProxyCacheStats(proxy: Proxy) {
  const { cache } = proxy.config;
  return {
    config: {
      directory: cache?.dir ?? "",
      manifestTTL: formatGoDuration(cache?.manifestTtl ?? 0),
      blobTTL: formatGoDuration(cache?.blobTtl ?? 0),
      enabled: proxy.cache !== undefined,
    },
    ...proxy.cache && { stats: await cacheStats(proxy) },
  };
}

async function cacheStats({ cache, stats }: Proxy) {
  const { content, index } = cache!;
  const { bytes, entries } = await index.totals();
  // go-docker-proxy stores a file per manifest name. Here manifests are stored by digest, and tags refer to
  // them.
  const tags = await index.tagCount();
  const fills = [...content.fills];
  const joined = stats.cacheEvents.get("joined");
  const asked = requestsOf(stats, "blob").misses;
  return {
    blob: { count: entries, ...requestsOf(stats, "blob") },
    manifest: { count: tags, ...requestsOf(stats, "manifest") },
    totalSize: bytes,
    totalSizeHuman: formatGoSize(bytes),
    deduplication: joined,
    // `lastCleanup` is omitted: the size limit is enforced on admission, not by periodic cleanup.
    inflight: {
      totalRequests: asked,
      deduplicated: joined,
      savingsRate: asked > 0 ? joined / asked * 100 : 0,
      currentActive: fills.length,
      activeKeys: fills.map(({ digest }) => digest),
    },
  };
}

/** Returns the hits and misses of one kind. Every request not served from the cache is a miss. */
function requestsOf(stats: Stats, kind: "blob" | "manifest") {
  let hits = 0;
  let misses = 0;
  for (const [labels, n] of stats.requests.entries()) {
    const [, of, , result] = labels.split(" ");
    if (of !== kind) continue;
    if (result === "HIT" || result === "STALE") hits += n;
    else if (result === "MISS" || result === "BYPASS") misses += n;
  }
  const requests = hits + misses;
  const rate = requests > 0 ? hits / requests * 100 : 0;
  return { requests, hits, misses, hitRate: `${rate.toFixed(2)}%` };
}

/** Formats `ms` like Go's `time.Duration`: `24h0m0s`, `1m2.5s`, `500ms`. */
export function formatGoDuration(ms: number): string {
  const whole = Math.max(0, Math.round(ms));
  if (whole === 0) return "0s";
  if (whole < 1000) return `${whole}ms`;
  const seconds = `${whole % 60_000 / 1000}s`;
  const minutes = Math.floor(whole / 60_000);
  if (minutes === 0) return seconds;
  if (minutes < 60) return `${minutes}m${seconds}`;
  return `${Math.floor(minutes / 60)}h${minutes % 60}m${seconds}`;
}

/** Formats `bytes` as go-docker-proxy does: powers of 1024, called `KB`, `MB` … */
export function formatGoSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes / 1024;
  let unit = 0;
  for (; value >= 1024 && unit < 5; unit++) value /= 1024;
  return `${value.toFixed(2)} ${"KMGTPE"[unit]}B`;
}
