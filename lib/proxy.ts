/**
 * The pipeline, in order.
 *
 * @module
 */
import { Access, memoryMarks } from "./access.ts";
import { type Answer, type CacheResult, headOf, plainAnswer, watchBody } from "./answer.ts";
import type { Cache } from "./cache/cache.ts";
import type { Config } from "./config.ts";
import { type HotAnswer, HotAnswers, type HotRequest } from "./hot.ts";
import type { QuickAnswer } from "./http1/connection.ts";
import type { KeepWarm } from "./keep_warm.ts";
import { FairQueue } from "./limits/fair_queue.ts";
import { Gate, type Rejection } from "./limits/gate.ts";
import { Quotas } from "./limits/quota.ts";
import { requestLine, requestLog } from "./log.ts";
import { OciError, renderError } from "./oci/error.ts";
import { pullScope } from "./oci/scope.ts";
import type { Registry } from "./registry.ts";
import { forwardedSearch, Relay } from "./relay.ts";
import { Stats } from "./stats.ts";
import { answerToken } from "./token_endpoint.ts";
import { challengeFor, clientScope, credentialOf, publicScheme } from "./transforms/auth.ts";
import { replyHeaders, upstreamHeaders } from "./transforms/headers.ts";
import { library } from "./transforms/library.ts";
import { type AddressSet, addressSet, clientAddress } from "./transforms/policy.ts";
import { type Route, route, type Target } from "./transforms/route.ts";
import { Asker } from "./upstream/ask.ts";
import { decoded, withIdleLimit } from "./upstream/body.ts";
import { Upstream } from "./upstream/client.ts";
import { startTracing } from "./trace.ts";
import { createConnect } from "./upstream/connect.ts";
import { isUpstreamTrouble, notFound, upstreamFailure } from "./upstream/failure.ts";
import { createSend, sendNothing } from "./upstream/send.ts";
import { Tokens } from "./upstream/token.ts";
import { VERSION } from "./version.ts";

/** What is known of a connection besides its request. `Deno.ServeHandlerInfo` is one. */
export interface ConnectionInfo {
  readonly remoteAddr?: Deno.Addr;
  /** The request's URL as it was sent; `request.url` is normalized. */
  readonly address?: string;
}

/** A request on its way through the pipeline. */
interface Visit {
  readonly request: Request;
  readonly url: URL;
  /** As the client named it, port included. */
  readonly host: string;
  readonly scheme: "http" | "https";
  /** The address of who asked. */
  readonly client?: string;
}

/** What a request turned out to mean, for its log line. */
interface Meaning {
  registry?: string;
  repository?: string;
  reference?: string;
  kind: string;
}

/** What a log line says of the request itself. */
interface Asked {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  /** The address of who asked. */
  readonly client?: string;
  readonly started: number;
}

/** Reads it at once: of a request whose client has left, Deno tells nothing any more but throws. */
function askedBy(request: Request, client: string | undefined): Asked {
  return {
    method: request.method,
    path: pathOf(request.url),
    host: request.headers.get("host") ?? "",
    client,
    started: performance.now(),
  };
}

const API_VERSION = { "docker-distribution-api-version": "registry/2.0" };

/** The whole proxy behind one `fetch`. */
export class Proxy {
  readonly stats = new Stats();
  /** Settles when the cache is open; rejects with a `CacheOpenError`. */
  readonly ready: Promise<void>;
  readonly config: Config;
  readonly upstream: Upstream;
  /** What upstreams say of the pulls that are left. */
  readonly quotas: Quotas;
  /** Where downloads wait for their turn; undefined without a limit. */
  readonly queue: FairQueue | undefined;
  readonly #gate: Gate | undefined;
  /** Whose word on the client's address and scheme is believed. */
  readonly #trusted: AddressSet | "peer" | undefined;
  /** Undefined where every request has to be looked at: its client's address decides, or its count. */
  readonly #hot: HotAnswers | undefined;
  readonly #connect: Disposable;
  readonly #startedAt = Date.now();
  #relay!: Relay;
  #access!: Access;
  #cache: Cache | undefined;
  #keepWarm: KeepWarm | undefined;
  #sharedQuotas: { close(): void } | undefined;
  #isReady = false;

