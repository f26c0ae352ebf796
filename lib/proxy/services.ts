/**
 * What a proxy is made of, put together as its configuration says.
 *
 * @module
 */
import { Access, memoryMarks } from "../auth/access.ts";
import type { Cache } from "../cache/cache.ts";
import type { Config } from "../config/config.ts";
import { ResponseCache } from "../response/response_cache.ts";
import type { WarmScheduler } from "../warm/scheduler.ts";
import { type DownloadQueues, downloadQueues } from "../limits/downloads.ts";
import { Gate } from "../limits/gate.ts";
import { Quotas } from "../limits/quota.ts";
import { RequestLimit } from "../limits/request_limit.ts";
import { Passthrough } from "../upstream/passthrough.ts";
import { Stats } from "../telemetry/stats.ts";
import { startTracing } from "../telemetry/trace.ts";
import { RegistryClient } from "../upstream/registry_client.ts";
import { Upstream } from "../upstream/client.ts";
import { createConnect } from "../upstream/transport/connect.ts";
import { createSend, sendNothing } from "../upstream/transport/send.ts";
import { Tokens } from "../upstream/token.ts";

/** What nobody has asked for in twice this time, ms, is in memory no longer. */
const SWEEP = 25_000;

/** The parts of a proxy that are there once its cache is open. */
export interface OpenParts {
  readonly cache: Cache | undefined;
  readonly access: Access;
  /** What targets are answered by: the cache, or without one a relay. */
  readonly handler: Cache | Passthrough;
}

/** The parts of a proxy. */
export class Services {
  readonly config: Config;
  readonly stats = new Stats();
  readonly upstream: Upstream;
  /** What upstreams say of the pulls that are left. */
  readonly quotas: Quotas;
  /** Where downloads wait for a place. */
  readonly queues: DownloadQueues;
  readonly gate: Gate | undefined;
  readonly requestLimit: RequestLimit;
  /** Undefined where every request has to be looked at: its client's address decides, or its count. */
  readonly hot: ResponseCache | undefined;
  /** Settles when the cache is open; rejects with a `CacheOpenError`. */
  readonly ready: Promise<OpenParts>;
  /** Of `ready`, when it has settled. */
  parts: OpenParts | undefined;
  /** Removes from memory what is not asked for any more. */
  #sweep: ReturnType<typeof setInterval> | undefined;
  readonly #connect: Disposable;
  #keepWarm: WarmScheduler | undefined;
  #sharedQuotas: { close(): void } | undefined;

  constructor(config: Config) {
    this.config = config;
    const { stats } = this;
    const { allowPrivateNetworks: allowPrivate, cache, limits = {}, redirects } = config;
    const { outboundProxy: proxied, authoritiesFile } = config;
    const connect = createConnect({ allowPrivate, proxied, authoritiesFile });
    this.#connect = connect;
    const send = cache?.only ? sendNothing : createSend({ connect, stats });
    const tokens = new Tokens({ send, allowPrivate });
    const quotas = this.quotas = new Quotas(config.quota);
    this.upstream = new Upstream({
      send,
      tokens,
      redirects,
      onAnswer(request, answer) {
        // What a client's own headers or query are refused says nothing of the pulls that are left. Without a cache every
        // request has some, and only the choice of an account depends on it.
        if (cache && answer.status === 429 && request.fromClient) return;
        quotas.observe(request.registry, request.credential, answer);
      },
      onRetry: ({ name }) => stats.upstreamRetried(name),
    });
    this.gate = Gate.of(config, { stats });
    this.requestLimit = new RequestLimit({ onRejected: () => stats.rejected.add("requests") });
    this.hot = cache && !limits.clients && !limits.rate ? new ResponseCache() : undefined;
    this.queues = downloadQueues({ maxFills: limits.maxFills, stats });
    this.ready = this.#open();
    this.ready.catch(() => {}); // every request rejects with it; nobody has to wait for it before
  }

  /** The open cache; undefined without one, and before `ready`. */
  get cache(): Cache | undefined {
    return this.parts?.cache;
  }

  async #open(): Promise<OpenParts> {
    if (this.config.traced) startTracing();
    const cache = await this.#openCache();
    const parts = this.parts = cache
      ? { cache, access: cache.access, handler: cache }
      : this.#withoutCache();
    await this.#startKeepingWarm(cache);
    return parts;
  }

  async #openCache(): Promise<Cache | undefined> {
    const { config: { cache: config, listen, quota, upstreamIdleTimeout: idle }, quotas } = this;
    if (!config) return undefined;
    // Loaded here, so that without a cache none of its modules is.
    const { Cache } = await import("../cache/cache.ts");
    const { upstream, stats, queues, hot } = this;
    const cache = await Cache.open({
      config,
      upstream,
      idle,
      stats,
      listen,
      queues,
      hot,
      quota: { isLow: (registry) => quotas.isLow(registry), ttl: quota.manifestTtl },
      chooseAccount: (registry) => quotas.choose(registry),
    });
    if (cache) {
      this.#sweep = setInterval(() => {
        hot?.dropUnused();
        cache.content.dropUnused();
      }, SWEEP);
      Deno.unrefTimer(this.#sweep);
    }
    if (cache?.together) {
      this.gate?.countBy(cache.together.rates);
      this.#sharedQuotas = cache.together.share(quotas);
    }
    return cache;
  }

  #withoutCache(): OpenParts {
    const { upstream, stats, queues, config: { upstreamIdleTimeout: idle } } = this;
    const access = new Access({
      marks: memoryMarks(),
      isAnonymousToken: (token) => upstream.tokens.isAnonymous(token),
      chooseAccount: (registry) => this.quotas.choose(registry),
    });
    const handler = new Passthrough({
      asker: new RegistryClient({ upstream, access }),
      idle,
      stats,
      queues,
    });
    return { cache: undefined, access, handler };
  }

  async #startKeepingWarm(cache: Cache | undefined): Promise<void> {
    const { warm: settings, cache: config } = this.config;
    if (!config || !cache || config.only || settings.images.length === 0) return;
    const { WarmScheduler } = await import("../warm/scheduler.ts");
    const { space } = cache.content;
    const keep = (digests: ReadonlySet<string>) => space.keep(digests);
    this.#keepWarm = new WarmScheduler(this, { settings, maxSize: config.maxSize, keep });
    this.#keepWarm.start();
  }

  /** Ends: fills under way are waited for up to `grace` ms. */
  async close(grace: number): Promise<void> {
    await this.ready.catch(() => {});
    this.#keepWarm?.stop();
    this.#sharedQuotas?.close();
    clearInterval(this.#sweep);
    await this.cache?.close(grace);
    this.#connect[Symbol.dispose]();
  }
}
