/**
 * The upstream side of the distribution API: authorization, redirects, and what each registry last did.
 *
 * @module
 */
import { orAborted } from "../util/deadline.ts";
import { upstreamLog } from "../telemetry/log.ts";
import { span } from "../telemetry/trace.ts";
import { OciError } from "../oci/error.ts";
import { basePath, type Registry } from "../oci/registry.ts";
import type { Credential } from "../transforms/auth.ts";
import {
  classifyRedirect,
  isRedirect,
  MAX_HOPS,
  mayCarryAuthorization,
  nextHop,
  redirectClass,
  type RedirectPolicy,
} from "../transforms/redirect.ts";
import { type Send, type Sent, sleepFor } from "./transport/send.ts";
import { storageRetry } from "./storage_retry.ts";
import type { Authorization, Tokens } from "./token.ts";

/** One request to a registry's API. */
export interface UpstreamRequest {
  readonly registry: Registry;
  readonly method: "GET" | "HEAD";
  /** From `/v2/` on, with the query: `/v2/library/nginx/tags/list?n=5`. */
  readonly path: string;
  /** Never with an Authorization: that is what `credential` is for. */
  readonly headers: Headers;
  readonly credential: Credential;
  /** What a token must allow: `repository:library/nginx:pull`. */
  readonly scope?: string;
  /** Whether a client chose headers or the query. @default {false} */
  readonly fromClient?: boolean;
  /** How long to wait for headers, ms, per hop. */
  readonly timeout?: number;
  /** Gives it up: then its reason is thrown. */
  readonly signal?: AbortSignal;
  /**
   * What to do with a redirect: `policy` hands storage over to the client where the configuration says
   * so; `follow` brings the content in any case.
   * @default {"policy"}
   */
  readonly redirects?: "policy" | "follow";
}

/** An upstream answer. */
export interface UpstreamAnswer extends Sent {
  /** Where the answer came from, after redirects. */
  readonly url: URL;
  /**
   * When the credential was last found good: a token proves what its realm thought when it gave it.
   * @default {just now}
   */
  readonly provedAt?: number;
  /** Set when the answer is a redirect that the client is to follow itself: its absolute target. */
  readonly handOver?: URL;
}

/** How long a registry that could not be reached counts as down, ms. */
const DOWN_FOR = 10_000;

/** Options for {@linkcode Upstream}. */
export interface UpstreamOptions {
  readonly send: Send;
  readonly tokens: Tokens;
  readonly redirects: RedirectPolicy;
  /** Told of every answer of a registry's own, whatever its status. */
  readonly onAnswer?: (request: UpstreamRequest, response: Response) => void;
  /** Told that a host which `registry` redirected to is asked again. */
  readonly onRetry?: (registry: Registry) => void;
  /** @default {Date.now} */
  readonly now?: () => number;
  /** Waits `ms`; tests pass one that does not. @default {setTimeout} */
  readonly sleep?: (ms: number) => Promise<void>;
}

/** All registries, as this proxy asks them. */
export class Upstream {
  readonly tokens: Tokens;
  readonly #send: Send;
  readonly #redirects: RedirectPolicy;
  readonly #onAnswer: UpstreamOptions["onAnswer"];
  readonly #onRetry: UpstreamOptions["onRetry"];
  readonly #now: () => number;
  readonly #sleep: (ms: number) => Promise<void>;
  readonly #downUntil = new Map<string, number>();

  constructor(options: UpstreamOptions) {
    this.tokens = options.tokens;
    this.#send = options.send;
    this.#redirects = options.redirects;
    this.#onAnswer = options.onAnswer;
    this.#onRetry = options.onRetry;
    this.#now = options.now ?? Date.now;
    this.#sleep = options.sleep ?? sleepFor;
  }

