/**
 * The state of the proxy, as the API tells it. Times in ms since the epoch, sizes in bytes.
 *
 * @module
 */
import { clientName } from "../image_name.ts";
import type { Proxy } from "../proxy.ts";
import { causeOf } from "../upstream/send.ts";
import { VERSION } from "../version.ts";
import { countByCache } from "./history.ts";
import type { LoopLag } from "./loop_lag.ts";

const EVICTIONS = ["space", "unused", "damaged", "removed"] as const;
/** What an operator should know of: the disk or the index failed, a download was wrong, nothing more fitted. */
const TROUBLES = ["disk_error", "mismatch", "no_room"] as const;

/** How all of it stands. */
export async function overview(proxy: Proxy, lag: LoopLag) {
  const { stats, cache, config } = proxy;
  const counts = countByCache(stats);
  const count = (result: string) => counts.get(result) ?? 0;
  return {
    version: VERSION,
    startedAt: stats.startedAt,
    now: Date.now(),
    cache: cache
      ? {
        ...await totalsOf(cache),
        cap: cache.content.space.maxSize,
        evictions: Object.fromEntries(
          EVICTIONS.map((reason) => [reason, stats.cacheEvents.get(`evicted_${reason}`)]),
        ),
        troubles: Object.fromEntries(
          TROUBLES.map((event) => [event, stats.cacheEvents.get(event)]),
        ),
      }
      : null,
    requests: {
      total: stats.requests.total,
      hit: count("HIT"),
      miss: count("MISS"),
      stale: count("STALE"),
      bypass: count("BYPASS"),
      other: count("-"),
    },
    bytes: {
      toClients: stats.bytesToClients,
      fromCache: stats.bytesFromCache,
      fromUpstream: stats.bytesFromUpstream,
    },
    rejected: Object.fromEntries(stats.rejected.entries()),
    memory: { rss: Deno.memoryUsage().rss },
    loopLagMs: lag.worst,
    limits: { cacheOnly: config.cache?.only ?? false },
  };
}

/** What the index says; where it fails why, for then the rest is what the operator looks for. */
async function totalsOf({ index }: NonNullable<Proxy["cache"]>) {
  try {
    return { ...await index.totals(), problem: null };
  } catch (error) {
    return { bytes: null, entries: null, reserved: null, problem: causeOf(error) };
  }
}

/** Every registry, and how it answered last. */
export function registries({ config, stats, quotas }: Proxy) {
  const sum = (counter: Iterable<[string, number]>, name: string) =>
    [...counter].filter(([labels]) => labels.split(" ")[0] === name)
      .reduce((total, [, n]) => total + n, 0);
  return config.registries.map((registry) => {
    const { name, id, url, aliases } = registry;
    const state = stats.registries.get(name);
    const quota = quotas.entries().filter((entry) => entry.registry === id)
      .sort((a, b) => b.remaining - a.remaining)[0];
    return {
      name,
      url: url.href,
      hosts: [clientName(registry), ...aliases].filter((host, i, all) => all.indexOf(host) === i),
      state: state ? (state.isUp ? "up" : "down") : "unknown",
      latencyMs: state?.latency === undefined ? null : Math.round(state.latency),
      requests: sum(stats.upstreamRequests.entries(), name),
      errors: sum(stats.upstreamErrors.entries(), name),
      quota: quota
        ? { limit: quota.limit ?? null, remaining: quota.remaining, at: quota.seenAt }
        : null,
    };
  });
}

/** Downloads under way, the oldest first. */
export function fills({ cache }: Proxy) {
  return [...cache?.content.fills ?? []].map((fill) => {
    const seconds = Math.max(0.001, (Date.now() - fill.startedAt) / 1000);
    return {
      digest: fill.digest,
      registry: fill.origin?.registry ?? null,
      repository: fill.origin?.repository ?? null,
      received: fill.received,
      size: fill.size ?? null,
      readers: fill.readers,
      startedAt: fill.startedAt,
      bytesPerSecond: Math.round(fill.received / seconds),
    };
  });
}
