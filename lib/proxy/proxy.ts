/**
 * The pipeline, in order.
 *
 * @module
 */
import {
  type Answer,
  headOf,
  jsonAnswer,
  plainAnswer,
  redirectAnswer,
} from "../response/answer.ts";
import { type OpenParts, Services } from "./services.ts";
import type { Cache } from "../cache/cache.ts";
import type { Config } from "../config/config.ts";
import type { CachedResponse, HotRequest } from "../response/response_cache.ts";
import type { QuickAnswer } from "../response/wire.ts";
import type { DownloadQueues } from "../limits/downloads.ts";
import type { Quotas } from "../limits/quota.ts";
import type { RequestLimit } from "../limits/request_limit.ts";
import { requestLog, withRequestId } from "../telemetry/log.ts";
import { OciError, renderError } from "../oci/error.ts";
import { pullScope } from "../oci/scope.ts";
import { failureOf, type Meaning, record, recorder } from "./access_log.ts";
import type { Registry } from "../oci/registry.ts";
import {
  type ConnectionInfo,
  type RequestContext,
  RequestReader,
} from "../request/request_context.ts";
import { answerCatalog, answerPing, CATALOG_SCOPE } from "./registry_requests.ts";
import type { Stats } from "../telemetry/stats.ts";
import { LoopLag, noteRequest } from "../telemetry/loop_lag.ts";
import { answerToken } from "./token_endpoint.ts";
import { challengeFor, clientScope, credentialFor } from "../transforms/auth.ts";
import { library } from "../transforms/library.ts";
import { type Route, route, type Target } from "../transforms/route.ts";
import type { Upstream } from "../upstream/client.ts";
import { isUpstreamTrouble, notFound } from "../upstream/failure.ts";
import { VERSION } from "../util/version.ts";

export type { ConnectionInfo } from "../request/request_context.ts";

/** The whole proxy behind one `fetch`. */
export class Proxy {
  readonly config: Config;
  /** Settles when the cache is open; rejects with a `CacheOpenError`. */
  readonly ready: Promise<void>;
  /** How long the event loop stood still. */
  readonly lag: LoopLag;
  readonly #made: Services;
  readonly #requests: RequestReader;

  constructor(config: Config) {
    this.config = config;
    this.#requests = new RequestReader(config);
    this.#made = new Services(config);
    this.lag = new LoopLag();
    this.ready = this.#made.ready.then(() => {});
    this.ready.catch(() => {}); // every request rejects with it; nobody has to wait for it before
  }

  get stats(): Stats {
    return this.#made.stats;
  }

  get upstream(): Upstream {
    return this.#made.upstream;
  }

  /** What upstreams say of the pulls that are left. */
  get quotas(): Quotas {
    return this.#made.quotas;
  }

  /** Where downloads wait for a place. */
  get queues(): DownloadQueues {
    return this.#made.queues;
  }

  /** Which clients have requests under way. */
  get requestLimit(): RequestLimit {
    return this.#made.requestLimit;
  }

  /** The open cache, for who operates it; undefined without one, and before `ready`. */
  get cache(): Cache | undefined {
    return this.#made.cache;
  }

