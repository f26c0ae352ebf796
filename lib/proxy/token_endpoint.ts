/**
 * `/v2/auth`: tokens of the registry's own realm, for clients that were sent here by our challenge.
 *
 * @module
 */
import { type Answer, jsonAnswer } from "../response/answer.ts";
import { upstreamLog } from "../telemetry/log.ts";
import { OciError } from "../oci/error.ts";
import type { Registry } from "../oci/registry.ts";
import { checkTokenParameters } from "../request/bounds.ts";
import type { RequestContext } from "../request/request_context.ts";
import {
  ANONYMOUS_TOKEN,
  chooseTokenRegistry,
  type Credential,
  credentialOf,
  encodeBasicToken,
  isSameRegistry,
  upstreamScopes,
} from "../transforms/auth.ts";
import type { RouteTable } from "../oci/registry_table.ts";
import { readBounded } from "../upstream/download/body.ts";
import { basicAuthorization } from "../auth/credential.ts";
import { isUpstreamTrouble } from "../upstream/failure.ts";
import type { Exchange, Requirement, Token, Tokens } from "../upstream/token.ts";

/** What the endpoint works with. */
export interface TokenContext {
  /** The registry that the host, a prefix or `ns` names; in path mode the default one. */
  readonly registry: Registry;
  /** The registry whose credentials clients send: the one that the host means. */
  readonly hosted: Registry;
  /** Whether the scopes say which registry is meant. */
  readonly pathMode: boolean;
  readonly table: RouteTable;
  readonly tokens: Tokens;
  /** With a cache, what is public can be served while upstream's realm is away. */
  readonly hasCache: boolean;
  /** Told of the registry that is meant, before it is asked. */
  readonly onRegistry?: (registry: Registry) => void;
}

const MAX_FORM = 64 * 1024;
/** The token specification: clients must be able to rely on a minute. */
const MIN_LIFE = 60;
/** What of a client's request the realm may want to know besides service and scope. */
const EXTRA = ["account", "client_id", "offline_token", "access_type"];
const GRANT = ["grant_type", "username", "password", "refresh_token"];

/** A token request, in either of its two forms. */
interface TokenRequest {
  readonly credential: Credential;
  readonly scopes: readonly string[];
  readonly extra: Readonly<Record<string, string>>;
  readonly grant?: Readonly<Record<string, string>>;
}

function pick(params: URLSearchParams, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.map((name) => [name, params.get(name)])
      .filter((entry): entry is [string, string] => !!entry[1]),
  );
}

async function readRequest(context: RequestContext): Promise<TokenRequest> {
  const asked = await readParameters(context);
  const { scopes, extra, grant } = asked;
  checkTokenParameters({ scopes, values: { ...extra, ...grant } });
  return asked;
}

async function readParameters(context: RequestContext): Promise<TokenRequest> {
  const { method, headers, body } = context;
  const header = credentialOf(headers.get("authorization"));
  if (method !== "POST") {
    const { searchParams } = context.url;
    // A token is no credential for another token.
    const credential: Credential = header.kind === "bearer" ? { kind: "anonymous" } : header;
    return { credential, scopes: searchParams.getAll("scope"), extra: pick(searchParams, EXTRA) };
  }
  const bytes = await readBounded(new Response(body, { headers }), {
    limit: MAX_FORM,
    deadline: 10_000,
    what: "form",
  }).catch((cause) => {
    throw new OciError("UNSUPPORTED", "The form is too large or broke off", { status: 400, cause });
  });
  const form = new URLSearchParams(new TextDecoder().decode(bytes));
  const grant = pick(form, GRANT);
  const scopes = form.getAll("scope");
  const extra = pick(form, EXTRA);
  switch (grant["grant_type"]) {
    case "password": {
      const { username = "", password = "" } = grant;
      return { credential: { kind: "basic", username, password }, scopes, extra, grant };
    }
    case "refresh_token":
      return { credential: header, scopes, extra, grant };
    default:
      throw new OciError("UNSUPPORTED", "Expected grant_type password or refresh_token", {
        status: 400,
      });
  }
}

/**
 * What is asked of another registry than the one that the client logged in to: nothing that tells who the client is.
 * Throws an `OciError` (401) where it wants to log in to that: it must not be told that this worked.
 */
function withoutCredential(
  { credential, scopes, grant }: TokenRequest,
  { name }: Registry,
): TokenRequest {
  const isLogin = scopes.length === 0 && (grant !== undefined || credential.kind !== "anonymous");
  if (isLogin) {
    throw new OciError("UNAUTHORIZED", `Credentials for ${name} belong to its own host name`);
  }
  return { credential: { kind: "anonymous" }, scopes, extra: {} };
}

function tokenAnswer(token: Token, now: number): Answer {
  return jsonAnswer({
    token: token.token,
    access_token: token.token,
    expires_in: Math.max(MIN_LIFE, Math.floor((token.expiresAt - now) / 1000)),
    issued_at: new Date(token.issuedAt).toISOString(),
    refresh_token: token.refreshToken,
  });
}

/** The placeholder: whoever presents it is anonymous, and upstream is asked as such. */
function anonymousToken(now: number): Token {
  return { token: ANONYMOUS_TOKEN, issuedAt: now, expiresAt: now + MIN_LIFE * 1000 };
}

/**
 * The answer to a token request. Throws an `OciError`: 401 for what the registry refuses, 400 for a form
 * that is none, 429 or 502/504 when its realm gives no answer and a placeholder would not help.
 */
export async function answerToken(
  request: RequestContext,
  context: TokenContext,
): Promise<Answer> {
  const { pathMode, hosted, table, tokens, hasCache } = context;
  const sent = await readRequest(request);
  const registry = pathMode
    ? chooseTokenRegistry(sent.scopes, table, context.registry)
    : context.registry;
  const asked = isSameRegistry(registry, hosted) ? sent : withoutCredential(sent, registry);
  context.onRegistry?.(registry);
  const scopes = upstreamScopes(asked.scopes, registry, { pathMode, table });
  try {
    const requirement = await tokens.requirement(registry);
    const token = await obtain({ ...asked, scopes }, { registry, requirement, tokens });
    return tokenAnswer(token, Date.now());
  } catch (error) {
    // Who only wants to pull gets what is public from the cache; who logs in must not be told it worked.
    if (!hasCache || !isUpstreamTrouble(error) || asked.scopes.length === 0) throw error;
    upstreamLog.warn("{registry} gives no tokens now, going on anonymously: {cause}", {
      registry: registry.name,
      cause: error.message,
    });
    return tokenAnswer(anonymousToken(Date.now()), Date.now());
  }
}

async function obtain(
  asked: TokenRequest,
  context: { registry: Registry; requirement: Requirement; tokens: Tokens },
): Promise<Token> {
  const { registry, requirement, tokens } = context;
  const { credential } = asked;
  const now = Date.now();
  switch (requirement.scheme) {
    case "none":
      return anonymousToken(now);
    case "basic":
      if (credential.kind !== "basic") return anonymousToken(now);
      await tokens.verifyBasic(
        registry,
        basicAuthorization(credential.username, credential.password),
      );
      return { token: encodeBasicToken(credential), issuedAt: now, expiresAt: now + 5 * 60_000 };
    case "bearer": {
      const exchange: Exchange = asked;
      return await tokens.exchange(registry, exchange, { atLeast: MIN_LIFE * 1000 });
    }
  }
}