  constructor(config: Config) {
    this.config = config;
    const allowPrivate = config.allowPrivateNetworks;
    const connect = createConnect({ allowPrivate, proxied: config.outboundProxy });
    this.#connect = connect;
    const send = config.cache?.only ? sendNothing : createSend({ connect, stats: this.stats });
    const tokens = new Tokens({ send, allowPrivate });
    const { quotas, stats } = { quotas: new Quotas(config.quota), stats: this.stats };
    this.quotas = quotas;
    this.upstream = new Upstream({
      send,
      tokens,
      redirects: config.redirects,
      onAnswer: ({ registry, credential }, answer) => quotas.observe(registry, credential, answer),
    });
    this.#gate = Gate.of(config, { stats });
    const { clients, rate } = config.limits ?? {};
    this.#hot = config.cache && !clients && !rate ? new HotAnswers() : undefined;
    const { maxFills } = config.limits ?? {};
    const onRejected = () => stats.rejected.add("fill_queue" satisfies Rejection);
    this.queue = maxFills === undefined
      ? undefined
      : new FairQueue({ limit: maxFills, onRejected });
    const { trustProxy } = config;
    this.#trusted = typeof trustProxy === "object"
      ? addressSet(trustProxy)
      : trustProxy
      ? "peer"
      : undefined;
    this.ready = this.#open();
    this.ready.catch(() => {}); // every request rejects with it; nobody has to wait for it before
  }