  /** Answers one request. Never rejects, unless the cache could not be opened. */
  fetch = async (request: Request, info: ConnectionInfo = {}): Promise<Response> => {
    const context = this.#requests.read(request, info);
    noteRequest(context, context.client);
    const now = Date.now();
    const hit = context.refusal ? undefined : this.#made.hot?.find(context, now);
    if (!hit) return (await withRequestId(() => this.#answer(context))).response;
    this.#sent(hit, context.client);
    return hit.response(now);
  };

  /** An answer from memory as it goes on the wire, for a listener that can send it. Never throws. */
  quick(request: HotRequest, peer: string): QuickAnswer | undefined {
    const now = Date.now();
    const hit = this.#made.hot?.find(request, now);
    if (!hit) return undefined;
    const client = this.#requests.client(request.header, peer);
    return { bytes: hit.wire(now), sent: () => this.#sent(hit, client) };
  }

  /** Counts and logs a hit in memory. */
  #sent({ facts, record }: CachedResponse, client: string | undefined): void {
    facts.used(facts.digest);
    record(client ?? "");
  }

  /** What `fetch` does, for a listener that can send what an answer's response is made of. */
  answer(request: Request, info: ConnectionInfo = {}): Promise<Answer> {
    const context = this.#requests.read(request, info);
    return withRequestId(() => this.#answer(context));
  }

  async #answer(context: RequestContext): Promise<Answer> {
    const { hot, stats } = this.#made;
    const parts = this.#made.parts ?? await this.#made.ready;
    const version = hot?.version;
    const meaning: Meaning = { kind: "other" };
    let answer: Answer;
    try {
      if (context.refusal) throw context.refusal;
      answer = await this.#handle(context, { parts, meaning });
      noteRequest(context, context.client); // others were worked on meanwhile
    } catch (error) {
      noteRequest(context, context.client);
      const failure = toOciError(error);
      meaning.failure = failureOf(failure);
      const response = renderError(failure, context.method);
      const bytes = response.body ? Number(response.headers.get("content-length")) : 0;
      answer = plainAnswer(response, undefined, bytes);
    }
    record(context, { answer, meaning, stats });
    if (version !== undefined) this.#keep(context, { answer, meaning, version });
    return answer;
  }

  /** Keeps in memory what everybody may be given again. */
  #keep(
    context: RequestContext,
    { answer, meaning, version }: { answer: Answer; meaning: Meaning; version: number },
  ): void {
    const { hot, stats } = this.#made;
    // An answer from memory tells nothing of the why.
    if (!answer.hot || requestLog.isEnabledFor("debug")) return;
    hot?.keep(context, {
      headers: headOf(answer).headers,
      facts: answer.hot,
      version,
      recorder: () => recorder(context, { answer, meaning, stats }),
    });
  }

  async #handle(context: RequestContext, { parts, meaning }: Handling): Promise<Answer> {
    const { method, client } = context;
    const peer = parts.cache?.peer(context);
    if (peer) return plainAnswer(peer);
    const found = route(context, this.config);
    meaning.kind = found.kind;
    if ("registry" in found) meaning.registry = found.registry.name;
    tellRoute(context, found);
    checkMethod(method, found);
    const work = () => this.#dispatch(context, { found, parts, meaning });
    // Whoever looks after the process asks for its health from where it likes.
    if (found.kind === "health") return await work();
    this.#made.gate?.admitClient(client);
    return await this.#made.requestLimit.run(client, work);
  }

