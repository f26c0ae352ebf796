/**
 * The state of the proxy, as the API returns it. Times are in ms since the epoch, sizes in bytes. A
 * `registry` is the part before an image's name (`docker.io`). A registry's `name` is that of its settings
 * (`docker` for `UPSTREAM_DOCKER`), also used in the log and the metrics.
 *
 * @module
 */
import { clientName } from "../oci/image_name.ts";
import type { Proxy } from "../proxy/proxy.ts";
import type { Counter } from "../telemetry/stats.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { VERSION } from "../util/version.ts";
import { countByCache } from "../operator/history.ts";

const EVICTIONS = ["space", "unused", "damaged", "removed"] as const;
/** Events that need the operator's attention: disk or index errors, wrong content, no space left. */
const TROUBLES = ["disk_error", "mismatch", "no_room"] as const;

/** Returns an overview of the proxy's state. */
export async function overview(proxy: Proxy) {
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
    loopLagMs: proxy.lag.worst,
    limits: { cacheOnly: config.cache?.only ?? false, waiting: proxy.queues.fills.waiting },
  };
}

/** Returns the totals of the index, or the reason why it failed. */
async function totalsOf({ index }: NonNullable<Proxy["cache"]>) {
  try {
    return { ...await index.totals(), problem: null };
  } catch (error) {
    return { bytes: null, entries: null, reserved: null, problem: causeOf(error) };
  }
}

/** Returns the sum of the counters whose first label is `name`, and whose second is `second` if given. */
function sumOf(counter: Counter, name: string, second?: string): number {
  return [...counter.entries()].filter(([labels]) => {
    const [one, two] = labels.split(" ");
    return one === name && (second === undefined || two === second);
  }).reduce((total, [, n]) => total + n, 0);
}

/** Returns every registry and its last response. */
export function registries({ config, stats, quotas }: Proxy) {
  return config.registries.map((registry) => {
    const { name, id, url, aliases } = registry;
    const state = stats.registries.get(name);
    const quota = quotas.entries().filter((entry) => entry.registry === id)
      .sort((a, b) => b.remaining - a.remaining)[0];
    return {
      registry: clientName(registry),
      name,
      url: url.href,
      hosts: [clientName(registry), ...aliases].filter((host, i, all) => all.indexOf(host) === i),
      state: state ? (state.isUp ? "up" : "down") : "unknown",
      problem: state?.problem ?? null,
      askedAt: state?.at ?? null,
      latencyMs: state?.latency === undefined ? null : Math.round(state.latency),
      requests: sumOf(stats.upstreamRequests, name) + sumOf(stats.upstreamErrors, name),
      // A client considers a 503 a failure.
      errors: sumOf(stats.upstreamErrors, name) + sumOf(stats.upstreamRequests, name, "5xx"),
      quota: quota
        ? { limit: quota.limit ?? null, remaining: quota.remaining, at: quota.seenAt }
        : null,
    };
  });
}

/** Returns the downloads in progress, oldest first. */
export function fills({ cache, config }: Proxy) {
  const names = new Map(config.registries.map((one) => [one.name, clientName(one)]));
  const nameOf = (registry: string | undefined) => names.get(registry ?? "") ?? registry ?? null;
  return [...cache?.content.fills ?? []].map((fill) => {
    const seconds = Math.max(0.001, (Date.now() - fill.startedAt) / 1000);
    return {
      digest: fill.digest,
      registry: nameOf(fill.origin?.registry),
      repository: fill.origin?.repository ?? null,
      received: fill.received,
      size: fill.size ?? null,
      readers: fill.readers,
      startedAt: fill.startedAt,
      bytesPerSecond: Math.round(fill.received / seconds),
    };
  });
}
