/**
 * What is attached to a manifest: always asked of upstream, since a signature must be found as soon as it
 * is there, and kept for when upstream is away.
 *
 * @module
 */
import { NOTES } from "./index/referrers_note.ts";
import type { Access } from "../auth/access.ts";
import type { RepositoryKey } from "../oci/registry.ts";
import { type Answer, bytesAnswer, plainAnswer } from "../response/answer.ts";
import { cacheLog } from "../telemetry/log.ts";
import { API_VERSION } from "../oci/api_version.ts";
import { digestOf, isStorable } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { accepts } from "../oci/media_type.ts";
import {
  forwardedSearch,
  MAX_MANIFEST,
  type Passthrough,
  type TargetRequest,
} from "../upstream/passthrough.ts";
import { replyHeaders, upstreamHeaders } from "../transforms/headers.ts";
import type { Target } from "../transforms/route.ts";
import type { Credential } from "../transforms/auth.ts";
import { otherAnswer, type RegistryClient, repositoryKey } from "../upstream/registry_client.ts";
import { readBounded } from "../upstream/download/body.ts";
import { isList } from "../upstream/proof.ts";
import { causeOf } from "../upstream/transport/send.ts";
import type { Content } from "./content/content.ts";
import type { BestEffortIndex } from "./index/best_effort_index.ts";
import { parseJson } from "../util/json.ts";

const INDEX_TYPE = "application/vnd.oci.image.index.v1+json";
const DEADLINE = 60_000;

/** Kept in place of a list where the registry has no such API: clients then look for a tag. */
const NO_API = new TextEncoder().encode(`{"errors":[{"code":"NOT_FOUND"}]}`);

/** oras asks first about a digest that nothing has, to see whether the registry has such an API. */
const NOTHING = `sha256:${"0".repeat(64)}`;
const NOBODY = new TextEncoder().encode(
  JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests: [] }),
);

/** The tag that a list is noted under. */
function noteOf(subject: string): string {
  return `${NOTES}${subject}`;
}

/** Options for {@linkcode Referrers}. */
export interface ReferrersOptions {
  readonly content: Content;
  readonly index: BestEffortIndex;
  readonly access: Access;
  readonly asker: RegistryClient;
  readonly relay: Passthrough;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The lists of referrers. */
export class Referrers {
  readonly #content: Content;
  readonly #index: BestEffortIndex;
  readonly #access: Access;
  readonly #asker: RegistryClient;
  readonly #relay: Passthrough;
  readonly #now: () => number;

  constructor(options: ReferrersOptions) {
    this.#content = options.content;
    this.#index = options.index;
    this.#access = options.access;
    this.#asker = options.asker;
    this.#relay = options.relay;
    this.#now = options.now ?? Date.now;
  }

  /** The answer to a GET or HEAD of a list. Throws an `OciError`. */
  async answer(request: TargetRequest): Promise<Answer> {
    const { target, method } = request;
    if (!isStorable(target.reference)) return await this.#relay.answer(request);
    if (this.#asker.isDown(target)) {
      const held = await this.#held(request);
      if (held) return this.#reply(request, held);
    }
    try {
      return method === "HEAD" ? await this.#relay.answer(request) : await this.#ask(request);
    } catch (error) {
      const mayBeOld = await this.#asker.mayServeStale(request, { error, fromClient: true });
      const held = mayBeOld ? await this.#held(request) : undefined;
      if (!held) {
        if (error instanceof OciError && error.status === 404) await this.#keepNone(request);
        throw error;
      }
      cacheLog.warn("Serving referrers of {digest} in {repository} stale: {cause}", {
        digest: target.reference,
        repository: target.repository,
        cause: causeOf(error),
      });
      return this.#reply(request, held);
    }
  }