  async #dispatch(
    context: RequestContext,
    { found, parts, meaning }: Handling & { readonly found: Route },
  ): Promise<Answer> {
    const { url, client } = context;
    const { upstreamIdleTimeout: idle } = this.config;
    const { upstream, stats } = this.#made;
    switch (found.kind) {
      case "home":
        return redirectAnswer("/v2/");
      case "health": {
        const uptime = Math.floor((Date.now() - stats.startedAt) / 1000);
        return jsonAnswer({ status: "ok", version: VERSION, uptime });
      }
      case "unrouted":
        return jsonAnswer({ routes: found.routes, message: "No registry at this host" }, 404);
      case "token": {
        const { registry, pathMode, hosted } = found;
        const work = {
          table: this.config,
          tokens: upstream.tokens,
          hasCache: parts.cache !== undefined,
        };
        await this.#made.gate?.budget(client)?.takeMiss();
        const onRegistry = ({ name }: Registry) => meaning.registry = name;
        return await answerToken(context, { registry, pathMode, hosted, onRegistry, ...work });
      }
      case "ping": {
        const { registry, hosted } = found;
        const work = { registry, hosted, access: parts.access, upstream, idle };
        await this.#made.gate?.budget(client)?.takeMiss();
        return await challenged(context, {}, () => answerPing(context, work));
      }
      case "catalog": {
        const { registry, hosted } = found;
        const work = { registry, hosted, access: parts.access, upstream, idle };
        const scope = CATALOG_SCOPE;
        await this.#made.gate?.budget(client)?.takeMiss();
        return await challenged(context, { scope }, () => answerCatalog(context, work));
      }
      case "target": {
        const { target, hosted } = found;
        const { registry, repository, reference, kind } = target;
        Object.assign(meaning, { registry: registry.name, repository, reference, kind });
        const path = library(target);
        if (path !== undefined) return redirectAnswer(path + url.search);
        const scope = clientScope(pullScope(repository), target.prefix);
        const hasPrefix = target.prefix !== "";
        const work = () => this.#target(context, { target, hosted, parts });
        return await challenged(context, { scope, hasPrefix }, work);
      }
    }
  }

  async #target(
    { method, headers, url, client, left }: RequestContext,
    { target, hosted, parts }: { target: Target; hosted: Registry; parts: OpenParts },
  ): Promise<Answer> {
    const { registry, kind } = target;
    const { gate } = this.#made;
    try {
      gate?.admitRepository(target);
      const authorization = headers.get("authorization");
      const caller = parts.access.caller(
        registry,
        credentialFor(registry, { authorization, hosted }),
      );
      const budget = gate?.budget(client);
      const beforeMiss = budget && (() => budget.takeMiss());
      const isCached = parts.cache && (kind === "manifest" || kind === "blob");
      // Before the budget is settled: a refusal costs nothing, and is counted once.
      if (!isCached) await beforeMiss?.();
      const asked = { method, headers, url, target, caller, client, left, beforeMiss };
      const work = () => parts.handler.answer(asked);
      return await (budget ? budget.settle(work) : work());
    } catch (error) {
      if (this.config.cache?.only && isUpstreamTrouble(error) && error.status !== 429) {
        throw notFound(kind, "Not in the cache, and upstream is never asked (OFFLINE)");
      }
      throw error;
    }
  }

  /** Ends: fills under way are waited for up to `grace` ms. */
  async close({ grace = 0 }: { grace?: number } = {}): Promise<void> {
    try {
      await this.#made.close(grace);
    } finally {
      this.lag.close();
    }
  }
}

/** What a request is handled with, and what is found out of it. */
interface Handling {
  readonly parts: OpenParts;
  readonly meaning: Meaning;
}

function tellRoute({ host, path }: RequestContext, found: Route): void {
  requestLog.debug("Route of {host}{path}: {kind}", () => {
    const { kind } = found;
    const to = kind === "target" ? found.target : "registry" in found ? found : undefined;
    const target = kind === "target" ? found.target.repository : undefined;
    return { host, path, kind, registry: to?.registry.name, target };
  });
}

/** Throws an `OciError` (405) for what would write. */
function checkMethod(method: string, { kind }: Route): void {
  if (method === "GET" || method === "HEAD" || method === "POST" && kind === "token") return;
  throw new OciError("UNSUPPORTED", `${method} is not supported: this proxy only reads`, {
    headers: { allow: kind === "token" ? "GET, POST" : "GET, HEAD" },
  });
}

/** What `work` answers. A 401 of it gets its challenge: one, Bearer, to this proxy's own token endpoint. */
async function challenged(
  { scheme, host, url }: RequestContext,
  { scope, hasPrefix }: { scope?: string; hasPrefix?: boolean },
  work: () => Promise<Answer>,
): Promise<Answer> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof OciError) || error.status !== 401) throw error;
    // A scope that names the registry itself is told apart by that; a second mention would hide it.
    const ns = hasPrefix ? undefined : url.searchParams.get("ns") ?? undefined;
    const challenge = challengeFor({ scheme, host, scope, ns });
    const { code, message, detail, cause } = error;
    const headers = { ...error.headers, "www-authenticate": challenge };
    throw new OciError(code, message, { status: 401, detail, cause, headers });
  }
}

/** What went wrong, for the client. What nobody expected stays in the log. */
function toOciError(error: unknown): OciError {
  if (error instanceof OciError) return error;
  const text = String((error as Error)?.stack ?? error);
  requestLog.error("Unexpected error: {error}", { error: text });
  return new OciError("UNKNOWN", "Internal error");
}