  /** Whether the registry could not be reached a moment ago: who has an old answer need not wait. */
  isDown(registry: Registry): boolean {
    const left = (this.#downUntil.get(registry.id) ?? 0) - this.#now();
    // More than there can be: the clock was set back since.
    return left > 0 && left <= DOWN_FOR;
  }

  /**
   * Sends `request` with the authorization its credential gives, and follows redirects as it says.
   * Returns whatever status the registry answers. Throws an `OciError`: 401 where its realm refuses the
   * credential, 429, 502 or 504.
   */
  async request(request: UpstreamRequest): Promise<UpstreamAnswer> {
    try {
      const answer = await span("upstream", {
        "registry.name": request.registry.name,
        "http.request.method": request.method,
      }, () => this.#authorized(request));
      this.#downUntil.delete(request.registry.id);
      return answer;
    } catch (error) {
      // Not where we refused to go on: one odd redirect would keep every tag of the registry from being asked for.
      const isUnreachable = error instanceof OciError && error.status >= 502 &&
        error.cause !== undefined;
      if (isUnreachable && isOurOwn(request)) {
        this.#downUntil.set(request.registry.id, this.#now() + DOWN_FOR);
      }
      throw error;
    }
  }

  async #authorized(request: UpstreamRequest): Promise<UpstreamAnswer> {
    const { registry, credential, scope } = request;
    const { tokens } = this;
    if (credential.kind === "bearer") {
      // A client's own token is not held back until the registry asks: it was given for this.
      const answer = await this.#follow(request, { value: `Bearer ${credential.token}` });
      if (isChallenge(answer, registry)) {
        await orGiveUp(answer, tokens.learn(registry, answer.response.headers));
      }
      return answer;
    }
    const known = tokens.known(registry);
    const remembered = known &&
      await tokens.authorization(registry, { credential, scope, requirement: known });
    const answer = await this.#follow(request, remembered);
    if (!isChallenge(answer, registry)) return answer;
    // Nothing was known yet, or what was remembered is no longer accepted: once more, with a new token.
    const requirement = await orGiveUp(answer, tokens.learn(registry, answer.response.headers));
    const renew = remembered !== undefined;
    const asking = tokens.authorization(registry, { credential, scope, requirement, renew });
    const fresh = await orGiveUp(answer, asking);
    if (fresh === undefined || fresh.value === remembered?.value) return answer;
    await answer.response.body?.cancel().catch(() => {}); // read to no purpose, only to free it
    return await this.#follow(request, fresh);
  }

  async #follow(
    request: UpstreamRequest,
    authorization?: Authorization,
  ): Promise<UpstreamAnswer> {
    const provedAt = authorization?.issuedAt;
    const { registry, method, redirects = "policy" } = request;
    const start = new URL(basePath(registry) + request.path, registry.url);
    let url = start;
    let retries = 0;
    for (let hop = 0; hop <= MAX_HOPS; hop++) {
      const headers = new Headers(request.headers);
      // Never beyond the registry's own origin: presigned storage refuses it, and it is not theirs.
      if (authorization !== undefined && mayCarryAuthorization(url, registry)) {
        headers.set("authorization", authorization.value);
      }
      const { timeout, signal } = request;
      const sent = await this.#send(url, { registry, method, headers, timeout, signal });
      const { response } = sent;
      const isOwn = url.origin === registry.url.origin;
      if (isOwn) this.#onAnswer?.(request, response);
      // A registry's own 429 is a quota, and its 503 its own word: both are the client's to hear.
      const retry = isOwn ? undefined : storageRetry(response, { retries, now: this.#now() });
      if (retry) {
        retries++;
        await response.body?.cancel().catch(() => {}); // an error's: of no use
        const { pause, anew } = retry;
        const { status } = response;
        upstreamLog.debug("Asking {host} again", { host: url.host, status, pause, anew });
        this.#onRetry?.(registry);
        await orAborted(this.#sleep(pause), signal);
        hop = anew ? -1 : hop - 1;
        if (anew) url = start;
        continue;
      }
      if (!isRedirect(response.status)) return { ...sent, url, provedAt };
      await response.body?.cancel().catch(() => {}); // also of a redirect that leads nowhere
      const target = nextHop({ from: url, location: response.headers.get("location"), registry });
      const isHandedOver = redirects === "policy" && target.origin !== registry.url.origin &&
        classifyRedirect(target, this.#redirects) === "hand-over";
      upstreamLog.debug("Redirect from {from} to {to}: {how}", {
        from: url.host,
        to: target.host,
        status: response.status,
        class: redirectClass(target, this.#redirects),
        how: isHandedOver ? "handed to the client" : "followed",
      });
      if (isHandedOver) return { ...sent, url, provedAt, handOver: target };
      url = target;
    }
    throw new OciError(
      "UNAVAILABLE",
      `${registry.url.host} redirects more than ${MAX_HOPS} times`,
      {
        detail: { host: url.host },
      },
    );
  }
}

/**
 * Whether `credential` is one that a client chose: neither nobody's nor the operator's. What becomes of a request
 * with one may be the credential's doing, and says nothing of the registry: a token of 20 KB makes a registry
 * break off, an odd user name its token server fail.
 */
export function isClientChosen(credential: Credential, { credentials }: Registry): boolean {
  if (credential.kind !== "basic") return credential.kind === "bearer";
  const { username, password } = credential;
  return !credentials.some((own) => own.username === username && own.password === password);
}

/** Whether nothing of `request` but the name of what it asks for is a client's choice. */
function isOurOwn({ credential, registry, fromClient = false }: UpstreamRequest): boolean {
  return !fromClient && !isClientChosen(credential, registry);
}

/** What `work` comes to; where it fails, nobody reads `answer` any more. */
async function orGiveUp<T>({ response }: UpstreamAnswer, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    response.body?.cancel().catch(() => {}); // of no use
    throw error;
  }
}

/** A 401 of the registry's own, rather than of somewhere it redirected to, that says what is missing. */
function isChallenge({ response, url }: UpstreamAnswer, registry: Registry): boolean {
  return response.status === 401 && url.origin === registry.url.origin &&
    response.headers.has("www-authenticate");
}
