/**
 * Tokens: what a registry asks for, what its realm gives for a credential, and for how long.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { isPast } from "../auth/access.ts";
import { SingleFlight } from "../util/single_flight.ts";
import { upstreamLog } from "../telemetry/log.ts";
import { ByteLru, stringBytes } from "../util/lru.ts";
import { chooseChallenge, parseChallenges } from "../oci/challenge.ts";
import { span } from "../telemetry/trace.ts";
import { OciError } from "../oci/error.ts";
import { basePath, type Registry } from "../oci/registry.ts";
import type { Credential } from "../transforms/auth.ts";
import { readBounded } from "./download/body.ts";
import { basicAuthorization, credentialId } from "../auth/credential.ts";
import { retryAfter } from "./failure.ts";
import { checkRealm } from "./transport/guard.ts";
import type { Send } from "./transport/send.ts";

/** What a registry wants to see on a request. */
export type Requirement =
  | { readonly scheme: "none" }
  | { readonly scheme: "basic" }
  | { readonly scheme: "bearer"; readonly realm: URL; readonly service?: string };

/** A token and how long it works. */
export interface Token {
  readonly token: string;
  /** When it was obtained and when it ends, ms since the epoch. */
  readonly issuedAt: number;
  readonly expiresAt: number;
  /** Present when the client asked for one (`offline_token`, `access_type=offline`). */
  readonly refreshToken?: string;
}

/** What goes into a request's Authorization header. */
export interface Authorization {
  readonly value: string;
  /** When its token was obtained, ms since the epoch; absent where it is no token of a realm. */
  readonly issuedAt?: number;
}

/** One exchange of a credential for a token. */
export interface Exchange {
  readonly credential: Credential;
  /** In the registry's own terms. */
  readonly scopes: readonly string[];
  /** Further fields of the client's that the realm may want: `account`, `client_id`, `offline_token`. */
  readonly extra?: Readonly<Record<string, string>>;
  /** A form to POST in place of a GET, without `service` and `scope`: an OAuth2 grant. */
  readonly grant?: Readonly<Record<string, string>>;
}

/** Token answers are small; PROTOCOL: the largest seen is a few KiB. */
const MAX_TOKEN_ANSWER = 64 * 1024;
/** A token whose end is nearer than this is not used any more. */
const MARGIN = 10_000;
/** The longest a token is reused: a revoked credential must stop working, a repository become private. */
const MAX_REUSE = 5 * 60_000;
/** The longest life that is believed, seconds: a day. What is beyond that is a mistake, or meant ill. */
const MAX_LIFE = 24 * 60 * 60;
/** How long what a registry asks for is believed. */
const REQUIREMENT_LIFE = 60 * 60_000;
/** What a token without `expires_in` lives: the token specification's default. */
const DEFAULT_LIFE = 60;

/** Options for {@linkcode Tokens}. */
export interface TokensOptions {
  readonly send: Send;
  readonly allowPrivate: boolean;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The tokens of every registry. */
export class Tokens {
  readonly #send: Send;
  readonly #allowPrivate: boolean;
  readonly #now: () => number;
  readonly #requirements = new Map<string, { requirement: Requirement; until: number }>();
  readonly #tokens = new ByteLru<Token>({ bytes: 4 * 2 ** 20, sizeOf: tokenBytes });
  /** Ids of tokens that were given to callers without credentials. */
  readonly #anonymous = new ByteLru<true>({ bytes: 4 * 2 ** 20 });
  readonly #requirementFlights = new SingleFlight<Requirement>();
  readonly #tokenFlights = new SingleFlight<Token>();

  constructor(options: TokensOptions) {
    this.#send = options.send;
    this.#allowPrivate = options.allowPrivate;
    this.#now = options.now ?? Date.now;
  }

  /** What is known of the registry's requirement, without asking it. */
  known(registry: Registry): Requirement | undefined {
    const entry = this.#requirements.get(registry.id);
    return entry && entry.until > this.#now() ? entry.requirement : undefined;
  }

