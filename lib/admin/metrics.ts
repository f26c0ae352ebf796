/**
 * `/metrics` in the Prometheus text format (version 0.0.4). Everything is counted elsewhere, in plain numbers; here it gets
 * names, when somebody asks. Label values are bounded: registries, kinds, classes, never a repository.
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

/** What was counted, and zeros for the rest: of a series that begins with 1 `increase()` does not see the first. */
function fromZero(known: readonly string[], counter: Counter): [string, number][] {
  return [...new Map([...known.map((name) => [name, 0] as const), ...counter.entries()])];
}

/** Names the counters of one proxy. */
export class Metrics {
  readonly #proxy: Proxy;

  constructor(proxy: Proxy) {
    this.#proxy = proxy;
  }

  /** The text for a scrape, and its media type. */
  async render(): Promise<{ readonly text: string; readonly contentType: string }> {
    const { stats, config: { registries } } = this.#proxy;
    const ofEach = (...labels: string[]) =>
      registries.flatMap(({ name }) => labels.map((label) => `${name} ${label}`));
    const metrics = new Writer();
    metrics.counters("requests_total", "Requests, by how they were answered", {
      labels: ["registry", "kind", "status", "cache"],
      from: stats.requests.entries(),
    });
    metrics.counter("bytes_to_clients_total", "Bytes of bodies sent", stats.bytesToClients);
    metrics.counter("bytes_from_cache_total", "Bytes sent from the cache", stats.bytesFromCache);
    metrics.counter("bytes_from_upstream_total", "Bytes downloaded", stats.bytesFromUpstream);
    metrics.counters("upstream_requests_total", "Answers of upstreams", {
      labels: ["registry", "status"],
      from: fromZero(ofEach("5xx"), stats.upstreamRequests),
    });
    metrics.counters("upstream_errors_total", "Requests that upstreams did not answer", {
      labels: ["registry", "reason"],
      from: fromZero(ofEach("timeout", "network"), stats.upstreamErrors),
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
      from: fromZero(EVENTS, stats.cacheEvents),
    });
    metrics.counters("rejected_total", "Requests turned away", {
      labels: ["reason"],
      from: fromZero(REJECTIONS, stats.rejected),
    });
    this.#registries(metrics);
    await this.#cache(metrics);
    metrics.gauge("memory_bytes", "Resident memory", Deno.memoryUsage().rss);
    const { lag } = this.#proxy;
    metrics.gauge("event_loop_lag_seconds", "Longest of the last 10 s", lag.worst / 1000);
    metrics.counter(
      "event_loop_standstill_seconds_total",
      "Time in which the event loop stood still",
      lag.total / 1000,
    );
    metrics.gauge("start_time_seconds", "When it started", stats.startedAt / 1000);
    metrics.info("build_info", "The version that runs", { version: VERSION });
    const labels = ["registry", "kind", "cache"] as const;
    metrics.histogram("time_to_first_byte_seconds", "Until an answer began", {
      labels,
      from: stats.firstByte,
    });
    metrics.histogram("request_duration_seconds", "Until an answer ended", {
      labels,
      from: stats.duration,
    });
    return { text: metrics.text, contentType: "text/plain; version=0.0.4; charset=utf-8" };
  }

  #registries(metrics: Writer): void {
    const { stats, quotas, config } = this.#proxy;
    // Of several names of one upstream the first: it is the one that clients mean.
    const names = new Map(config.registries.toReversed().map(({ id, name }) => [id, name]));
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
    const waiting = this.#proxy.queues.fills.waiting;
    metrics.gauge("fills_waiting", "Downloads into the cache that wait for a place", waiting);
    metrics.counter("fill_joins_total", "Clients that joined one", stats.cacheEvents.get("joined"));
    metrics.counters("evictions_total", "What left the cache", {
      labels: ["reason"],
      from: fromZero(EVENTS, stats.cacheEvents).filter(([event]) => event.startsWith("evicted_"))
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

/** A label's value as the format has it. */
function escape(value: string): string {
  return value.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/"/g, '\\"');
}

/** `{a="1",b="2"}`, or nothing. */
function labelled(names: readonly string[], values: readonly string[]): string {
  const pairs = names.map((name, i) => `${name}="${escape(values[i] ?? "")}"`);
  return pairs.length > 0 ? `{${pairs.join(",")}}` : "";
}

/** Writes metrics. */
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
