/**
 * Asking a registry about a target on behalf of a caller, and noting what the answer proves once it is proved itself.
 *
 * @module
 */
import type { Access, Caller } from "../auth/access.ts";
import type { RepositoryKey } from "../oci/registry.ts";
import { SingleFlight } from "../util/single_flight.ts";
import { upstreamLog } from "../telemetry/log.ts";
import { isDigest } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { ACCEPT_EVERY_MANIFEST, essence } from "../oci/media_type.ts";
import { pullScope } from "../oci/scope.ts";
import type { Credential } from "../transforms/auth.ts";
import { isRedirect } from "../transforms/redirect.ts";
import type { Target } from "../transforms/route.ts";
import {
  isClientChosen,
  type Upstream,
  type UpstreamAnswer,
  type UpstreamRequest,
} from "./client.ts";
import { isUpstreamTrouble, upstreamFailure } from "./failure.ts";
import { isOwnOrigin } from "./transport/guard.ts";
import { isManifestHead } from "./proof.ts";

/** How long a question that only finds out how a registry stands waits for an answer, ms. */
const PROBE_TIMEOUT = 5_000;

type BasicAccount = Credential & { readonly kind: "basic" };

/** How a target is asked for. */
export interface AskOptions
  extends Pick<UpstreamRequest, "method" | "fromClient" | "timeout" | "redirects" | "signal"> {
  readonly caller: Caller;
  readonly headers?: Headers;
  /** The client's query, without `ns`. */
  readonly search?: string;
}

/** An upstream answer to a question about a target. By itself it proves nothing: see {@linkcode RegistryClient.proved}. */
export interface TargetAnswer extends UpstreamAnswer, Proof {
  readonly provedAt: number;
}

/** By what a caller is let in, once the answer is proved. */
export interface Proof {
  /** What upstream was asked with: the caller's own credential, or an account of the operator's. */
  readonly used: Credential;
  /** When that was last found good, ms since the epoch: a token proves what its realm thought when it gave it. */
  readonly provedAt: number;
}

/** Who asks for what. */
export interface Question {
  readonly target: Target;
  readonly caller: Caller;
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

/** Options for {@linkcode RegistryClient}. */
export interface RegistryClientOptions {
  readonly upstream: Upstream;
  readonly access: Access;
}

/** Asks upstream. */
export class RegistryClient {
  readonly access: Access;
  readonly #upstream: Upstream;
  /** What is being found out in the background, and what ends it. */
  readonly #learning = new Set<Promise<void>>();
  readonly #ending = new AbortController();
  readonly #probes = new SingleFlight<"public" | "refused" | "unknown">();

  constructor(options: RegistryClientOptions) {
    this.access = options.access;
    this.#upstream = options.upstream;
  }

  /** Whether the registry could not be reached a moment ago. */
  isDown(target: Target): boolean {
    return this.#upstream.isDown(target.registry);
  }

  /**
   * Upstream's answer, a 2xx or a redirect that was not followed. It lets nobody in: whatever stands in front of a
   * registry may say so to everything. Who has seen that it answers what was asked says {@linkcode proved}. Throws an
   * `OciError` for anything else, and notes a refusal.
   */
  async ask(target: Target, options: AskOptions): Promise<TargetAnswer> {
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
    if (caller.isShared) {
      // What one of the operator's accounts may not read another may: registries also say 404 for that.
      if (isAccount(used, target)) tried.add(used.username);
      for (const account of target.registry.credentials) {
        if (!("error" in answer) || !(answer.isRefusal || answer.error.status === 404)) break;
        if (tried.has(account.username)) continue;
        tried.add(account.username);
        used = { kind: "basic", ...account };
        answer = await this.#try(target, { ...options, credential: used });
      }
    } else if ("error" in answer && answer.isRefusal && used !== caller.credential) {
      // The operator's account is no good here; what everybody may read does not depend on it.
      upstreamLog.warn("{registry} refuses the configured credentials", {
        registry: target.registry.name,
      });
      used = caller.credential;
      answer = await this.#try(target, { ...options, credential: used });
    }
    if ("error" in answer) {
      if (answer.isRefusal && await this.#isRegistrysRefusal(target, { ...options, used })) {
        await this.access.refused(caller, key, used);
      }
      throw answer.error;
    }
    return { ...answer, used, provedAt: answer.provedAt ?? this.access.now() };
  }

  /**
   * Notes that the caller may read the repository. Call it for an answer that is proved to be the registry's answer to
   * what was asked, and for no other: content whose digest was verified, or that is the same as what is here; a HEAD
   * of a manifest (`isManifestHead`); a list that parses.
   */
  async proved({ target, caller }: Question, { used, provedAt }: Proof): Promise<void> {
    await this.access.allowed(caller, repositoryKey(target), { used, at: provedAt });
  }