  /** What the registry asks for: `GET /v2/` tells. Throws an `OciError` when it cannot be reached. */
  async requirement(registry: Registry): Promise<Requirement> {
    return this.known(registry) ?? await this.#requirementFlights.run(registry.id, async () => {
      const response = await this.#ping(registry, new Headers());
      if (response.status === 401) return await this.learn(registry, response.headers);
      if (response.status >= 500 || response.status === 429) {
        throw new OciError(
          "UNAVAILABLE",
          `${registry.url.host} answers ${response.status} to /v2/`,
        );
      }
      return this.#remember(registry, { scheme: "none" });
    });
  }

  async #ping(registry: Registry, headers: Headers): Promise<Response> {
    const url = new URL(`${basePath(registry)}/v2/`, registry.url);
    const { response } = await this.#send(url, { registry, method: "GET", headers });
    await response.body?.cancel().catch(() => {});
    return response;
  }

  /** Throws an `OciError`, 401 or 502, unless a registry that speaks Basic accepts `authorization`. */
  async verifyBasic(registry: Registry, authorization: string): Promise<void> {
    const response = await this.#ping(registry, new Headers({ authorization }));
    if (!response.ok) throw refusal(response, registry);
  }

  /**
   * Takes over what a 401 of the registry's says, and returns it. Throws an `OciError` (502) when the
   * challenge is unusable or its realm is not one that credentials for this registry may go to.
   */
  async learn(registry: Registry, headers: Headers): Promise<Requirement> {
    const challenge = chooseChallenge(parseChallenges(headers.get("www-authenticate")));
    if (challenge?.scheme === "basic") return this.#remember(registry, { scheme: "basic" });
    const realm = challenge?.params["realm"];
    const url = realm === undefined ? null : URL.parse(realm, registry.url);
    if (!url) {
      throw new OciError(
        "UNAVAILABLE",
        `${registry.url.host} sent no usable challenge with its 401`,
      );
    }
    await checkRealm(url, { registry, allowPrivate: this.#allowPrivate });
    return this.#remember(registry, {
      scheme: "bearer",
      realm: url,
      service: challenge?.params["service"],
    });
  }

  #remember(registry: Registry, requirement: Requirement): Requirement {
    upstreamLog.debug("{registry} asks for {scheme}", {
      registry: registry.name,
      scheme: requirement.scheme,
      realm: requirement.scheme === "bearer" ? pageOf(requirement.realm) : undefined,
    });
    this.#requirements.set(registry.id, { requirement, until: this.#now() + REQUIREMENT_LIFE });
    return requirement;
  }

  /**
   * The Authorization for one request to the registry, or undefined where none is needed.
   * A client's own bearer token is passed on as it is. `renew` asks the realm whatever is remembered.
   */
  async authorization(
    registry: Registry,
    request: { credential: Credential; scope?: string; requirement: Requirement; renew?: boolean },
  ): Promise<Authorization | undefined> {
    const { credential, scope, requirement } = request;
    if (requirement.scheme === "none") return undefined;
    if (credential.kind === "bearer") return { value: `Bearer ${credential.token}` };
    if (requirement.scheme === "basic") {
      if (credential.kind !== "basic") return undefined;
      return { value: basicAuthorization(credential.username, credential.password) };
    }
    const scopes = scope === undefined ? [] : [scope];
    const atLeast = request.renew ? Infinity : MARGIN;
    const exchange: Exchange = { credential, scopes };
    const { token, issuedAt } = await this.exchange(registry, exchange, { atLeast });
    return { value: `Bearer ${token}`, issuedAt };
  }

  /**
   * A token of the registry's realm, from memory where one is left that lives `atLeast` ms more.
   * Throws an `OciError`: 401 for what the realm refuses, 429, or 502/504 when it gives no answer.
   */
  async exchange(
    registry: Registry,
    exchange: Exchange,
    { atLeast }: { atLeast: number },
  ): Promise<Token> {
    const requirement = await this.requirement(registry);
    if (requirement.scheme !== "bearer") {
      throw new TypeError(`${registry.name} has no token realm`);
    }
    const key = tokenKey(registry, requirement, exchange);
    const cached = this.#tokens.get(key);
    const now = this.#now();
    if (cached && cached.expiresAt - now >= atLeast && isPast(cached.issuedAt, now)) return cached;
    return await this.#tokenFlights.run(key, async () => {
      const attributes = { "registry.name": registry.name };
      const token = await span(
        "token",
        attributes,
        () => this.#fetch(registry, requirement, exchange),
      );
      const isAnonymous = exchange.credential.kind === "anonymous" && !exchange.grant;
      if (isAnonymous) this.#anonymous.set(tokenId(token.token), true);
      const kept = Math.min(token.expiresAt, token.issuedAt + MAX_REUSE);
      this.#tokens.set(key, { ...token, expiresAt: kept });
      return token;
    });
  }

  /** Whether `token` is one that the realm gave through here to a caller without credentials. */
  isAnonymous(token: string): boolean {
    return this.#anonymous.has(tokenId(token));
  }

  async #fetch(
    registry: Registry,
    { realm, service }: Requirement & { scheme: "bearer" },
    { credential, scopes, extra, grant }: Exchange,
  ): Promise<Token> {
    const headers = new Headers({ accept: "application/json" });
    const url = new URL(realm);
    let body: string | undefined;
    if (grant) {
      const form = new URLSearchParams({ ...extra, ...grant });
      if (service !== undefined) form.set("service", service);
      if (scopes.length > 0) form.set("scope", scopes.join(" "));
      headers.set("content-type", "application/x-www-form-urlencoded");
      body = form.toString();
    } else {
      // Apart from the URL, which would be written anew for each.
      const query = new URLSearchParams(url.search);
      for (const [name, value] of Object.entries(extra ?? {})) query.set(name, value);
      if (service !== undefined) query.set("service", service);
      for (const scope of scopes) query.append("scope", scope);
      if (credential.kind === "basic") {
        headers.set("authorization", basicAuthorization(credential.username, credential.password));
        if (!query.has("account")) query.set("account", credential.username);
      }
      url.search = query.toString();
    }
    const issuedAt = this.#now();
    const { response } = await this.#send(url, {
      registry,
      method: grant ? "POST" : "GET",
      headers,
      body,
    });
    upstreamLog.debug("{realm} answers {status} to a request for a token", {
      realm: pageOf(url),
      status: response.status,
      registry: registry.name,
      scopes: scopes.join(" "),
      credential: grant?.["grant_type"] ?? credential.kind,
    });
    const bytes = await readBounded(response, {
      limit: MAX_TOKEN_ANSWER,
      deadline: 30_000,
      what: "token answer",
    });
    if (!response.ok) throw refusal(response, registry);
    return readToken(bytes, issuedAt);
  }
}

