/**
 * `/metrics` in the Prometheus text format. Everything is counted elsewhere, in plain numbers; here it gets
 * names, when somebody asks. Label values are bounded: registries, kinds, classes, never a repository.
 *
 * @module
 */
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import type { Histogram } from "../histogram.ts";
import type { Proxy } from "../proxy.ts";
import { VERSION } from "../version.ts";
import type { LoopLag } from "./loop_lag.ts";

const PREFIX = "registry_proxy_";

/** Names the counters of one proxy. */
export class Metrics {
  readonly #proxy: Proxy;
  readonly #lag: LoopLag;

  constructor(proxy: Proxy, lag: LoopLag) {
    this.#proxy = proxy;
    this.#lag = lag;
  }

  /** The text for a scrape, and its media type. */
  async render(): Promise<{ readonly text: string; readonly contentType: string }> {
    // Made for each scrape: what is told is what is counted now, and nothing is counted twice.
    const registry = new Registry();
    const { stats } = this.#proxy;
    const metrics = new Writer(registry);
    metrics.counters("requests_total", "Requests, by how they were answered", {
      labels: ["registry", "kind", "status", "cache"],
      from: stats.requests.entries(),
    });
    metrics.counter("bytes_to_clients_total", "Bytes of bodies sent", stats.bytesToClients);
    metrics.counter("bytes_from_cache_total", "Bytes sent from the cache", stats.bytesFromCache);
    metrics.counter("bytes_from_upstream_total", "Bytes downloaded", stats.bytesFromUpstream);
    metrics.counters("upstream_requests_total", "Answers of upstreams", {
      labels: ["registry", "status"],
      from: stats.upstreamRequests.entries(),
    });
    metrics.counters("upstream_errors_total", "Requests that upstreams did not answer", {
      labels: ["registry", "reason"],
      from: stats.upstreamErrors.entries(),
    });
    metrics.counters("upstream_retries_total", "Requests to upstreams that were repeated", {
      labels: ["registry"],
      from: stats.upstreamRetries.entries(),
    });
    metrics.counters("upstream_resumes_total", "Downloads that broke and were taken up again", {
      labels: ["registry"],
      from: stats.upstreamResumes.entries(),
    });
    metrics.counters("cache_events_total", "What happened in the cache", {
      labels: ["event"],
      from: stats.cacheEvents.entries(),
    });
    metrics.counters("rejected_total", "Requests turned away", {
      labels: ["reason"],
      from: stats.rejected.entries(),
    });
    this.#registries(metrics);
    await this.#cache(metrics);
    metrics.gauge("memory_bytes", "Resident memory", Deno.memoryUsage().rss);
    metrics.gauge("event_loop_lag_seconds", "Longest of the last 10 s", this.#lag.worst / 1000);
    metrics.gauge("start_time_seconds", "When it started", stats.startedAt / 1000);
    metrics.info("build_info", "The version that runs", { version: VERSION });
    const labels = ["registry", "kind", "cache"] as const;
    const text = await registry.metrics() +
      histogram("time_to_first_byte_seconds", "Until an answer began", stats.firstByte, labels) +
      histogram("request_duration_seconds", "Until an answer ended", stats.duration, labels);
    return { text, contentType: registry.contentType };
  }

  #registries(metrics: Writer): void {
    const { stats, quotas, config } = this.#proxy;
    const names = new Map(config.registries.map(({ id, name }) => [id, name]));
    metrics.gauges("upstream_up", "Whether the registry answered when it was last asked", {
      labels: ["registry"],
      values: [...stats.registries].map(([name, { isUp }]) => [[name], isUp ? 1 : 0]),
    });
    metrics.gauges("upstream_latency_seconds", "How long its last answer took", {
      labels: ["registry"],
      values: [...stats.registries].flatMap(([name, { latency }]) =>
        latency === undefined ? [] : [[[name], latency / 1000]]
      ),
    });
    // By number, not by name: whose accounts these are is nobody's business.
    const known = quotas.entries();
    const label = (registry: string, i: number) => [names.get(registry) ?? "other", String(i)];
    metrics.gauges("quota_remaining", "Pulls left, as the registry said last", {
      labels: ["registry", "account"],
      values: known.map(({ registry, remaining }, i) => [label(registry, i), remaining]),
    });
    metrics.gauges("quota_limit", "Pulls in a window, as the registry said last", {
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
    metrics.gauge("fills", "Downloads into the cache under way", fills.length);
    const readers = fills.reduce((sum, fill) => sum + fill.readers, 0);
    metrics.gauge("fill_readers", "Clients that read from them", readers);
    metrics.counter("fill_joins_total", "Clients that joined one", stats.cacheEvents.get("joined"));
    metrics.counters("evictions_total", "What left the cache", {
      labels: ["reason"],
      from: [...stats.cacheEvents.entries()].filter(([event]) => event.startsWith("evicted_"))
        .map(([event, n]) => [event.slice("evicted_".length), n]),
    });
    metrics.gauge("store_cap_bytes", "CACHE_MAX_SIZE", cache.content.space.maxSize);
    try {
      const { bytes, entries, reserved } = await cache.index.totals();
      metrics.gauge("store_bytes", "What is stored", bytes);
      metrics.gauge("store_entries", "Digests stored", entries);
      metrics.gauge("store_reserved_bytes", "Room promised to downloads", reserved);
    } catch {
      // The index is in trouble, which is counted: the other numbers are told all the same.
    }
  }
}

/** Makes metrics of numbers. */
class Writer {
  readonly #registry: Registry;

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  #options(name: string, help: string, labelNames: readonly string[] = []) {
    return { name: PREFIX + name, help, labelNames, registers: [this.#registry] };
  }

  counters(
    name: string,
    help: string,
    { labels, from }: { labels: readonly string[]; from: Iterable<[string, number]> },
  ): void {
    const metric = new Counter(this.#options(name, help, labels));
    for (const [values, n] of from) {
      metric.inc(labelled(labels, values.split(" ")), n);
    }
  }

  counter(name: string, help: string, n: number): void {
    new Counter(this.#options(name, help)).inc(n);
  }

  gauges(
    name: string,
    help: string,
    { labels, values }: { labels: readonly string[]; values: [string[], number][] },
  ): void {
    const metric = new Gauge(this.#options(name, help, labels));
    for (const [texts, n] of values) metric.set(labelled(labels, texts), n);
  }

  gauge(name: string, help: string, n: number): void {
    new Gauge(this.#options(name, help)).set(n);
  }

  info(name: string, help: string, labels: Record<string, string>): Metric {
    const metric = new Gauge(this.#options(name, help, Object.keys(labels)));
    metric.set(labels, 1);
    return metric;
  }
}

function labelled(names: readonly string[], values: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name, i) => [name, values[i] ?? ""]));
}

/** prom-client observes for itself; these observations are made already. */
function histogram(
  name: string,
  help: string,
  family: Pick<Histogram, "bounds" | "entries">,
  labels: readonly string[],
): string {
  const full = PREFIX + name;
  const lines = [`# HELP ${full} ${help}`, `# TYPE ${full} histogram`];
  for (const [values, { counts, sum, count }] of family.entries()) {
    const texts = values.split(" ");
    const own = labels.map((label, i) => `${label}="${texts[i] ?? ""}"`).join(",");
    let below = 0;
    for (const [i, bound] of family.bounds.entries()) {
      below += counts[i]!;
      lines.push(`${full}_bucket{le="${bound}",${own}} ${below}`);
    }
    lines.push(`${full}_bucket{le="+Inf",${own}} ${count}`);
    lines.push(`${full}_sum{${own}} ${sum}`, `${full}_count{${own}} ${count}`);
  }
  return `\n${lines.join("\n")}\n`;
}