  async #open(): Promise<void> {
    const { cache, upstreamIdleTimeout: idle } = this.config;
    const upstream = this.upstream;
    if (this.config.traced) startTracing();
    if (cache) {
      // Loaded here, so that without a cache none of its modules is.
      const { Cache } = await import("./cache/cache.ts");
      const { listen, quota: { manifestTtl: ttl } } = this.config;
      const { quotas, queue, stats } = this;
      this.#cache = await Cache.open({
        config: cache,
        upstream,
        idle,
        stats,
        listen,
        queue,
        hot: this.#hot,
        quota: { isLow: (registry) => quotas.isLow(registry), ttl },
        chooseAccount: (registry) => quotas.choose(registry),
      });
    }
    this.#access = this.#cache?.access ?? new Access({
      marks: memoryMarks(),
      isAnonymousToken: (token) => upstream.tokens.isAnonymous(token),
      chooseAccount: (registry) => this.quotas.choose(registry),
    });
    this.#relay = this.#cache?.relay ??
      new Relay({ asker: new Asker({ upstream, access: this.#access }), idle, stats: this.stats });
    const together = this.#cache?.together;
    if (together) {
      this.#gate?.countBy(together.rates);
      this.#sharedQuotas = together.share(this.quotas);
    }
    this.#isReady = true;
    const { warm: settings } = this.config;
    if (cache && this.#cache && !cache.only && settings.images.length > 0) {
      const { KeepWarm } = await import("./keep_warm.ts");
      const { space } = this.#cache.content;
      const keep = (digests: ReadonlySet<string>) => space.keep(digests);
      this.#keepWarm = new KeepWarm(this, { settings, maxSize: cache.maxSize, keep });
      this.#keepWarm.start();
    }
  }

  /** The open cache, for who operates it; undefined without one, and before `ready`. */
  get cache(): Cache | undefined {
    return this.#cache;
  }

  /** Answers one request. Never rejects, unless the cache could not be opened. */
  fetch = async (request: Request, info: ConnectionInfo = {}): Promise<Response> => {
    const { method, url, headers } = request;
    const now = Date.now();
    const hit = this.#hot?.find({ method, url, header: (name) => headers.get(name) }, now);
    if (!hit) return (await this.answer(request, info)).response;
    this.#sent(hit, this.#clientOf((name) => headers.get(name), peerOf(info)));
    return hit.response(now);
  };

  /** An answer from memory as it goes on the wire, for a listener that can send it. Never throws. */
  quick(request: HotRequest, peer: string): QuickAnswer | undefined {
    const now = Date.now();
    const hit = this.#hot?.find(request, now);
    if (!hit) return undefined;
    const client = this.#clientOf(request.header, peer);
    return { bytes: hit.wire(now), sent: () => this.#sent(hit, client) };
  }

  /** Counts and logs a hit in memory. */
  #sent({ facts, record }: HotAnswer, client: string | undefined): void {
    facts.used();
    record(client ?? "");
  }

  /** The same, for a listener that can send what an answer's response is made of. */
  async answer(request: Request, info: ConnectionInfo = {}): Promise<Answer> {
    if (!this.#isReady) await this.ready;
    const client = this.#clientOf((name) => request.headers.get(name), peerOf(info));
    const version = this.#hot?.version;
    const asked = askedBy(request, client);
    const meaning: Meaning = { kind: "other" };
    let answer: Answer;
    try {
      const isTrusted = this.#trusted !== undefined && this.#isTrusted(info);
      answer = await this.#handle(this.#visit(request, { client, isTrusted }), meaning);
    } catch (error) {
      const response = renderError(toOciError(error), request.method);
      const bytes = response.body ? Number(response.headers.get("content-length")) : 0;
      answer = plainAnswer(response, undefined, bytes);
    }
    this.#record(asked, { answer, meaning });
    if (answer.hot && version !== undefined && !requestLog.isEnabledFor("debug")) {
      const { headers, method, url } = request;
      const header = (name: string) => headers.get(name);
      this.#hot?.keep({ method, url: info.address ?? url, header }, {
        headers: headOf(answer).headers,
        facts: answer.hot,
        version,
        recorder: () => this.#recorder(asked, { answer, meaning }),
      });
    }
    return answer;
  }

  /** What counts and logs an answer that is given again from memory, to a client of some address. */
  #recorder(
    { started: _, ...asked }: Asked,
    { answer, meaning }: { answer: Answer; meaning: Meaning },
  ): (client: string) => void {
    const { stats } = this;
    const { status } = headOf(answer);
    const bytes = answer.hot?.bytes?.byteLength ?? 0;
    const labels = labelsOf(meaning, { status, cache: "HIT" });
    const timed = `${meaning.registry ?? "-"} ${meaning.kind} HIT`;
    const image = meaning.kind === "manifest" ? imageOf(meaning) : undefined;
    const line = requestLine({ ...asked, status, ...meaning, bytes, ms: 0, cache: "HIT" });
    return (client) => {
      stats.requests.add(labels);
      stats.bytesToClients += bytes;
      stats.bytesFromCache += bytes;
      // From memory: in less than the clock can tell.
      stats.firstByte.observe(timed, 0);
      stats.duration.observe(timed, 0);
      if (image) stats.imageHit(image);
      line(client);
    };
  }

  /** The client's address, as a proxy that is trusted says, else the connection's. */
  #clientOf(
    header: (name: string) => string | null,
    peer: string | undefined,
  ): string | undefined {
    const trusted = this.#trusted;
    if (trusted === undefined) return peer;
    return clientAddress({ peer, forwardedFor: header("x-forwarded-for"), trusted });
  }

  #isTrusted(info: ConnectionInfo): boolean {
    const peer = peerOf(info);
    return this.#trusted === "peer" ||
      peer !== undefined && this.#trusted !== undefined && this.#trusted.has(peer);
  }

  async #handle(visit: Visit, meaning: Meaning): Promise<Answer> {
    const { request } = visit;
    const peer = this.#cache?.peer(request, visit.url.pathname);
    if (peer) return plainAnswer(peer);
    const { customDomain, registries, fallback } = this.config;
    const table = { customDomain, registries, fallback };
    const found = route(visit, table);
    meaning.kind = found.kind;
    requestLog.debug("Route of {host}{path}: {kind}", () => {
      const to = found.kind === "target" ? found.target : "registry" in found ? found : undefined;
      return {
        host: visit.host,
        path: visit.url.pathname,
        kind: found.kind,
        registry: to?.registry.name,
        target: found.kind === "target" ? found.target.repository : undefined,
      };
    });
    if (!isAllowed(request.method, found)) {
      throw new OciError(
        "UNSUPPORTED",
        `${request.method} is not supported: this proxy only reads`,
        {
          headers: { allow: found.kind === "token" ? "GET, POST" : "GET, HEAD" },
        },
      );
    }
    // Whoever looks after the process asks for its health from where it likes.
    if (found.kind !== "health") this.#gate?.admitClient(visit.client);
    switch (found.kind) {
      case "home":
        return plainAnswer(redirect("/v2/"));
      case "health":
        return json({
          status: "ok",
          version: VERSION,
          uptime: Math.floor((Date.now() - this.#startedAt) / 1000),
        });
      case "unrouted":
        return json({ routes: found.routes, message: "No registry at this host" }, 404);
      case "token":
        meaning.registry = found.registry.name;
        return plainAnswer(
          await answerToken(request, {
            registry: found.registry,
            pathMode: found.pathMode,
            table,
            tokens: this.upstream.tokens,
            hasCache: this.#cache !== undefined,
          }),
        );
      case "ping":
        meaning.registry = found.registry.name;
        return await this.#ping(visit, found.registry);
      case "catalog":
        meaning.registry = found.registry.name;
        return await this.#catalog(visit, found.registry);
      case "target":
        return await this.#target(visit, found.target, meaning);
    }
  }

  /** Reads what routing needs of a request. Throws an `OciError` (400) for a Host that is none. */
  #visit(
    request: Request,
    { client, isTrusted }: { client: string | undefined; isTrusted: boolean },
  ): Visit {
    const url = URL.parse(request.url);
    // HTTP/2 has no Host header, and an absolute-form request line overrides it: the URL has the host then.
    const named = request.headers.get("host") ?? url?.host ?? "";
    if (!url || !/^([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?$/i.test(named)) {
      throw new OciError("NAME_INVALID", "Malformed Host");
    }
    const { publicScheme: setting, listen } = this.config;
    const scheme = publicScheme({
      listener: listen.tls || url.protocol === "https:" ? "https" : "http",
      host: named,
      setting,
      trustProxy: isTrusted,
      forwardedProto: request.headers.get("x-forwarded-proto"),
    });
    return { request, url, host: named, scheme, client };
  }

  async #target(visit: Visit, target: Target, meaning: Meaning): Promise<Answer> {
    const { request, url, client } = visit;
    const { registry, repository, reference } = target;
    Object.assign(meaning, { registry: registry.name, repository, reference, kind: target.kind });
    const path = library(target);
    if (path !== undefined) return plainAnswer(redirect(path + url.search));
    const gate = this.#gate;
    try {
      gate?.admitRepository(target);
      const caller = this.#access.caller(
        registry,
        credentialOf(request.headers.get("authorization")),
      );
      const { method, headers } = request;
      const handler = this.#cache ?? this.#relay;
      const beforeMiss = gate?.beforeMiss(client);
      const isCached = this.#cache && (target.kind === "manifest" || target.kind === "blob");
      if (!isCached) await beforeMiss?.();
      const answer = await handler.answer({
        method,
        headers,
        url,
        target,
        caller,
        client,
        beforeMiss,
      });
      return gate ? await gate.charge(client, answer) : answer;
    } catch (error) {
      if (this.config.cache?.only && isUpstreamTrouble(error) && error.status !== 429) {
        throw notFound(target.kind, "Not in the cache, and upstream is never asked (CACHE_ONLY)");
      }
      throw this.#challenged(error, visit, {
        scope: clientScope(pullScope(repository), target.prefix),
        hasPrefix: target.prefix !== "",
      });
    }
  }

  /** `GET /v2/`: whether the registry wants authentication, without needing it to be up. */
  async #ping(visit: Visit, registry: Registry): Promise<Answer> {
    const { request } = visit;
    const { tokens } = this.upstream;
    try {
      const credential = credentialOf(request.headers.get("authorization"));
      const caller = this.#access.caller(registry, credential);
      if (caller.credential.kind !== "anonymous" && !caller.isShared) {
        // Somebody logs in: only the registry can say whether that is right.
        const { response } = await this.upstream.request({
          registry,
          method: "GET",
          path: "/v2/",
          headers: upstreamHeaders(request.headers, { kind: "ping" }),
          credential: caller.credential,
          redirects: "follow",
        });
        if (!response.ok) {
          throw await upstreamFailure(response, { kind: "catalog", host: registry.url.host });
        }
        await response.body?.cancel();
        return json({}, 200);
      }
      const hasToken = request.headers.has("authorization");
      const requirement = hasToken ? undefined : await tokens.requirement(registry).catch(() => {
        // Upstream is away. A challenge loses nothing: a token for what is public can be had here.
        return { scheme: "bearer" } as const;
      });
      if (requirement && requirement.scheme !== "none") {
        throw new OciError("UNAUTHORIZED", "Authentication required");
      }
      return json({}, 200);
    } catch (error) {
      throw this.#challenged(error, visit, {});
    }
  }

  async #catalog(visit: Visit, registry: Registry): Promise<Answer> {
    const { request, url } = visit;
    try {
      const credential = credentialOf(request.headers.get("authorization"));
      const answer = await this.upstream.request({
        registry,
        method: request.method as "GET" | "HEAD",
        path: `/v2/_catalog${forwardedSearch(url)}`,
        headers: upstreamHeaders(request.headers, { kind: "catalog" }),
        // Never the operator's account: a catalogue would show what only it can see.
        credential:
          this.#access.caller({ ...registry, sharePrivate: false }, credential).credential,
        scope: "registry:catalog:*",
        redirects: "follow",
      });
      const { response } = answer;
      if (!response.ok) {
        throw await upstreamFailure(response, { kind: "catalog", host: registry.url.host });
      }
      const link = { upstream: answer.url, client: url };
      const { headers: said, body } = decoded(response, "catalog");
      const headers = replyHeaders(said, { kind: "catalog", status: 200, link });
      const { upstreamIdleTimeout: idle } = this.config;
      return watchBody(body && withIdleLimit(body, idle), { headers });
    } catch (error) {
      throw this.#challenged(error, visit, { scope: "registry:catalog:*" });
    }
  }

  /** A 401 gets its challenge: exactly one, Bearer, to this proxy's own token endpoint. */
  #challenged(
    error: unknown,
    visit: Visit,
    { scope, hasPrefix }: { scope?: string; hasPrefix?: boolean },
  ): unknown {
    if (!(error instanceof OciError) || error.status !== 401) return error;
    const { scheme, host, url } = visit;
    // A scope that names the registry itself is told apart by that; a second mention would hide it.
    const ns = hasPrefix ? undefined : url.searchParams.get("ns") ?? undefined;
    const challenge = challengeFor({ scheme, host, scope, ns });
    return new OciError(error.code, error.message, {
      status: 401,
      detail: error.detail,
      cause: error.cause,
      headers: { ...error.headers, "www-authenticate": challenge },
    });
  }

  /** The log line and the counters, when the body has ended. */
  async #record(
    { started, ...asked }: Asked,
    { answer, meaning }: { answer: Answer; meaning: Meaning },
  ): Promise<void> {
    const { cache } = answer;
    const { status, headers } = headOf(answer);
    const length = Number(headers.get("content-length") ?? 0);
    const { stats } = this;
    const timed = `${meaning.registry ?? "-"} ${meaning.kind} ${cache ?? "-"}`;
    stats.firstByte.observe(timed, (performance.now() - started) / 1000);
    const { bytes, complete } = await answer.delivered;
    stats.duration.observe(timed, (performance.now() - started) / 1000);
    if (meaning.kind === "manifest" && (cache === "HIT" || cache === "STALE")) {
      stats.imageHit(imageOf(meaning));
    }
    stats.requests.add(labelsOf(meaning, { status, cache }));
    stats.bytesToClients += bytes;
    if (cache === "HIT" || cache === "STALE") stats.bytesFromCache += bytes;
    requestLog.info("{method} {path} {status}", {
      ...asked,
      status,
      ...meaning,
      bytes,
      length: complete ? undefined : length,
      complete: complete ? undefined : false,
      ms: Math.round(performance.now() - started),
      cache,
    });
  }

  /** Ends: fills under way are waited for up to `grace` ms. */
  async close({ grace = 0 }: { grace?: number } = {}): Promise<void> {
    await this.ready.catch(() => {});
    this.#keepWarm?.stop();
    this.#sharedQuotas?.close();
    await this.#cache?.close(grace);
    this.#connect[Symbol.dispose]();
  }
}

