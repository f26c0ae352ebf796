/**
 * Asking a registry about a target on behalf of a caller, and noting what the answer proves.
 *
 * @module
 */
import type { Access, Caller, RepositoryKey } from "../access.ts";
import { upstreamLog } from "../log.ts";
import { isDigest } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { essence } from "../oci/media_type.ts";
import { pullScope } from "../oci/scope.ts";
import type { Credential } from "../transforms/auth.ts";
import { isRedirect } from "../transforms/redirect.ts";
import type { Target } from "../transforms/route.ts";
import type { Upstream, UpstreamAnswer, UpstreamRequest } from "./client.ts";
import { isUpstreamTrouble, upstreamFailure } from "./failure.ts";
import { isOwnOrigin } from "./guard.ts";

type BasicAccount = Credential & { readonly kind: "basic" };

/** How a target is asked for. */
export interface AskOptions
  extends Pick<UpstreamRequest, "method" | "timeout" | "redirects" | "signal"> {
  readonly caller: Caller;
  readonly headers?: Headers;
  /** The client's query, without `ns`. */
  readonly search?: string;
  /** Whether an answer is what was asked about; where it is not, that is 502. @default {it is} */
  readonly proves?: (answer: UpstreamAnswer) => boolean;
}

/** The registry's path of `target`, from `/v2/` on. */
export function upstreamPath({ repository, kind, reference }: Target): string {
  const tail = {
    manifest: "manifests/",
    blob: "blobs/",
    referrers: "referrers/",
    tags: "tags/list",
  };
  return `/v2/${repository}/${tail[kind]}${reference}`;
}

/** The repository of `target` in keys: by registry id and name, so that names do not collide. */
export function repositoryKey({ registry, repository }: Target): RepositoryKey {
  return { registry: registry.id, repository };
}

/** What upstream answers instead. */
interface Failure {
  readonly error: OciError;
  /** Whether it says that the caller may not read the repository. */
  readonly isRefusal: boolean;
}

/** Options for {@linkcode Asker}. */
export interface AskerOptions {
  readonly upstream: Upstream;
  readonly access: Access;
}

/** Asks upstream. */
export class Asker {
  readonly access: Access;
  readonly #upstream: Upstream;
  /** What is being found out in the background, and what ends it. */
  readonly #learning = new Set<Promise<void>>();
  readonly #ending = new AbortController();

  constructor(options: AskerOptions) {
    this.access = options.access;
    this.#upstream = options.upstream;
  }

  /** Whether the registry could not be reached a moment ago. */
  isDown(target: Target): boolean {
    return this.#upstream.isDown(target.registry);
  }

  /**
   * Upstream's answer, a 2xx or a redirect that was not followed: both prove that the caller may read the
   * repository, and that is noted. Throws an `OciError` for anything else.
   */
  async ask(target: Target, options: AskOptions): Promise<UpstreamAnswer> {
    const { caller } = options;
    const key = repositoryKey(target);
    const credential = await this.access.fetchWith(caller, target.registry, key);
    let used = credential;
    let answer = await this.#try(target, { ...options, credential });
    // An account whose pulls are used up may have siblings; each is tried once.
    const tried = new Set<string>();
    while ("error" in answer && answer.error.status === 429 && isAccount(used, target)) {
      tried.add(used.username);
      const next = await this.access.fetchWith(caller, target.registry, key);
      if (!isAccount(next, target) || tried.has(next.username)) break;
      used = next;
      answer = await this.#try(target, { ...options, credential: used });
    }
    if ("error" in answer && answer.isRefusal && used !== caller.credential) {
      // The operator's account is no good here; what everybody may read does not depend on it.
      upstreamLog.warn("{registry} refuses the configured credentials", {
        registry: target.registry.name,
      });
      used = caller.credential;
      answer = await this.#try(target, { ...options, credential: used });
    }
    if ("error" in answer) {
      if (answer.isRefusal) await this.access.refused(caller, key, used);
      throw answer.error;
    }
    await this.access.allowed(caller, key, { used, at: answer.provedAt });
    return answer;
  }

  async #try(
    target: Target,
    options: AskOptions & { credential: Credential },
  ): Promise<UpstreamAnswer | Failure> {
    const { registry, repository, kind } = target;
    const { method, headers, credential, timeout, redirects, signal, search = "", proves } =
      options;
    try {
      const answer = await this.#upstream.request({
        registry,
        method,
        path: upstreamPath(target) + search,
        headers: headers ?? new Headers({ "accept-encoding": "identity" }),
        credential,
        scope: pullScope(repository),
        timeout,
        signal,
        redirects,
      });
      const { response } = answer;
      upstreamLog.debug("{method} {url} answers {status}", {
        method,
        url: answer.url.origin + answer.url.pathname,
        status: response.status,
      });
      const { status } = response;
      // No content (204, 205) is no answer to a GET of any.
      const isEmpty = method === "GET" && (status === 204 || status === 205);
      const isSuccess = response.ok && !isEmpty;
      if (isSuccess && (isPage(response) || proves?.(answer) === false)) {
        answer.abort();
        throw new OciError("UNAVAILABLE", "Upstream answers with something else", {
          detail: { host: answer.url.host, status },
        });
      }
      if (isSuccess || isRedirect(status)) return answer;
      const error = await upstreamFailure(response, { kind, host: answer.url.host });
      // Storage that says 403 has been redirected to by a registry that said yes: the URL has expired, mostly.
      const isRefusal = status === 401 || status === 403 && isOwnOrigin(answer.url, registry);
      return { error, isRefusal };
    } catch (error) {
      if (error instanceof OciError) return { error, isRefusal: error.status === 401 };
      throw error;
    }
  }

  /**
   * Finds out in the background whether the repository of a manifest is public, when only a caller with
   * credentials has read it: what is public is to be served to everybody, and while upstream is away.
   */
  learnPublic(target: Target): Promise<void> {
    const learning = this.#learn(target).finally(() => this.#learning.delete(learning));
    this.#learning.add(learning);
    return learning;
  }

  /** Ends what is being found out in the background, and waits for its end. */
  async close(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#learning);
  }

  async #learn(target: Target): Promise<void> {
    const { signal } = this.#ending;
    const key = repositoryKey(target);
    if (await this.access.isPublic(key)) return;
    const anonymous = this.access.caller({ ...target.registry, sharePrivate: false }, {
      kind: "anonymous",
    });
    try {
      await this.ask(target, {
        method: "HEAD",
        caller: anonymous,
        redirects: "follow",
        signal,
      });
    } catch (error) {
      // Some registries say of what one may not see that it does not exist. Trouble says nothing.
      if (!(error instanceof OciError) || isUpstreamTrouble(error)) return;
      await this.access.refused(anonymous, key, anonymous.credential);
    }
  }
}

/**
 * Whether a success is a page for people: registries in maintenance, and what stands in front of them, show such
 * to everybody. It would prove that what it was asked about is public.
 */
function isPage({ headers }: Response): boolean {
  return essence(headers.get("content-type") ?? "") === "text/html" &&
    !isDigest(headers.get("docker-content-digest") ?? "");
}

/** Whether `credential` is one of several accounts of the operator's. */
function isAccount(credential: Credential, { registry }: Target): credential is BasicAccount {
  return credential.kind === "basic" && registry.credentials.length > 1 &&
    registry.credentials.some(({ username }) => username === credential.username);
}