  /**
   * Whether content that is here may be served to the caller in place of `error`, which came of asking for it: upstream
   * is in trouble, and the caller may read what it has shown before. What a client chose (`fromClient`, or its
   * credential) may itself have been the trouble, and then nothing follows from it: everybody could have what was
   * public once. So it is asked for once more, with nothing of the client's.
   */
  async mayServeStale(
    { target, caller }: Question,
    { error, fromClient = false }: { error: unknown; fromClient?: boolean },
  ): Promise<boolean> {
    const key = repositoryKey(target);
    if (!isUpstreamTrouble(error) || !await this.access.mayReadStale(caller, key)) return false;
    const isOurs = !fromClient && !isClientChosen(caller.credential, target.registry);
    if (isOurs || await this.access.isLetIn(caller, key)) return true;
    return await this.#probe(target) !== "refused";
  }

  /**
   * Whether a refusal is of the repository, and not of what a client chose beside it: something in front of a registry may
   * turn away a User-Agent or a query. What is public would not be so any more because of that.
   */
  async #isRegistrysRefusal(
    target: Target,
    { used, fromClient, search = "" }: AskOptions & { used: Credential },
  ): Promise<boolean> {
    const isChosen = fromClient === true || search !== "";
    if (!isChosen || used.kind !== "anonymous") return true;
    const isMarked = await this.access.wasPublic(repositoryKey(target));
    return !isMarked || await this.#probe(target) === "refused";
  }

  async #try(
    target: Target,
    options: AskOptions & { credential: Credential },
  ): Promise<UpstreamAnswer | Failure> {
    const { registry, repository, kind } = target;
    const { method, headers, credential, fromClient, timeout, redirects, signal, search = "" } =
      options;
    try {
      const answer = await this.#upstream.request({
        registry,
        method,
        path: upstreamPath(target) + search,
        headers: headers ?? new Headers({ "accept-encoding": "identity" }),
        credential,
        scope: pullScope(repository),
        fromClient: fromClient || search !== "",
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
      if (isSuccess && isPage(response, { isContent: kind === "blob" && method === "GET" })) {
        throw otherAnswer(answer);
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
   * Finds out in the background whether the repository of a manifest is public, when only somebody with
   * credentials has read it: what is public is to be served to everybody, and while upstream is away.
   */
  probePublic(target: Target): Promise<void> {
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
    if (await this.access.isPublic(repositoryKey(target))) return;
    await this.#probe(target);
  }

  /**
   * Asks for `target` with nothing that a client chose, once for all who want to know: whether everybody may read
   * it, which is noted, nobody in particular may not, which is noted too, or upstream is in trouble.
   */
  async #probe(target: Target): Promise<"public" | "refused" | "unknown"> {
    const { registry, repository, kind, reference } = target;
    const key = JSON.stringify([registry.id, repository, kind, reference]);
    return await this.#probes.run(key, () => this.#ask(target));
  }

  async #ask(asked: Target): Promise<"public" | "refused" | "unknown"> {
    // What is attached to a manifest may be read where the manifest may.
    const target: Target = asked.kind === "referrers" ? { ...asked, kind: "manifest" } : asked;
    const isManifest = target.kind === "manifest";
    const headers = new Headers({ "accept-encoding": "identity" });
    if (isManifest) headers.set("accept", ACCEPT_EVERY_MANIFEST);
    if (target.kind === "blob") headers.set("range", "bytes=0-0");
    const caller = this.access.caller({ ...target.registry, sharePrivate: false }, {
      kind: "anonymous",
    });
    try {
      const answer = await this.ask(target, {
        // public.ecr.aws refuses the HEAD of a blob whose GET it allows.
        method: isManifest ? "HEAD" : "GET",
        caller,
        headers,
        redirects: "follow",
        timeout: PROBE_TIMEOUT,
        signal: this.#ending.signal,
      });
      answer.abort();
      if (!isManifest || !isManifestHead(answer, target)) return "unknown";
      await this.proved({ target, caller }, answer);
      return "public";
    } catch (error) {
      // Some registries say of what one may not see that it does not exist. Trouble says nothing, and neither does a
      // registry that knows no HEAD (405), or no part of an empty blob (416).
      const isRefused = error instanceof OciError && [401, 403, 404].includes(error.status);
      if (!isRefused) return "unknown";
      await this.access.refused(caller, repositoryKey(target), caller.credential);
      return "refused";
    }
  }
}

/** The error for a success that is not the answer to what was asked; gives the answer up. */
export function otherAnswer({ response, url, abort }: UpstreamAnswer): OciError {
  abort();
  return new OciError("UNAVAILABLE", "Upstream answers with something else", {
    detail: { host: url.host, status: response.status },
  });
}

/**
 * Whether a success is a page for people or a text in place of one: registries in maintenance, and what stands in
 * front of them, show such to everybody. Content may be of any type but a page's: its digest tells.
 */
function isPage({ headers }: Response, { isContent }: { isContent: boolean }): boolean {
  const type = essence(headers.get("content-type") ?? "");
  return (isContent ? type === "text/html" : type.startsWith("text/")) &&
    !isDigest(headers.get("docker-content-digest") ?? "");
}

/** Whether `credential` is one of several accounts of the operator's. */
function isAccount(credential: Credential, { registry }: Target): credential is BasicAccount {
  return credential.kind === "basic" && registry.credentials.length > 1 &&
    registry.credentials.some(({ username }) => username === credential.username);
}
