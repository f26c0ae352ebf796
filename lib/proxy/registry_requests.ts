/**
 * Requests about a registry as a whole: `/v2/` and its catalogue.
 *
 * @module
 */
import type { Access } from "../auth/access.ts";
import { type Answer, jsonAnswer } from "../response/answer.ts";
import { OciError } from "../oci/error.ts";
import type { Registry } from "../oci/registry.ts";
import { forwardedSearch, listAnswer, withListMemory } from "../upstream/passthrough.ts";
import type { RequestContext } from "../request/request_context.ts";
import { credentialFor } from "../transforms/auth.ts";
import { upstreamHeaders } from "../transforms/headers.ts";
import type { Upstream } from "../upstream/client.ts";
import { upstreamFailure } from "../upstream/failure.ts";

/** What the catalogue needs a token for. */
export const CATALOG_SCOPE = "registry:catalog:*";

/** What such requests work with. */
export interface RegistryContext {
  readonly registry: Registry;
  /** The registry whose credentials clients send: the one that the host means. */
  readonly hosted: Registry;
  readonly access: Access;
  readonly upstream: Upstream;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
}

/**
 * `GET /v2/`: whether the registry wants authentication, without needing it to be up. Throws an `OciError`
 * (401) where it does.
 */
export async function answerPing(
  { headers }: RequestContext,
  context: RegistryContext,
): Promise<Answer> {
  const { registry, hosted, access, upstream } = context;
  const authorization = headers.get("authorization");
  const credential = credentialFor(registry, { authorization, hosted });
  const caller = access.caller(registry, credential);
  if (caller.credential.kind !== "anonymous" && !caller.isShared) {
    // Somebody logs in: only the registry can say whether that is right.
    const { response } = await upstream.request({
      registry,
      method: "GET",
      path: "/v2/",
      headers: upstreamHeaders(headers, { kind: "ping" }),
      credential: caller.credential,
      redirects: "follow",
      fromClient: true,
    });
    if (!response.ok) {
      throw await upstreamFailure(response, { kind: "catalog", host: registry.url.host });
    }
    await response.body?.cancel();
    return jsonAnswer({});
  }
  const hasToken = authorization !== null;
  const requirement = hasToken
    ? undefined
    : await upstream.tokens.requirement(registry).catch(() => {
      // Upstream is away. A challenge loses nothing: a token for what is public can be had here.
      return { scheme: "bearer" } as const;
    });
  if (requirement && requirement.scheme !== "none") {
    throw new OciError("UNAUTHORIZED", "Authentication required");
  }
  return jsonAnswer({});
}

/** `GET /v2/_catalog`, passed through. Throws an `OciError` for what upstream refuses. */
export async function answerCatalog(
  context: RequestContext,
  registryContext: RegistryContext,
): Promise<Answer> {
  return await withListMemory(() => askForCatalog(context, registryContext));
}

async function askForCatalog(
  { method, headers: asked, url }: RequestContext,
  { registry, hosted, access, upstream, idle }: RegistryContext,
): Promise<Answer> {
  const authorization = asked.get("authorization");
  const credential = credentialFor(registry, { authorization, hosted });
  const answer = await upstream.request({
    registry,
    method: "GET", // whether it is a list only its body shows
    path: `/v2/_catalog${forwardedSearch(url)}`,
    headers: upstreamHeaders(asked, { kind: "catalog" }),
    // Never the operator's account: a catalogue would show what only it can see.
    credential: access.caller({ ...registry, sharePrivate: false }, credential).credential,
    scope: CATALOG_SCOPE,
    redirects: "follow",
    fromClient: true,
  });
  const { response } = answer;
  if (!response.ok) {
    throw await upstreamFailure(response, { kind: "catalog", host: registry.url.host });
  }
  return await listAnswer(answer, { kind: "catalog", method, client: url, idle });
}
