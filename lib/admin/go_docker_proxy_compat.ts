/**
 * `/stats` and `/stats/cache` as go-docker-proxy answers them (its main.go, cache_manager.go and
 * cache_memory.go), for scripts and dashboards that were made for it. Sizes in bytes, rates in percent.
 *
 * @module
 */
import type { Proxy } from "../proxy/proxy.ts";
import type { Stats } from "../telemetry/stats.ts";

/** What it answers at `/stats`. */
export async function goDockerProxyStats(proxy: Proxy) {
  return {
    uptime: formatGoDuration(Date.now() - proxy.stats.startedAt),
    enabled: proxy.cache !== undefined,
    ...proxy.cache && { cache: await cacheStats(proxy) },
  };
}

/** What it answers at `/stats/cache`. */
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
  // It counted a file per name of a manifest; here manifests are content as blobs are, and tags name them.
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
    // `lastCleanup` is left out: the size is kept at admission, not by a round.
    inflight: {
      totalRequests: asked,
      deduplicated: joined,
      savingsRate: asked > 0 ? joined / asked * 100 : 0,
      currentActive: fills.length,
      activeKeys: fills.map(({ digest }) => digest),
    },
  };
}

/** Hits and misses of one kind: whatever was not served from the cache is a miss. */
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

/** `ms` as Go's `time.Duration` prints itself: `24h0m0s`, `1m2.5s`, `500ms`. */
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

/** `bytes` as it prints them: powers of 1024, called `KB`, `MB` … */
export function formatGoSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes / 1024;
  let unit = 0;
  for (; value >= 1024 && unit < 5; unit++) value /= 1024;
  return `${value.toFixed(2)} ${"KMGTPE"[unit]}B`;
}
