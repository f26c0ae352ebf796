/**
 * Serves `/metrics` in the Prometheus text format (version 0.0.4). Other modules count in plain numbers;
 * this one names the counters at each scrape. Label values are bounded: registries, kinds and classes,
 * never a repository.
 *
 * @module
 */
import type { Histogram } from "../telemetry/histogram.ts";
import type { Rejection } from "../limits/gate.ts";
import type { Proxy } from "../proxy/proxy.ts";
import type { Counter } from "../telemetry/stats.ts";
import { VERSION } from "../util/version.ts";

const PREFIX = "registry_proxy_";

const EVENTS = [
  "joined",
  "mismatch",
  "disk_error",
  "no_room",
  "quarantined",
  "evicted_space",
  "evicted_unused",
  "evicted_damaged",
  "evicted_removed",
  "fill_stopped",
  "fill_continued",
  "redis_down",
  "redis_refuses",
  "redis_accepts",
  "redis_up",
  "store_down",
  "store_up",
  "read_failed",
] as const;
const REJECTIONS: readonly Rejection[] = [
  "client",
  "repository",
  "rate_hits",
  "rate_misses",
  "fill_queue",
  "passthrough_queue",
  "requests",
  "connections",
];

/**
 * Returns the counters, and zeros for the other label values: `increase()` misses the first value of a new
 * series.
 */
function fromZero(known: readonly string[], counter: Counter): [string, number][] {
  return [...new Map([...known.map((name) => [name, 0] as const), ...counter.entries()])];
}

/** Exposes the counters of one proxy as metrics. */
export class Metrics {
  readonly #proxy: Proxy;

  constructor(proxy: Proxy) {
    this.#proxy = proxy;
  }

  /** Returns the text of a scrape and its media type. */
  async render(): Promise<{ readonly text: string; readonly contentType: string }> {
    const { stats, config: { registries } } = this.#proxy;
    const ofEach = (...labels: string[]) =>
      registries.flatMap(({ name }) => labels.map((label) => `${name} ${label}`));
    const metrics = new Writer();
    metrics.counters(
      "requests_total",
      "Requests by registry, kind, status class and cache result",
      {
        labels: ["registry", "kind", "status", "cache"],
        from: stats.requests.entries(),
      },
    );
    metrics.counter("bytes_to_clients_total", "Body bytes sent to clients", stats.bytesToClients);
    metrics.counter(
      "bytes_from_cache_total",
      "Body bytes sent from the cache",
      stats.bytesFromCache,
    );
    metrics.counter("bytes_from_upstream_total", "Bytes downloaded", stats.bytesFromUpstream);
    metrics.counters("upstream_requests_total", "Responses from upstreams", {
      labels: ["registry", "status"],
      from: fromZero(ofEach("5xx"), stats.upstreamRequests),
    });
    metrics.counters("upstream_errors_total", "Upstream requests without a response", {
      labels: ["registry", "reason"],
      from: fromZero(ofEach("timeout", "network"), stats.upstreamErrors),
    });
    metrics.counters("upstream_retries_total", "Upstream requests that were retried", {
      labels: ["registry"],
      from: stats.upstreamRetries.entries(),
    });
    metrics.counters("upstream_resumes_total", "Interrupted downloads that were resumed", {
      labels: ["registry"],
      from: stats.upstreamResumes.entries(),
    });
    metrics.counters("cache_events_total", "Cache events", {
      labels: ["event"],
      from: fromZero(EVENTS, stats.cacheEvents),
    });
    metrics.counters("rejected_total", "Rejected requests", {
      labels: ["reason"],
      from: fromZero(REJECTIONS, stats.rejected),
    });
    this.#registries(metrics);
    await this.#cache(metrics);
    metrics.gauge("memory_bytes", "Resident memory", Deno.memoryUsage().rss);
    const { lag } = this.#proxy;
    metrics.gauge(
      "event_loop_lag_seconds",
      "Longest event loop stall of the last 10 s",
      lag.worst / 1000,
    );
    metrics.counter(
      "event_loop_standstill_seconds_total",
      "Total time of event loop stalls",
      lag.total / 1000,
    );
    metrics.gauge("start_time_seconds", "Start time since the epoch", stats.startedAt / 1000);
    metrics.info("build_info", "The running version", { version: VERSION });
    const labels = ["registry", "kind", "cache"] as const;
    metrics.histogram("time_to_first_byte_seconds", "Time until the first byte of the response", {
      labels,
      from: stats.firstByte,
    });
    metrics.histogram("request_duration_seconds", "Time until the end of the response", {
      labels,
      from: stats.duration,
    });
    return { text: metrics.text, contentType: "text/plain; version=0.0.4; charset=utf-8" };
  }