  /** Upstream's list; kept where it is whole: all types, all on one page. */
  async #ask(request: TargetRequest): Promise<Answer> {
    const { target, caller, headers, url } = request;
    const search = forwardedSearch(url);
    const answer = await this.#asker.ask(target, {
      method: "GET",
      caller,
      headers: upstreamHeaders(headers, { kind: "referrers" }),
      search,
      redirects: "follow",
      fromClient: true,
    });
    const { response } = answer;
    const body = await readBounded(response, {
      limit: MAX_MANIFEST,
      deadline: DEADLINE,
      what: "list of referrers",
    });
    if (response.status !== 200 || !isList(body, "referrers")) throw otherAnswer(answer);
    await this.#asker.proved(request, answer);
    const isWhole = search === "" && !response.headers.has("link");
    // Whoever asks for something else gets it, and it is not what others ask for.
    if (isWhole && accepts(headers.get("accept"), INDEX_TYPE)) {
      await this.#keep(request, { body, used: answer.used });
    }
    const reply = replyHeaders(response.headers, {
      kind: "referrers",
      status: response.status,
      link: { upstream: answer.url, client: url },
    });
    reply.set("content-length", String(body.byteLength));
    return bytesAnswer(body, { status: response.status, headers: reply });
  }

  /**
   * Keeps that the registry has no such list. It says so to strangers as well, of what they may not see, and to queries that
   * it does not like.
   */
  async #keepNone(request: TargetRequest): Promise<void> {
    const { target, caller, url } = request;
    const isLetIn = await this.#access.wasLetIn(caller, repositoryKey(target));
    if (!isLetIn || forwardedSearch(url) !== "") return;
    await this.#keep(request, { body: NO_API, used: caller.credential });
  }

  async #keep(
    { target }: TargetRequest,
    { body, used }: { body: Uint8Array; used: Credential },
  ): Promise<void> {
    const digest = digestOf(body);
    const key = repositoryKey(target);
    // Only about what is here: anybody can ask about digests that nobody has.
    if (!await this.#index.link({ ...key, digest: target.reference, kind: "manifest" })) return;
    const known = await this.#index.tag(key, noteOf(target.reference));
    const isNew = known?.digest !== digest && !await this.#access.isPublic(key);
    if (isNew) await this.#access.revokePublic(key, used);
    await this.#note(key, target.reference, body);
    await this.#note(key, NOTHING, body === NO_API ? NO_API : NOBODY);
  }

  async #note(key: RepositoryKey, subject: string, body: Uint8Array): Promise<void> {
    const digest = digestOf(body);
    if (!await this.#content.put(digest, body as Uint8Array<ArrayBuffer>)) return;
    await this.#index.setTag(key, noteOf(subject), { digest, checkedAt: this.#now() });
  }

  /** The digests of what is kept to answer about `target` while upstream is away. */
  async kept(target: Target): Promise<string[]> {
    const key = repositoryKey(target);
    const notes = await Promise.all(
      [target.reference, NOTHING].map((subject) => this.#index.tag(key, noteOf(subject))),
    );
    return notes.flatMap((note) => note ? [note.digest] : []);
  }

  /** What was kept, where the caller may still have it. */
  async #held({ target, caller }: TargetRequest): Promise<Uint8Array | undefined> {
    const key = repositoryKey(target);
    if (!await this.#access.mayReadStale(caller, key)) return undefined;
    const note = await this.#index.tag(key, noteOf(target.reference));
    return note && await this.#content.read(note.digest);
  }

  #reply({ method, url }: TargetRequest, held: Uint8Array): Answer {
    const list = listOf(held);
    if (!list) throw new OciError("MANIFEST_UNKNOWN", "The registry has no list of referrers");
    const type = url.searchParams.get("artifactType");
    const body = type === null ? held : new TextEncoder().encode(JSON.stringify({
      ...list,
      manifests: list.manifests.filter((entry) => entry?.artifactType === type),
    }));
    const headers = new Headers({
      ...API_VERSION,
      "content-type": INDEX_TYPE,
      "content-length": String(body.byteLength),
      "cache-control": "no-store",
      "x-cache": "STALE",
      ...type !== null && { "oci-filters-applied": "artifactType" },
    });
    if (method === "HEAD") return plainAnswer(new Response(null, { headers }), "STALE");
    return bytesAnswer(body as Uint8Array<ArrayBuffer>, { status: 200, headers }, "STALE");
  }
}

/** A list of referrers: an index. */
interface ReferrersList {
  readonly manifests: readonly ({ readonly artifactType?: unknown } | null)[];
}

function listOf(body: Uint8Array): ReferrersList | undefined {
  try {
    const list = parseJson(body) as ReferrersList | null;
    return Array.isArray(list?.manifests) ? list : undefined;
  } catch {
    return undefined;
  }
}