function peerOf({ remoteAddr }: ConnectionInfo): string | undefined {
  return remoteAddr && "hostname" in remoteAddr ? remoteAddr.hostname : undefined;
}

function isAllowed(method: string, found: Route): boolean {
  return method === "GET" || method === "HEAD" || method === "POST" && found.kind === "token";
}

/** Under what a request is counted. */
function labelsOf(
  { registry, kind }: Meaning,
  { status, cache }: { status: number; cache: CacheResult | undefined },
): string {
  return `${registry ?? "-"} ${kind} ${Math.floor(status / 100)}xx ${cache ?? "-"}`;
}

/** The image of a request for a manifest, as its pulls are counted. */
function imageOf({ registry, repository, reference }: Meaning): string {
  return `${registry} ${repository} ${reference}`;
}

/** The path alone: a query may hold a secret that a client put there by mistake. */
function pathOf(url: string): string {
  return URL.parse(url)?.pathname ?? "-";
}

function redirect(location: string): Response {
  return new Response(null, { status: 301, headers: { location, ...API_VERSION } });
}

function json(value: unknown, status = 200): Answer {
  const body = new TextEncoder().encode(JSON.stringify(value));
  const headers = {
    "content-type": "application/json",
    "content-length": String(body.byteLength),
    "cache-control": "no-store",
    ...API_VERSION,
  };
  return plainAnswer(new Response(body, { status, headers }), undefined, body.byteLength);
}

/** What went wrong, for the client. What nobody expected stays in the log. */
function toOciError(error: unknown): OciError {
  if (error instanceof OciError) return error;
  requestLog.error("Unexpected error: {error}", {
    error: String((error as Error)?.stack ?? error),
  });
  return new OciError("UNKNOWN", "Internal error");
}