/** A URL as logs may have it: what a query holds is nobody's business. */
function pageOf({ origin, pathname }: URL): string {
  return origin + pathname;
}

/**
 * The key of a cached token. It must tell apart registries, realms and services (a token is good for one
 * audience), scopes in any order, and callers; and it must not contain a secret.
 */
function tokenKey(
  registry: Registry,
  requirement: Requirement & { scheme: "bearer" },
  { credential, scopes, extra, grant }: Exchange,
): string {
  const caller = grant
    ? credentialId({ kind: "bearer", token: JSON.stringify(grant) })
    : credentialId(credential);
  const { realm, service } = requirement;
  const parts = [registry.id, realm.href, service, scopes.toSorted(), caller, extra ?? {}];
  // Hashed: clients choose how long it is.
  return createHash("sha256").update(JSON.stringify(parts)).digest("base64");
}

/** What a token takes in memory, bytes. */
function tokenBytes({ token, refreshToken = "" }: Token): number {
  return 100 + stringBytes(token) + stringBytes(refreshToken);
}

function tokenId(token: string): string {
  return credentialId({ kind: "bearer", token });
}

/** The error for a realm that did not answer 2xx. */
function refusal(response: Response, registry: Registry): OciError {
  const { status } = response;
  const detail = { registry: registry.url.host, status };
  if (status === 401 || status === 403) {
    return new OciError("UNAUTHORIZED", "The registry refused the credentials", { detail });
  }
  if (status === 429) {
    const headers = { "retry-after": retryAfter(response.headers) };
    return new OciError("TOOMANYREQUESTS", "Too many token requests", { detail, headers });
  }
  if (status >= 400 && status < 500) {
    // Passed on: containerd retries a POST as a GET on 400, 404 and 405.
    return new OciError("UNSUPPORTED", "The registry refused the token request", {
      status,
      detail,
    });
  }
  return new OciError("UNAVAILABLE", "The registry's token server fails", { status: 502, detail });
}

/** Reads a token answer. Throws an `OciError` (502) for what is none. */
function readToken(bytes: Uint8Array, issuedAt: number): Token {
  const invalid = () =>
    new OciError("UNAVAILABLE", "The registry's token answer cannot be read", { status: 502 });
  let answer: Record<string, unknown>;
  try {
    answer = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw invalid();
  }
  if (typeof answer !== "object" || answer === null) throw invalid();
  const token = answer["token"] ?? answer["access_token"];
  // Visible ASCII only: anything else could not stand in a header.
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) throw invalid();
  const life = answer["expires_in"];
  const seconds = typeof life === "number" && life > 0 ? Math.min(life, MAX_LIFE) : DEFAULT_LIFE;
  const refresh = answer["refresh_token"];
  return {
    token,
    issuedAt,
    expiresAt: issuedAt + seconds * 1000,
    refreshToken: typeof refresh === "string" ? refresh : undefined,
  };
}