  #registries(metrics: Writer): void {
    const { stats, quotas, config } = this.#proxy;
    // Several names of one upstream are reported under the first, which clients use.
    const names = new Map(config.registries.toReversed().map(({ id, name }) => [id, name]));
    metrics.gauges("upstream_up", "Whether the registry answered its last request", {
      labels: ["registry"],
      values: [...stats.registries].map(([name, { isUp }]) => [[name], isUp ? 1 : 0]),
    });
    metrics.gauges("upstream_latency_seconds", "Duration of the registry's last response", {
      labels: ["registry"],
      values: [...stats.registries].flatMap(([name, { latency }]) =>
        latency === undefined ? [] : [[[name], latency / 1000]]
      ),
    });
    // Accounts are numbered, because their names are private.
    const known = quotas.entries();
    const label = (registry: string, i: number) => [names.get(registry) ?? "other", String(i)];
    metrics.gauges("quota_remaining", "Remaining pulls, as last reported by the registry", {
      labels: ["registry", "account"],
      values: known.map(({ registry, remaining }, i) => [label(registry, i), remaining]),
    });
    metrics.gauges("quota_limit", "Pulls per window, as last reported by the registry", {
      labels: ["registry", "account"],
      values: known.flatMap(({ registry, limit }, i) =>
        limit === undefined ? [] : [[label(registry, i), limit]]
      ),
    });
  }

  async #cache(metrics: Writer): Promise<void> {
    const { cache, stats } = this.#proxy;
    if (!cache) return;
    const fills = [...cache.content.fills];
    metrics.gauge("fills", "Downloads into the cache in progress", fills.length);
    const readers = fills.reduce((sum, fill) => sum + fill.readers, 0);
    metrics.gauge("fill_readers", "Clients that read from downloads in progress", readers);
    const waiting = this.#proxy.queues.fills.waiting;
    metrics.gauge("fills_waiting", "Queued downloads into the cache", waiting);
    metrics.counter(
      "fill_joins_total",
      "Clients that joined a download in progress",
      stats.cacheEvents.get("joined"),
    );
    metrics.counters("evictions_total", "Entries removed from the cache, by reason", {
      labels: ["reason"],
      from: fromZero(EVENTS, stats.cacheEvents).filter(([event]) => event.startsWith("evicted_"))
        .map(([event, n]) => [event.slice("evicted_".length), n]),
    });
    metrics.gauge("store_cap_bytes", "CACHE_MAX_SIZE", cache.content.space.maxSize);
    try {
      const { bytes, entries, reserved } = await cache.index.totals();
      metrics.gauge("store_bytes", "Stored bytes", bytes);
      metrics.gauge("store_entries", "Digests stored", entries);
      metrics.gauge("store_reserved_bytes", "Bytes reserved for downloads", reserved);
    } catch {
      // The index failed, which has been counted. Report the other metrics anyway.
    }
  }
}

/** Escapes a label's value. */
function escape(value: string): string {
  return value.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/"/g, '\\"');
}

/** Returns `{a="1",b="2"}`, or an empty string without labels. */
function labelled(names: readonly string[], values: readonly string[]): string {
  const pairs = names.map((name, i) => `${name}="${escape(values[i] ?? "")}"`);
  return pairs.length > 0 ? `{${pairs.join(",")}}` : "";
}

/** Writes metrics as text. */
class Writer {
  #text = "";

  get text(): string {
    return this.#text;
  }

  #family(name: string, help: string, type: "counter" | "gauge" | "histogram"): string {
    const full = PREFIX + name;
    this.#text += `# HELP ${full} ${help}\n# TYPE ${full} ${type}\n`;
    return full;
  }

  #sample(name: string, labels: string, value: number): void {
    this.#text += `${name}${labels} ${value}\n`;
  }

  counters(
    name: string,
    help: string,
    { labels, from }: { labels: readonly string[]; from: Iterable<[string, number]> },
  ): void {
    const full = this.#family(name, help, "counter");
    for (const [values, n] of from) this.#sample(full, labelled(labels, values.split(" ")), n);
  }

  counter(name: string, help: string, n: number): void {
    this.#sample(this.#family(name, help, "counter"), "", n);
  }

  gauges(
    name: string,
    help: string,
    { labels, values }: { labels: readonly string[]; values: [string[], number][] },
  ): void {
    const full = this.#family(name, help, "gauge");
    for (const [texts, n] of values) this.#sample(full, labelled(labels, texts), n);
  }

  gauge(name: string, help: string, n: number): void {
    this.#sample(this.#family(name, help, "gauge"), "", n);
  }

  info(name: string, help: string, labels: Record<string, string>): void {
    const full = this.#family(name, help, "gauge");
    this.#sample(full, labelled(Object.keys(labels), Object.values(labels)), 1);
  }

  histogram(
    name: string,
    help: string,
    { labels, from }: { labels: readonly string[]; from: Histogram },
  ): void {
    const full = this.#family(name, help, "histogram");
    for (const [values, { counts, sum, count }] of from.entries()) {
      const texts = values.split(" ");
      let below = 0;
      for (const [i, bound] of [...from.bounds, Infinity].entries()) {
        below += counts[i]!;
        const le = bound === Infinity ? "+Inf" : String(bound);
        this.#sample(`${full}_bucket`, labelled([...labels, "le"], [...texts, le]), below);
      }
      this.#sample(`${full}_sum`, labelled(labels, texts), sum);
      this.#sample(`${full}_count`, labelled(labels, texts), count);
    }
  }
}
